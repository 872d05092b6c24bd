"""One photo from a vision transformer after several steps of Adam.

As in `position_embedding`, W's gradient at step j is Σ_p δ_jp x_pᵀ, and the embedding of place p
has δ_jp. Of both, Adam leaves one number each, a function of the ratios of their gradients at all
steps (Kingma & Ba, ICLR 2015): sizes are lost, signs of the first gradient and ratios are not. But
the photo is the same at every step. So the number of W's entry (d, f) is that of a mean of what the
places' entries (p, d) sent, each weighed by δ_1pd x_pf: nearly as many equations as W has numbers,
in the photo and in |δ_1|.

What the gradients after the second are, by the first two, a replay of the training on the photo
tells, on a gray image at first; with it the second's ratio follows from what an embedding sent.
Replays also tell |δ_1|, the better, the nearer the photo is: photo and |δ_1| are searched for
together, and drawn to the latest replay. How bright each of a patch's pixels is, over all patches,
the equations leave open; photo statistics tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.evidence.labels.of_images import labels_of_images
from fedaudit.attacks.evidence.patch_system import Patches, embedded_patches
from fedaudit.attacks.evidence.position_embedding import Stack, is_in_range, take
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.training.replay import BETAS, EPSILON, replay
from fedaudit.attacks.training.schedule import without_decay
from fedaudit.core.training import LocalTraining
from fedaudit.models.facenet import criterion_of
from fedaudit.models.functional import functional_call

MOST = 20
"""Steps up to which it is tried: each is replayed."""
# These and the next were set by a photo of p01 and one of p02 of OpenPeople, after two and three
# steps at a rate of 0.001 through timm's ViT-S, fresh, 64 px.
FIRST, LATER, ROUNDS = 400, 100, 4
"""Steps of the first search; of each that follows a replay; and how many follow."""
FINISH = 200
"""Of L-BFGS after these, at most."""
NARROW = 0.5
"""Factor by which what a number may miss falls from one search to the next."""
RATE, PRIOR, VOLUME, PULL = 0.05, 2e-3, 0.2, (5e-4, 0.01)
"""Step size; weights of photo statistics, of what they say of lengths alone, and of |δ_1| as it is
replayed on a gray image, and on photos."""
LEAST = 3e-5
"""What numbers of a row differ by at least, in learning rates: some thirty times what rounding
leaves of a weight of 0.02 at a rate of 0.001."""
HELD_OUT, MISSED = 0.05, 0.1
"""Share of the numbers that is held out; what half of them may miss, of 1 (`_missed`). A gray image
misses 0.4, photos that were found 1e-3 and less."""
OUTSIDE = 0.15
"""Root mean square by which pixels may leave [0, 1]."""
GRID = 4001
"""Ratios of the second gradient to the first that are looked at before Newton's steps."""


def photo_by_adam(
    reading: Reading,
    before: Mapping[str, Tensor],
    delta: Mapping[str, Tensor],
    training: LocalTraining,
) -> Tensor | None:
    """The photo `[1, C, H, W]`; None where this does not apply, or where no photo explains it.

    Args:
        reading: Of one image's update.
        before: Global weights.
        delta: Local weights − global weights, after several steps of Adam, by name.
        training: The client's settings.
    """
    several = training.by_adam and 1 < training.steps <= MOST
    if reading.count != 1 or reading.private or not several:
        return None
    delta = without_decay(delta, before, training)
    for name, stacks, number, patches in embedded_patches(reading, torch.float32):
        if number >= len(reading.target[name]):
            continue
        rows = [-delta[name].flatten(1).float() / training.lr]
        bias = name.removesuffix("weight") + "bias"
        if bias in delta and bool(delta[bias].any()):  # as of a pixel that is 1 in all patches
            rows.append(-delta[bias][:, None].float() / training.lr)
        for stack in stacks:
            sent = -take(delta[stack[0]], stack, number).float() / training.lr
            course = _Course(reading, before, training, stack, number)
            photo = _search(torch.cat(rows, 1), sent, patches, course)
            if photo is not None and is_in_range(photo, OUTSIDE):
                return photo.clamp(0, 1).to(reading.like)
    return None


@dataclass(frozen=True)
class _Course:
    """Replays of the client's training on a photo."""

    reading: Reading
    before: Mapping[str, Tensor]
    training: LocalTraining
    stack: Stack
    places: int

    def gradients(self, photo: Tensor) -> Tensor:
        """δ at every step, `[K, P, D]`."""
        model, steps = self.reading.model, self.training.steps
        photo = photo.clamp(0, 1).to(self.reading.like)
        labels = labels_of_images(self.reading, photo).clamp_min(0).to(photo.device)
        moved: list[dict[str, Tensor]] = [{}]
        replay(
            model, self.before, photo, labels, self.training, order=[[0]] * steps,
            create_graph=False, visit=lambda delta: moved.append(dict(delta)),
        )  # fmt: skip
        found, (name, _) = [], self.stack
        own = {n: self.before.get(n, p).detach() for n, p in model.named_parameters()}
        for change in moved[:steps]:
            weights = {n: value + change[n] if n in change else value for n, value in own.items()}
            weights[name] = weights[name].clone().requires_grad_()
            loss = criterion_of(model)(functional_call(model, weights, (photo,)), labels)
            found.append(take(torch.autograd.grad(loss, weights[name])[0], self.stack, self.places))
        return torch.stack(found)


def adam_steps(gradients: list[Tensor]) -> Tensor:
    """What Adam subtracts for these gradients, one a step, in learning rates.

    Example:
        >>> adam_steps([torch.tensor([2.0, -0.5]), torch.tensor([2.0, 0.5])]).round(decimals=3)
        tensor([ 2.0000, -0.9470])
    """
    first, second = torch.zeros_like(gradients[0]), torch.zeros_like(gradients[0])
    total = torch.zeros_like(first)
    for count, gradient in enumerate(gradients, 1):
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient.square()
        size = (second / (1 - BETAS[1] ** count) + 1e-30).sqrt()
        total = total + first / (1 - BETAS[0] ** count) / (size + EPSILON)
    return total


def _search(numbers: Tensor, sent: Tensor, patches: Patches, course: _Course) -> Tensor | None:
    """The photo by what W `[D, F]`, its bias behind it, and an embedding `[P, D]` sent."""
    middle = numbers.median(1, keepdim=True).values
    spread = (1.5 * (numbers - middle).abs().median(1, keepdim=True).values).clamp_min(LEAST)
    generator = torch.Generator().manual_seed(0)
    held_out = torch.rand(numbers.shape, generator=generator).to(numbers) < HELD_OUT
    waves = 0.3 * torch.randn(patches.black.shape, generator=generator).to(numbers)
    photo, sizes, signs = patches.prior.mean, None, sent.sign()
    for number in range(1 + ROUNDS):
        ratios, first = _ratios(course.gradients(photo), sent)
        right = first.sign() == signs
        likely = first.abs().clamp_min(1e-3 * first.abs().median()).log()
        problem = _Problem(
            numbers, spread, ~held_out, ratios * signs, likely, PULL[number > 0] * right, patches
        )
        start = likely if sizes is None else torch.where(right, likely, sizes)
        narrow = NARROW**number
        waves, sizes = problem.solve(waves, start, narrow, LATER if number else FIRST)
        photo = problem.photo(waves)
        left = problem.missed(photo, sizes, 1.0)[held_out].median()
        if not float(left) < MISSED:
            return None
    return photo


@dataclass(frozen=True)
class _Problem:
    """Photo and |δ_1|, by what W sent.

    Attributes:
        numbers: `[D, F]`, of the bias, too, where there is one.
        spread: What they differ by in a row, `[D, 1]`.
        given: Which of them are asked.
        ratios: δ at each step, in units of |δ_1|, `[K, P, D]`.
        likely: Logarithms of |δ_1| as it was replayed, `[P, D]`.
        pull: What these count, `[P, D]`.
        patches: What photos are made up of.
    """

    numbers: Tensor
    spread: Tensor
    given: Tensor
    ratios: Tensor
    likely: Tensor
    pull: Tensor
    patches: Patches

    def photo(self, waves: Tensor) -> Tensor:
        """Of waves in units of what each varies by, `[1, C, H, W]`."""
        return self.patches.prior.mean + self.patches.prior.colored(waves)

    def missed(self, photo: Tensor, sizes: Tensor, narrow: float) -> Tensor:
        """What each number is missed by, `[D, F]`, from 0 to 1."""
        entering = self.patches.entering(photo)
        if self.numbers.shape[1] > entering.shape[1]:
            entering = torch.cat([entering, torch.ones_like(entering[:, :1])], 1)
        upstream = self.ratios * sizes.clamp(-20, 20).exp()
        off = adam_steps([one.mT @ entering for one in upstream]) - self.numbers
        missed: Tensor = 1 - (1 + (off / (narrow * self.spread)).square()).rsqrt()
        return missed

    def cost(self, waves: Tensor, sizes: Tensor, narrow: float) -> Tensor:
        """What is minimized: lengths of a pixel over all patches are not asked by W's numbers."""
        photo = self.photo(waves)
        missed = (self.given * self.missed(photo, sizes, narrow)).mean()
        entering = self.patches.entering(photo)
        lengths = entering.norm(dim=0).clamp_min(1e-3).log().mean()
        unlikely = waves.square().mean() - VOLUME * 2 * (1 - 1 / len(entering)) * lengths
        off = sizes - self.likely
        off = (off - off.mean(0)).square().clamp_max(4)
        cost: Tensor = missed + PRIOR * unlikely + (self.pull * off).mean()
        return cost

    def solve(
        self, waves: Tensor, sizes: Tensor, narrow: float, steps: int
    ) -> tuple[Tensor, Tensor]:
        """Waves and sizes, from near them."""
        free = [waves.clone().requires_grad_(), sizes.clone().requires_grad_()]
        first = torch.optim.Adam(free, RATE)
        last = torch.optim.LBFGS(
            free, max_iter=FINISH, history_size=30, line_search_fn="strong_wolfe",
            tolerance_grad=1e-12, tolerance_change=1e-14,
        )  # fmt: skip

        def closure() -> Tensor:
            first.zero_grad()
            cost = self.cost(free[0], free[1], narrow)
            cost.backward()  # type: ignore[no-untyped-call]
            return cost

        pace = torch.optim.lr_scheduler.CosineAnnealingLR(first, steps)
        for _ in range(steps):
            first.step(closure)
            pace.step()
        last.step(closure)  # type: ignore[no-untyped-call]
        return free[0].detach(), free[1].detach()


def _ratios(replayed: Tensor, sent: Tensor) -> tuple[Tensor, Tensor]:
    """What δ is at every step, by the first, `[K, P, D]`, and the replayed first, `[P, D]`.

    The replay tells how the later ones follow from the first two, and which of several second
    ratios that agree with what was sent is the likely one.

    Args:
        replayed: δ at every step of a replay, `[K, P, D]`.
        sent: What Adam made of δ, in learning rates, `[P, D]`.
    """
    first = replayed[0]
    basis = replayed[:2].flatten(1).mT
    shares = torch.linalg.lstsq(basis, replayed.flatten(1).mT).solution.mT
    size = first.abs().clamp_min(0.1 * first.abs().median())
    own = (replayed - torch.einsum("kj,jpd->kpd", shares, replayed[:2])) / size * first.sign()
    own[:2] = 0

    def course(ratio: Tensor, rest: Tensor) -> Tensor:
        one, two = (shares[:, k].view(-1, *[1] * ratio.dim()) for k in range(2))
        result = one + two * ratio + rest
        return torch.cat([torch.ones_like(result[:1]), ratio[None], result[2:]])

    def steps(ratio: Tensor, rest: Tensor) -> Tensor:
        return adam_steps(list(course(ratio, rest)))

    likely = (replayed[1] / size * first.sign()).atan()
    angles = torch.linspace(-1.5707, 1.5707, GRID).to(sent)
    goal = sent.abs()
    on_grid = steps(angles.tan(), torch.zeros(1).to(sent))
    near = torch.stack([
        ((on_grid - g[:, None]).abs() + 1e-2 * (angles - a[:, None]).abs()).argmin(1)
        for g, a in zip(goal, likely, strict=True)
    ])  # fmt: skip
    ratio = angles[near].tan()
    for _ in range(6):  # Newton
        width = 1e-3 * (1 + ratio.abs())
        value = steps(ratio, own)
        slope = (steps(ratio + width, own) - steps(ratio - width, own)) / (2 * width)
        step = (goal - value) * slope / (slope.square() + 1e-8)
        ratio = ratio + step.clamp(-0.1, 0.1) * (1 + ratio.abs())
    return course(ratio, own), first
