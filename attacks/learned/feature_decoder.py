"""Feature maps that the update gives away, drawn as images by a network; then refined."""

import time
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.adaptive.defense_adaptation import Attacker
from fedaudit.attacks.evidence.feature_maps.known_maps import KnownMaps, known_maps
from fedaudit.attacks.gathering.gather import Evidence, gather
from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.learned.decoder import MapDecoder, teach
from fedaudit.attacks.learned.refining import Refining
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.seeds import generator_for, seeded
from fedaudit.core.shared import Update
from fedaudit.files.cache import key_of, load_or_learn

PART = 256
GENERIC = 4
"""Faces that give the match its unit."""


@dataclass(frozen=True, kw_only=True)
class DecoderTraining:
    """How a feature decoder is trained.

    Args:
        faces: Auxiliary faces; every one is drawn and varied anew, none is seen in another guise.
        epochs: Times that each is seen.
        width: Channels of the decoder at its lowest resolution.
        auxiliary: Where the faces come from.
        seed: Of faces, start and order. Not the attack's generator: what is learned serves every
            target.
        cache: Folder for what was learned; None for the user's cache folder, "off" for none.
    """

    faces: int = 4000
    epochs: int = 6
    width: int = 128
    auxiliary: Auxiliary = field(default_factory=Auxiliary)
    seed: int = 0
    cache: str | None = None

    def decoder(
        self, known: KnownMaps, evidence: Evidence, progress: Progress | None = None
    ) -> MapDecoder:
        """A trained decoder for maps of this kind, from the cache if it is there."""
        channels = 1 if evidence.grayscale else evidence.shape[0]
        shape = (channels, *evidence.shape[1:])

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
                parts = torch.split(faces.to(known.maps.device), PART)
                maps = torch.cat([unit(known.features(part)) for part in parts])
            decoder = seeded(empty, self.seed).to(maps.device)
            assert isinstance(decoder, MapDecoder)
            decoder.standardize(maps)
            teach(
                decoder,
                maps,
                faces[:, :channels].to(maps.device),
                epochs=self.epochs,
                seed=self.seed,
                progress=progress,
            )
            return decoder.state_dict()

        key = key_of(
            dict(evidence.model.named_parameters()),
            ("features", known.origin, evidence.shape, evidence.grayscale),
            (self.faces, self.epochs, self.width, self.auxiliary, self.seed),
        )
        decoder = seeded(empty, self.seed)
        assert isinstance(decoder, MapDecoder)
        state = load_or_learn(key, learn, self.cache, valid=decoder.state_dict())
        decoder.load_state_dict(state)
        return decoder.to(known.maps.device).eval().requires_grad_(False)


def decode(
    evidence: Evidence,
    *,
    training: DecoderTraining = DecoderTraining(),
    known: KnownMaps | None = None,
    progress: Progress | None = None,
) -> Tensor | None:
    """What the known feature maps show, in the order of the evidence's labels; None where none is
    known.

    Trains on the first call for a model, which takes about a minute, and is kept for the others.
    """
    known = known or known_maps(evidence)
    if known is None:
        return None
    decoder = training.decoder(known, evidence, progress)
    with torch.no_grad():
        images: Tensor = decoder(unit(known.maps)).clamp(0, 1)
    return images.expand(-1, evidence.shape[0], -1, -1)


def unit(maps: Tensor) -> Tensor:
    """Maps at a root mean square of 1 each: their length is not always known."""
    return maps / (maps.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-12)


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

    @property
    def training(self) -> DecoderTraining:
        """The part of the settings that decides what is learned."""
        return DecoderTraining(
            faces=self.faces,
            epochs=self.epochs,
            width=self.width,
            auxiliary=Auxiliary(source=self.source, photos=self.photos),
            seed=self.seed,
            cache=self.cache,
        )

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """Reconstruct the batch behind one update."""
        started = time.process_time()
        evidence = gather(seen)
        known = known_maps(evidence)
        others = self.training.auxiliary.faces(
            evidence.count + GENERIC, evidence.shape, generator, grayscale=evidence.grayscale
        ).to(next(iter(evidence.target.values())).device)
        done = 0

        def training(step: int, steps: int, value: float) -> None:
            nonlocal done
            done = steps
            if progress:
                progress(step, steps + 1 + self.refine_steps, value)

        def refinement(step: int, steps: int, value: float) -> None:
            if progress:
                progress(done + 1 + step, done + 1 + steps, value)

        images = decode(evidence, training=self.training, known=known, progress=training)
        if images is None:
            images = others[: evidence.count]
        refining = Refining(
            evidence,
            known,
            steps=self.refine_steps,
            total_variation=self.total_variation,
            # Where the map before the last block is known, the gradient adds nothing but cost.
            generic=None if known and known.origin == "inverted" else others[evidence.count :],
        )
        result = refining.run(images, generator, refinement)
        labels = evidence.labels
        if labels is None:
            labels = torch.full((evidence.count,), -1)
        images, labels, handled = evidence.reveal(result.images, labels, Attacker())
        return Reconstruction(
            images=images,
            labels=labels,
            objective=result.objective,
            iterations=result.steps,
            gradient_evaluations=result.evaluations,
            seconds=time.process_time() - started,
            adaptive=how_adaptive(seen, weighed=True, handled=handled),
            history=result.history,
        )
