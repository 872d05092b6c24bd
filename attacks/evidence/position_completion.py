"""One photo from a vision transformer of whose gradient only some numbers were sent.

As in `position_embedding`, W's gradient is Σ_p δ_p x_pᵀ, and the embedding of place p has δ_p.
Pruning leaves some numbers of both, exactly. Where these are more than the photo and δ have, photo
and δ follow by variable projection (Golub & Pereyra, SIAM J. Numer. Anal. 1973; Kaufman, BIT 1975):
the best δ is put in, channel by channel, and Gauss–Newton steps move the photo. Errors are taken
for larger than they are at first, so that what few numbers tell comes after what many do.

That needs a photo that is nearly right. Where the smallest numbers were left out, zeros are nearly
what they were. Else W's gradient is completed from noise, as a matrix of so low a rank follows from
some of its numbers (`bilinear_fit`), and δ from the directions that it shows.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fedaudit.attacks.evidence.bilinear_fit import Problem, fit
from fedaudit.attacks.evidence.conjugate_gradients import conjugate_gradients
from fedaudit.attacks.evidence.known_entries import KnownEntries
from fedaudit.attacks.evidence.patch_system import (
    Numbers,
    Patches,
    PhotoSystem,
    first_photo,
    upstream_of,
)
from fedaudit.attacks.evidence.position_embedding import PIXEL_ERROR
from fedaudit.attacks.evidence.reading import Reading

LARGEST = 5e6
"""Numbers of all Gram matrices beyond which it is not tried: 2e6 of ViT-S at 112 px, and 3e7 of
ViT-B/16 at 224 px, a turn of which would take tens of seconds."""
# These and what follows were set once, on a photo of p01 through timm's ViT-S at 64 px, of whose
# gradient half was left out, or four fifths at random: 3.3 known numbers an unknown one, where a
# tenth of the numbers is too few (1.6).
FEWEST, FROM_NOISE = 1.5, 3.0
"""Known numbers by unknown ones from which on it is tried, and from noise."""
HELD_OUT, PREDICTED = 0.1, 1e-6
"""Share of the known numbers that is held out; relative square of them that may be missed: a
thousandth of each, where rounding leaves a sixth of that after two steps at a rate of 0.001."""
BY_SIZE = 0.05
"""Least number that was sent, of their median, from which on the smallest were left out."""
FIT_STEPS, NOISE_ERROR, FITTED = 200, 1e-3, 0.05
"""Steps of a completion from noise; error of its directions, of the usual number; relative square
of what is known that it may miss, to be gone on from."""
FIRST, FALL, LAST = 1e-2, 0.4, 1e-7
"""Errors of numbers, of the usual one: at first, by which factor they fall, and at last."""
EXPLAINED, PATIENCE = 4.0, 4
"""Mean square of what is missed, in units of these, from which on they fall; or after so many
turns. Where they fell for that reason alone as often in a row, there is no such photo."""
TURNS, PRODUCTS, TOLERANCE = 60, 150, 1e-8
"""Gauss–Newton steps, at most; products in each, and relative length of what is left."""
STEPS = (1.0, 0.5, 0.25, 0.1, 0.03)
"""Shares of a step that are tried."""
STILL = 1e-6
"""Root mean square by which the last step moves pixels."""
OUTSIDE = 0.05
"""Root mean square by which pixels may leave [0, 1]."""

Start = Callable[[Numbers, Numbers, Patches], Tensor | None]
"""A photo that is nearly right, by W's gradient and δ; None where there is none."""


def photo_by_completion(reading: Reading, known: Mapping[str, KnownEntries]) -> Tensor | None:
    """The photo `[1, C, H, W]`; None where this does not apply, or known numbers are too few.

    Numbers that were held out are predicted to 1e-6 of their squares, and pixels known to 0.05, or
    there is no photo.

    Args:
        reading: Of one image's update.
        known: Numbers of its gradient and their errors, by parameter.
    """
    return first_photo(reading, known, _complete, OUTSIDE)


def _complete(gradient: Numbers, upstream: Numbers, patches: Patches) -> Tensor | None:
    number = upstream.values.shape[1]
    # What is zero beside exact numbers was not sent, or says as little.
    gradient, upstream = _filled(gradient), _filled(upstream)
    enough = (gradient.weights > 0).sum(1) > number + 1
    gradient, upstream = gradient.rows(enough), upstream.rows(enough)
    given = int((gradient.weights > 0).sum())
    unknown = patches.black.numel() + upstream.values.numel()
    width = max(gradient.values.shape)
    if given < FEWEST * unknown or width * number**2 > LARGEST or bool(gradient.weights.all()):
        return None
    if int((upstream.weights > 0).sum(0).min()) < number:  # photos are then known up to a mixture
        return None
    drawn = torch.rand(gradient.values.shape, generator=torch.Generator().manual_seed(0)) < HELD_OUT
    held_out = drawn.to(gradient.values.device) & (gradient.weights > 0)
    some = Numbers(gradient.values, gradient.weights * ~held_out)
    starts: list[Start] = [_by_size] if _left_out_the_smallest(upstream) else []
    if given >= FROM_NOISE * unknown:
        starts.append(_from_noise)
    for start in starts:
        begun = start(some, upstream, patches)
        if begun is None:
            continue
        photo = _descend(begun, some, upstream, patches)
        weights = _weights(some, LAST), _weights(upstream, LAST)
        entering = patches.entering(photo)
        delta, _ = upstream_of(entering, some.values, weights[0], upstream.values, weights[1])
        missed = (gradient.values - delta @ entering)[held_out].square().sum()
        if not float(missed) < PREDICTED * float(gradient.values[held_out].square().sum()):
            continue
        misfit = (weights[0] * (some.values - delta @ entering).square()).sum() / given
        weighed = weights[0] / misfit.clamp_min(1)  # errors may be larger than is stated
        system = PhotoSystem(weighed, some.values, delta, patches)
        if system.variance() < PIXEL_ERROR**2:
            return photo
    return None


def _filled(numbers: Numbers) -> Numbers:
    return Numbers(numbers.values, numbers.weights * (numbers.values != 0))


def _left_out_the_smallest(upstream: Numbers) -> bool:
    """Whether what was left out is smaller than what was sent."""
    sent = upstream.values[upstream.weights > 0].abs()
    return float(sent.min()) > BY_SIZE * float(sent.median())


def _by_size(gradient: Numbers, upstream: Numbers, patches: Patches) -> Tensor:
    """The likeliest photo by δ as it was sent: what is missing of it is an error."""
    sent = upstream.weights > 0
    least = float(upstream.values[sent].abs().min())
    unsent = torch.full_like(upstream.values, least**2 / 3)
    errors = torch.where(sent, 1 / upstream.weights.clamp_min(1e-300), unsent)
    size = patches.entering(patches.prior.mean).square().mean()
    blur = (size * errors).sum(1, keepdim=True)
    weights = gradient.weights / (1 + gradient.weights * blur)
    return PhotoSystem(weights, gradient.values, upstream.values, patches).solve(patches.prior.mean)


def _from_noise(gradient: Numbers, upstream: Numbers, patches: Patches) -> Tensor | None:
    """The likeliest photo by a gradient that is completed from noise; None where it is not."""
    shape = (-1, *patches.layer.weight.shape[1:])
    known = gradient.weights > 0
    errors = torch.where(known, gradient.weights.clamp_min(1e-300) ** -0.5, math.inf)
    numbers = (gradient.values * known).reshape(shape)
    problem = Problem.of(patches.layer, numbers, errors.reshape(shape))
    noise = torch.randn(patches.black.shape, generator=torch.Generator().manual_seed(0))
    fitted = fit(problem, noise.to(patches.black), FIT_STEPS)
    assert fitted is not None  # some numbers are known
    missed = problem.missed(*fitted).square().sum()
    if not missed < FITTED * (problem.weights * problem.numbers).square().sum():
        return None
    whole = (problem.product(*fitted).double() * problem.scale)[0]
    places = upstream.values.shape[1]
    basis = torch.linalg.svd(whole, full_matrices=False).U[:, :places]
    roots = upstream.weights.sqrt().mT[:, :, None]
    shares = torch.linalg.lstsq(
        roots.cpu() * basis.cpu(), (roots * upstream.values.mT[:, :, None]).cpu(), driver="gelsd"
    ).solution
    delta = basis @ shares[:, :, 0].mT.to(basis)
    weights = _weights(gradient, NOISE_ERROR)
    return PhotoSystem(weights, gradient.values, delta, patches).solve(patches.prior.mean)


def _weights(numbers: Numbers, error: float) -> Tensor:
    """What numbers count whose errors are at least so large, of the usual number."""
    known = numbers.weights > 0
    least = (error * numbers.values[known].square().mean().sqrt()).square()
    variance = 1 / numbers.weights.where(known, torch.ones_like(numbers.weights))
    return known / torch.maximum(variance, least)


def _descend(photo: Tensor, gradient: Numbers, upstream: Numbers, patches: Patches) -> Tensor:
    """The photo, after Gauss–Newton steps by errors that fall."""
    error, stood, lost = FIRST, 0, 0
    for _ in range(TURNS):
        turn = _Turn(gradient, upstream, patches, error)
        step = turn.step(photo)
        before, moved = turn.cost(photo)[0], photo
        for share in STEPS:
            cost, misfit = turn.cost(photo + share * step)
            if cost < before:
                moved = photo + share * step
                break
        still = float((moved - photo).square().mean().sqrt()) < STILL
        photo, stood = moved, stood + 1
        if error <= LAST and still:
            break
        explained = misfit < EXPLAINED
        if still or explained or stood == PATIENCE:
            error, stood, lost = max(FALL * error, LAST), 0, 0 if explained else lost + 1
        if lost == PATIENCE:
            break
    return photo


class _Turn:
    """The cost of photos, the best δ put in, where numbers have errors of one size at least."""

    def __init__(
        self, gradient: Numbers, upstream: Numbers, patches: Patches, error: float
    ) -> None:
        self.values, self.sent, self.patches = gradient.values, upstream.values, patches
        self.weights = _weights(gradient, error)
        self.sent_weights = _weights(upstream, error)
        self.given = int((self.weights > 0).sum())

    def _best(self, entering: Tensor) -> tuple[Tensor, Tensor]:
        return upstream_of(entering, self.values, self.weights, self.sent, self.sent_weights)

    def cost(self, photo: Tensor) -> tuple[float, float]:
        """Of a photo; and the mean square of what it misses, in units of the errors."""
        entering, deviation = self.patches.entering(photo), photo - self.patches.prior.mean
        delta, _ = self._best(entering)
        missed = (self.weights * (self.values - delta @ entering).square()).sum()
        missed = missed + (self.sent_weights * (self.sent - delta).square()).sum()
        unlikely = (deviation * self.patches.prior.unlikeliness(deviation)).sum()
        return float(missed + unlikely), float(missed) / self.given

    def step(self, photo: Tensor) -> Tensor:
        """By Kaufman's Jacobian: how products change, less what another δ makes up for."""
        patches, prior = self.patches, self.patches.prior
        entering = patches.entering(photo)
        delta, factor = self._best(entering)

        def back(missed: Tensor) -> Tensor:
            return patches.join(patches.contrast * (delta.mT @ missed))

        def normal(change: Tensor) -> Tensor:
            moved = delta @ (patches.contrast * patches.cut(change))
            pull = ((self.weights * moved) @ entering.mT)[:, :, None]
            left = moved - torch.cholesky_solve(pull, factor)[:, :, 0] @ entering
            return back(self.weights * left) + prior.unlikeliness(change)

        system = PhotoSystem(self.weights, self.values, delta, patches)
        missed = back(self.weights * (self.values - delta @ entering))
        (step,) = conjugate_gradients(
            lambda x: [normal(x[0])],
            [missed - prior.unlikeliness(photo - prior.mean)],
            steps=PRODUCTS,
            tolerance=TOLERANCE,
            precondition=lambda x: [system.precondition(x[0])],
        )
        return step
