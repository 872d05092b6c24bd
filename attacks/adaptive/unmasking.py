"""A network that undoes InstaHide's sign mask: which pixels were turned into their negative.

Of a mixture u of photos in [-1, 1], the mask leaves |u|. Its sign changes where u passes gray, so
that it is one sign for each patch of pixels; which one, faces say: a small U-Net learns it from
mixtures of the attacker's own. Of several rounds on the same photo each says what to expect of the
others, which the network gets as a second image. Carlini et al. (IEEE S&P 2021, arXiv 2011.05315)
start from |u|, too: of many mixtures of the same photos, without faces of their own.

`benchmarks/mixture_bound.py` measures what is undone, on ORL at 32 px.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.adaptive.mixture_arithmetic import (
    Coefficients,
    drawn_from,
    drawn_on,
    expect,
)
from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.generators.eigenfaces import kept_faces
from fedaudit.core.protocols import Progress
from fedaudit.core.seeds import draw_seeded, generator_for
from fedaudit.defenses.gradient_transforms import ImageTransform
from fedaudit.files.cache import key_of, load_or_learn
from fedaudit.models.bodies import group_norm

BATCH = 32
"""Mixtures in a step."""
ROUNDS = (1, 2, 4, 8)
"""On the same photo, in a step."""
POOL = 12
"""Faces of a made-up client: its photo and eleven others."""
CELLS = 4
"""Side in pixels of the coarsest scale, or more."""
PLACES = 4
"""Channels that tell the network where in the face it is."""
NOISE = 0.2
"""Most noise on |u|, in units of its root mean square: what a rebuilt image is off by."""
COLORED = 0.25
"""Share of what channels differ by that is left when 3×3 pixels are averaged, from which on it is
color: of independent errors a ninth is left, of smooth patches most."""
PASSES = 4
"""Times that all rounds are read, each with what the others said before."""


class SignNet(nn.Module):
    """A U-Net: sizes and expectations `[N, c, H, W]` → the logits of a positive sign.

    Args:
        shape: `(c, H, W)`.
        width: Channels at full resolution; up to four times as many below.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("spread", torch.ones(()))
        self.places = nn.Parameter(torch.zeros(1, PLACES, *shape[1:]))
        levels = max(1, (min(shape[1:]) // CELLS).bit_length())
        widths = [width * min(2**level, 4) for level in range(levels)]
        into = [2 * shape[0] + PLACES, *widths]
        self.down = nn.ModuleList(_pair(one, two) for one, two in zip(into, widths, strict=False))
        self.up = nn.ModuleList(
            _pair(below + beside, beside)
            for below, beside in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = nn.Conv2d(widths[0], shape[0], 1)

    def forward(self, sizes: Tensor, expectations: Tensor) -> Tensor:
        """See the class; both in units of `spread`."""
        places = self.places.expand(len(sizes), -1, -1, -1)
        x, beside = torch.cat([sizes, expectations, places], 1), []
        for level, layers in enumerate(self.down):
            x = layers(F.avg_pool2d(x, 2) if level else x)
            beside.append(x)
        for layers in self.up:
            same = beside[-2]
            beside.pop()
            x = layers(torch.cat([F.interpolate(x, same.shape[2:]), same], 1))
        logits: Tensor = self.last(x)
        return logits

    def unmask(self, sizes: Tensor, own: Tensor, rest: Tensor) -> Tensor:
        """The mixtures of S photos in R rounds behind their sizes, `[S, R, c, H, W]` by `spread`.

        `own` `[S, R]` are the photo's coefficients, `rest` the sums of the squares of all others.
        """
        expectations = self.mean.expand_as(sizes)
        mixtures = sizes
        for _ in range(PASSES if sizes.shape[1] > 1 else 1):
            mixtures = self._likely(sizes, expectations)
            expectations = expect(mixtures, own, rest, self.mean)
        return mixtures

    def _likely(self, sizes: Tensor, expectations: Tensor) -> Tensor:
        """The mean over both signs."""
        logits = self(sizes.flatten(0, 1), expectations.flatten(0, 1)).view_as(sizes)
        likely: Tensor = (logits / 2).tanh() * sizes
        return likely


def _pair(one: int, two: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (one, two):
        layers += [nn.Conv2d(channels, two, 3, 1, 1), group_norm(two), nn.SiLU()]
    return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True)
class Unmasking:
    """How the network is trained.

    Args:
        faces: The attacker's own, from which mixtures are made.
        sets: Made-up photos, each in several mixtures.
        steps: Of training, with 32 mixtures each.
        width: Channels of the network at full resolution.
        auxiliary: Where the faces come from.
        seed: Of faces, mixtures, start and order; what is learned serves every target.
        cache: Folder for what was learned; None for the user's cache folder, "off" for none.
    """

    faces: int = 4000
    sets: int = 2000
    steps: int = 1500
    width: int = 16
    auxiliary: Auxiliary = field(default_factory=Auxiliary)
    seed: int = 0
    cache: str | None = None

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"the steps of unmasking must be at least 2, not {self.steps}")
        if min(self.faces, self.sets, self.width) < 1:
            raise ValueError("faces, sets and width of unmasking must be at least 1")

    def unmasked(
        self,
        transforms: Sequence[ImageTransform],
        masked: Tensor,
        shares: Coefficients,
        progress: Progress | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The mixtures `[R, C, H, W]` behind masked images of several rounds, and the mean of
        faces.

        Networks that standardize what they see leave contrast open: the mixtures get the contrast
        of those that `transforms` make of the attacker's faces. All in [0, 1]; `shares` are of the
        photo that they have in common.
        """
        sizes = (2 * masked.float() - 1).abs()
        channels = len(sizes[0])
        if is_gray(sizes):
            sizes = sizes.mean(1, keepdim=True)
        network = self.network(
            transforms, (channels, *sizes.shape[2:]), sizes.shape[1] == 1, progress
        )
        network = network.to(sizes.device)
        sizes = sizes / _root_mean_square(sizes)
        with torch.no_grad():
            own, rest = (x[None].to(sizes) for x in (shares.own, shares.rest))
            mixtures = network.unmask(sizes[None], own, rest)[0]
        whole = ((network.spread * x + 1) / 2 for x in (mixtures, network.mean))
        images, mean = (x.expand(*x.shape[:-3], channels, -1, -1).to(masked) for x in whole)
        return images, mean

    def network(
        self,
        transforms: Sequence[ImageTransform],
        shape: tuple[int, int, int],
        grayscale: bool,
        progress: Progress | None = None,
    ) -> SignNet:
        """The trained network for such transforms, from the cache if it is there."""
        seen = (1 if grayscale else shape[0], *shape[1:])

        def learn() -> dict[str, Tensor]:
            network = draw_seeded(lambda: SignNet(seen, self.width), self.seed)
            self._teach(network, transforms, shape, grayscale, progress)
            return network.state_dict()

        does = torch.stack([drawn_on(transforms, shape, seed).images[0] for seed in range(2)])
        training = replace(self, auxiliary=self.auxiliary.by_content())
        key = key_of({"does": does}, ("unmasking", shape, grayscale, training))
        network = SignNet(seen, self.width)
        state = load_or_learn(
            key,
            learn,
            self.cache,
            what="network of signs of mixtures",
            photos=self.auxiliary.photos,
            valid=network.state_dict(),
        )
        network.load_state_dict(state)
        return network.eval().requires_grad_(False)

    def _teach(
        self,
        network: SignNet,
        transforms: Sequence[ImageTransform],
        shape: tuple[int, int, int],
        grayscale: bool,
        progress: Progress | None,
    ) -> None:
        faces = kept_faces(
            self.auxiliary, self.faces, shape, grayscale=grayscale, seed=self.seed, cache=self.cache
        )
        generator = generator_for("unmasking", self.seed)
        mixtures, own, rest = self._mixtures(transforms, faces, generator)
        spread = float(mixtures.square().mean().sqrt())
        network.spread.fill_(spread)
        network.mean.copy_((2 * faces.mean(0) - 1) / spread)
        optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, self.steps, pct_start=0.15)
        for step in range(self.steps):
            rounds = ROUNDS[int(torch.randint(len(ROUNDS), (1,), generator=generator))]
            which = torch.randint(len(mixtures), (BATCH // rounds,), generator=generator)
            places = torch.randperm(mixtures.shape[1], generator=generator)[:rounds]
            true = mixtures[which][:, places]
            if step % 2:
                true = true.flip(4)
            loud = NOISE * spread * float(torch.rand(1, generator=generator))
            sizes = (true + loud * torch.randn(true.shape, generator=generator)).abs()
            sizes = sizes / _root_mean_square(sizes)
            expectations = network.mean.expand_as(sizes)
            if rounds > 1:
                with torch.no_grad():
                    before = network._likely(sizes, expectations)
                    shares = own[which][:, places], rest[which][:, places]
                    expectations = expect(before, *shares, network.mean)
            logits = network(sizes.flatten(0, 1), expectations.flatten(0, 1)).view_as(sizes)
            # A sign counts by how far it moves its pixel.
            wrong = F.softplus(-logits * true.sign()) * sizes
            loss = wrong.sum() / sizes.sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if progress and (step % 10 == 9 or step + 1 == self.steps):
                progress(step + 1, self.steps, float(loss.detach()))

    def _mixtures(
        self, transforms: Sequence[ImageTransform], faces: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mixtures `[S, R, c, H, W]` in [-1, 1], and their coefficients."""
        rounds, mixtures, own, rest = max(ROUNDS), [], [], []
        for _ in range(self.sets):
            pool = faces[torch.randint(len(faces), (POOL,), generator=generator)]
            for _ in range(rounds):
                draw = drawn_from(transforms, pool, generator)
                assert draw.sums is not None  # they mix
                mixtures.append(2 * draw.sums[0] - 1)
                own.append(draw.labels[0, 0])
                rest.append(draw.labels[0, 1:].square().sum())
        size = (self.sets, rounds)
        shares, others = torch.stack(own).view(size), torch.stack(rest).view(size)
        return torch.stack(mixtures).view(*size, *faces.shape[1:]), shares, others


def is_gray(sizes: Tensor) -> bool:
    """Whether the channels of `[R, C, H, W]` differ by errors only, pixel by pixel."""
    apart = sizes - sizes.mean(1, keepdim=True)
    smooth = F.avg_pool2d(apart, 3, 1)
    return float(smooth.square().mean()) <= COLORED * float(apart.square().mean())


def _root_mean_square(sizes: Tensor) -> Tensor:
    """Of each image `[…, c, H, W]`, `[…, 1, 1, 1]`."""
    return sizes.square().mean((-3, -2, -1), keepdim=True).sqrt().clamp_min(1e-6)
