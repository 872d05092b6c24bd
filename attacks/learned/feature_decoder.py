"""Feature maps that the update gives away, drawn as images by a network; then refined."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.adaptive.defense_adaptation import Attacker
from fedaudit.attacks.evidence.feature_maps.known_maps import KnownMaps, known_maps
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.learned.decoder import MapDecoder, teach
from fedaudit.attacks.search.image_priors import total_variation
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.movers.gradient_descent import Search
from fedaudit.attacks.search.movers.round_wise import FREE_LR
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.seeds import draw_seeded, generator_for
from fedaudit.core.shared import Update
from fedaudit.files.cache import key_of, load_or_learn

PART = 256
GENERIC = 4
"""Faces that give the match its unit."""
# Set by hand; what they reach is measured by benchmarks/learned_inversion.py.
MATCH_LR, MAP_LR = 0.02, 0.03
"""Peak steps in units of the pixel range: gently, for the start is good already."""
JITTER = 0.002
"""Of the start: a drawing with exactly equal pixels has no direction of least variation."""


@dataclass(frozen=True, kw_only=True)
class FeatureDecoder:
    """Draw the feature maps that the update gives away, then correct the drawing.

    After Xue et al. (AAAI 2024, "FGLA: Fast Generation-Based Gradient Leakage Attacks") and Yue et
    al. (USENIX Security 2023, "Gradient Obfuscation Gives a False Sense of Security"): the input of
    the first fully connected layer follows from its gradient, and a network trained on auxiliary
    faces through the same model draws it. Here the map before the last block is used where it
    follows too (`feature_maps.last_block`), which holds behind average pooling and for any
    label. Refinement fits the maps themselves where they are known, else the gradient. What
    cannot be
    drawn, as nothing is known, starts from an auxiliary face.

    Args:
        faces: Auxiliary faces to train on.
        epochs: Times that each is seen.
        width: Channels of the decoder at its lowest resolution.
        source: The face generator: "face_gan", a file, or `package.module:factory`.
        photos: A folder of further auxiliary photos, one folder a person; None for none.
        refine_steps: Steps of refinement after the drawing; 0 leaves it as it is.
        total_variation: Weight of the total variation while refining.
        seed: Of the training, so that one training serves all targets.
        cache: Folder for what was learned; None for the user's cache folder, "off" for none.
    """

    faces: int = 4000
    epochs: int = 6
    width: int = 128
    source: str = "face_gan"
    photos: str | None = None
    refine_steps: int = 200
    total_variation: float = 0.01
    seed: int = 0
    cache: str | None = None

    needs: ClassVar = frozenset({Knowledge.MODEL, Knowledge.BASIC, Knowledge.AUXILIARY})
    reads: ClassVar = frozenset({Update})
    category: ClassVar = AttackCategory.LEARNED

    def __post_init__(self) -> None:
        if self.faces < 2 or self.epochs < 1 or self.width < 1:
            raise ValueError("faces must be at least 2, epochs and width at least 1")
        if self.refine_steps < 0 or self.total_variation < 0:
            raise ValueError("refine_steps and total_variation must be ≥ 0")

    def halved(self) -> "FeatureDecoder":
        """The same with half of the training, and half of the steps of refinement."""
        return replace(self, epochs=-(-self.epochs // 2), refine_steps=-(-self.refine_steps // 2))

    @property
    def auxiliary(self) -> Auxiliary:
        """The attacker's auxiliary faces that the decoder learns from."""
        return Auxiliary(source=self.source, photos=self.photos)

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """Reconstruct the batch behind one update."""
        start = time.process_time()
        evidence = gather(seen)
        maps = known_maps(evidence)
        others = self.auxiliary.faces(
            evidence.count + GENERIC, evidence.shape, generator, grayscale=evidence.grayscale
        ).to(evidence.like.device)
        count = 0

        def training(step: int, steps: int, value: float) -> None:
            nonlocal count
            count = steps
            if progress:
                progress(step, steps + 1 + self.refine_steps, value)

        def refinement(step: int, value: float) -> None:
            if progress:
                progress(count + 1 + step, count + 1 + self.refine_steps, value)

        images = self.draw(evidence, maps, training)
        if images is None:
            images = others[: evidence.count]
        # Where the map before the last block is known, the gradient adds nothing but cost.
        generic = None if maps and maps.origin == "inverted" else others[evidence.count :]
        result = self._refine(evidence, maps, images, generic, generator, refinement)
        images, labels, credit = evidence.reveal(result.images, evidence.known_labels, Attacker())
        return replace(
            result,
            images=images,
            labels=labels,
            seconds=time.process_time() - start,
            adaptive=how_adaptive(seen, weighed=True, handled=credit),
        )

    def draw(
        self, evidence: Evidence, known: KnownMaps | None = None, progress: Progress | None = None
    ) -> Tensor | None:
        """What the feature maps show, `[N, C, H, W]` in [0, 1]; None where none is known.

        Trains on the first call for a model, about a minute, and is kept for the others.
        """
        known = known or known_maps(evidence)
        if known is None:
            return None
        decoder = self._decoder(known, evidence, progress)
        with torch.no_grad():
            images: Tensor = decoder(unit(known.maps)).clamp(0, 1)
        return images.expand(-1, evidence.shape[0], -1, -1)

    def _decoder(
        self, known: KnownMaps, evidence: Evidence, progress: Progress | None
    ) -> MapDecoder:
        """A trained decoder for maps of this kind, from the cache if it is there."""
        shape, device = evidence.free_shape, known.maps.device

        def empty() -> MapDecoder:
            size = known.maps.shape[1:]
            return MapDecoder(size[0], (size[1], size[2]), shape, self.width)

        def learn() -> dict[str, Tensor]:
            faces = self.auxiliary.faces(
                self.faces,
                evidence.shape,
                generator_for("feature decoder", self.seed),
                grayscale=evidence.grayscale,
            )
            with torch.no_grad():
                parts = torch.split(faces.to(device), PART)
                maps = torch.cat([unit(known.features(part)) for part in parts])
            decoder = draw_seeded(empty, self.seed).to(device)
            decoder.standardize(maps)
            images = faces[:, : shape[0]].to(device)
            teach(decoder, maps, images, epochs=self.epochs, seed=self.seed, progress=progress)
            return decoder.state_dict()

        key = key_of(
            dict(evidence.model.named_parameters()),
            ("features", known.origin, evidence.shape, evidence.grayscale),
            (self.faces, self.epochs, self.width, self.auxiliary.by_content(), self.seed),
        )
        decoder = draw_seeded(empty, self.seed)
        state = load_or_learn(
            key,
            learn,
            self.cache,
            what="decoder of feature maps",
            photos=self.photos,
            valid=decoder.state_dict(),
        )
        decoder.load_state_dict(state)
        return decoder.to(device).eval().requires_grad_(False)

    def _refine(
        self,
        evidence: Evidence,
        known: KnownMaps | None,
        start: Tensor,
        generic: Tensor | None,
        generator: torch.Generator,
        progress: Callable[[int, float], None],
    ) -> Reconstruction:
        """Adam on the pixels of `start` `[N, C, H, W]`; the best by the objective is kept.

        Of maps, or of the gradient (a double backward pass a step) in units of what `generic` faces
        give, which have nothing to do with the target.
        """
        count, channels = len(start), evidence.free_shape[0]
        noise = torch.randn(start[:, :channels].shape, generator=generator) * JITTER
        pixels = (start[:, :channels] + noise.to(start)).clamp(0, 1)
        free: tuple[Tensor, ...] = ()
        rate, matching = MAP_LR, None
        if generic is not None:
            matching = Matching(evidence, generator=generator)
            matching.calibrate(generic)
            # The gradient is one objective for all images, known maps are one for each.
            rate, free, pixels = MATCH_LR, matching.free, pixels[None]
        pixels.requires_grad_()
        losses = images = pixels

        def objective() -> Tensor:
            nonlocal losses, images
            images = pixels.view(count, *pixels.shape[-3:]).expand(-1, evidence.shape[0], -1, -1)
            losses = images.new_zeros(count)
            if matching is not None:
                dummy, distance = matching.gradients(images, range(count))
                losses = losses + matching.objective(dummy, distance)
            elif known is not None:
                losses = losses + known.distance(images)
            return losses[: len(pixels)]

        def total(_: Tensor) -> Tensor:
            return losses.mean() + self.total_variation * total_variation(images)

        rates, steps = [rate, *(FREE_LR for _ in free)], self.refine_steps
        bounds = [lambda value: value.clamp(0, 1)]
        search = Search([pixels, *free], rates, steps, project=bounds)
        history = []
        for step in range(steps + 1):
            if step < steps:
                search.step(objective, total)
            else:
                search.look(objective())
            if not bool(torch.isfinite(losses.detach()).all()):
                break
            if step % 10 == 0 or step == steps:
                history.append((step, float(losses.detach().mean())))
                progress(*history[-1])
        search.restore()
        images = pixels.detach().view(count, *pixels.shape[-3:])
        return Reconstruction(
            images=images.expand(-1, evidence.shape[0], -1, -1).contiguous(),
            labels=evidence.known_labels,
            objective=float(search.best.expand(count).contiguous().mean()),
            iterations=steps,
            gradient_evaluations=(steps + 1) * count if matching is None else matching.evaluations,
            history=tuple(history),
        )


def unit(maps: Tensor) -> Tensor:
    """Maps at a root mean square of 1 each: their length is not always known."""
    return maps / (maps.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-12)
