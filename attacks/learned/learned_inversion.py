"""A network that learns to turn defended updates into images."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedaudit.attacks.adaptive.defense_replay import replay_of
from fedaudit.attacks.adaptive.estimation import estimate
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.attacks.learned.decoder import VectorDecoder, teach
from fedaudit.attacks.learned.sketch import SimulatedClient, Sketch, first_fc_name
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import DefenseFacts, Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Adaptive, Reconstruction
from fedaudit.core.seeds import draw_seeded, generator_for, seed_for
from fedaudit.core.shared import Update
from fedaudit.files.cache import key_of, load_or_learn
from fedaudit.models.batch_norm import replay_mode
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet

FITTED = 3000
"""Sketches from which the principal directions are computed."""


@dataclass(frozen=True, kw_only=True)
class LearnedInversion:
    """Learn the inverse on auxiliary faces that go through the same model and the same defense.

    After Wu et al. (UAI 2023, "Learning to Invert: Simple Adaptive Attacks for Gradient Inversion
    in Federated Learning", LTI): gradients of auxiliary faces are defended as the client's is,
    hashed to a few thousand numbers, and a network learns to draw the face from them; for batches,
    all faces of an update in whatever order suits. It needs no derivative of the defense, so it
    holds up where matching has nothing to follow: signs, pruned updates, noise. Labels are drawn at
    random while training, so one training serves all. It is not LTI itself, whose network is fully
    connected: here the sketches are first projected on their principal directions, where the noise
    of a defense, which is spread evenly, hardly shows, and convolutions draw the face.

    Trains once for a model, a defense and a number of images, in minutes; then a target costs
    milliseconds.

    Args:
        faces: Auxiliary faces.
        epochs: Times that each is seen.
        width: Numbers that a gradient is hashed to, about.
        directions: Principal directions that are kept, at most.
        hidden: Width of the network's hidden layers.
        source: The face generator: "face_gan", a file, or `package.module:factory`.
        photos: A folder of further auxiliary photos, one folder a person; None for none.
        seed: Of the training. It is not the attack's generator, of which nothing is drawn: one
            training serves all targets.
        cache: Folder for what was learned; None for the user's cache folder, "off" for none.
    """

    faces: int = 12000
    epochs: int = 12
    width: int = 8192
    directions: int = 1024
    hidden: int = 768
    source: str = "face_gan"
    photos: str | None = None
    seed: int = 0
    cache: str | None = None

    needs: ClassVar = frozenset({Knowledge.MODEL, Knowledge.BASIC, Knowledge.AUXILIARY})
    reads: ClassVar = frozenset({Update})
    category: ClassVar = AttackCategory.LEARNED

    def __post_init__(self) -> None:
        if self.faces < 2 or self.epochs < 1:
            raise ValueError("faces must be at least 2, epochs at least 1")
        if min(self.width, self.directions, self.hidden) < 1:
            raise ValueError("width, directions and hidden must be at least 1")

    def halved(self) -> "LearnedInversion":
        """The same with half of the training, which is its search."""
        return replace(self, epochs=-(-self.epochs // 2))

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """Reconstruct the batch behind one update; trains first where it has not yet."""
        del generator
        start = time.process_time()
        evidence = gather(seen)
        defense = seen.defense if seen.defense is not None else estimate(seen)
        weights = self.learned(seen, evidence, defense, progress)
        steps, loss = int(weights["steps"]), float(weights["loss"])
        images = self.read(weights, evidence)
        if progress:
            progress(steps + 1, steps + 1, loss)
        return Reconstruction(
            images=images,
            labels=evidence.known_labels,
            objective=loss,
            iterations=steps,
            gradient_evaluations=self.faces,
            seconds=time.process_time() - start,
            adaptive=_adaptive(seen),
            # The same whether it was learned now or before.
            history=((steps, loss),),
        )

    def learned(
        self,
        seen: Observation,
        evidence: Evidence,
        defense: tuple[DefenseFacts, ...],
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """Principal directions and the network's state, by name; from the cache if it is there."""
        names = tuple(sorted(evidence.target))
        auxiliary = Auxiliary(source=self.source, photos=self.photos).by_content()
        key = key_of(
            seen.before,
            ("lti", seen.model, names, defense, evidence.count, evidence.shape, evidence.grayscale),
            (self.faces, self.epochs, self.width, self.directions, self.hidden),
            (auxiliary.source, auxiliary.photos, self.seed),
        )
        entries = {"steps", "loss", "mean", "directions", "spread", "front_mean", "front_spread"}

        def learn() -> Mapping[str, Tensor]:
            return self._learn(seen, evidence, defense, progress)

        what = "inverse of a model's updates"
        return load_or_learn(key, learn, self.cache, what=what, photos=self.photos, valid=entries)

    def read(self, learned: Mapping[str, Tensor], evidence: Evidence) -> Tensor:
        """The images `[N, C, H, W]` of an update, by what was learned."""
        sketch = self._sketch(evidence)({n: g[None] for n, g in evidence.target.items()})
        network = draw_seeded(lambda: self._network(learned, evidence), self.seed)
        state = {n.removeprefix("net."): v for n, v in learned.items() if n.startswith("net.")}
        network.load_state_dict(state)
        network.to(sketch.device).eval()
        with torch.no_grad():
            images: Tensor = network(_project(sketch, learned))[0].clamp(0, 1)
        return images.expand(-1, evidence.shape[0], -1, -1).contiguous()

    def _learn(
        self,
        seen: Observation,
        evidence: Evidence,
        defense: tuple[DefenseFacts, ...],
        progress: Progress | None,
    ) -> dict[str, Tensor]:
        device = evidence.like.device
        faces = Auxiliary(source=self.source, photos=self.photos).faces(
            self.faces,
            evidence.shape,
            generator_for("lti faces", self.seed),
            grayscale=evidence.grayscale,
        )
        complete = all(name in seen.before for name, _ in evidence.model.named_parameters())

        def model(number: int) -> nn.Module:
            if complete:
                return evidence.model
            # What stays on the client's device is unknown: the network must not rely on one draw.
            body = build(seen.model, seen.before, seed=seed_for("lti", self.seed, number))
            return replay_mode(body, seen.mode).to(device)

        client = SimulatedClient(
            model=model,
            names=tuple(sorted(evidence.target)),
            classes=evidence.classes,
            count=evidence.count,
            defense=replay_of(defense, evidence.count),
            sketch=self._sketch(evidence),
        )
        sketches, positions = [], []
        for sketch, which in client.updates(
            faces.to(device), generator_for("lti updates", self.seed)
        ):
            sketches.append(sketch.half())  # halves the memory; entries are about 1
            positions.append(which)
        vectors = torch.cat(sketches)
        front = client.sketch.front
        projection = principal(vectors[:FITTED, front:].float(), self.directions)
        first = vectors[:FITTED, :front].float()
        projection |= {
            "front_mean": first.mean(0),
            "front_spread": (first - first.mean(0)).square().mean(0).sqrt() + 1e-3,
        }
        parts = [_project(part.float(), projection) for part in torch.split(vectors, 512)]
        network = draw_seeded(lambda: self._network(projection, evidence), self.seed)
        losses: list[float] = []

        def watch(step: int, steps: int, value: float) -> None:
            losses.append(value)
            if progress:
                progress(step, steps, value)

        targets = faces[:, : evidence.free_shape[0]].to(device)[torch.cat(positions)]
        steps = teach(
            network.to(device),
            torch.cat(parts),
            targets,
            epochs=self.epochs,
            seed=self.seed,
            progress=watch,
        )
        ending = losses[-10:]
        return {
            "steps": torch.tensor(steps),
            "loss": torch.tensor(sum(ending) / len(ending)),
            **projection,
            **{f"net.{name}": value for name, value in network.state_dict().items()},
        }

    def _sketch(self, evidence: Evidence) -> Sketch:
        shapes = {name: evidence.target[name].shape for name in sorted(evidence.target)}
        entry = first_fc_name(evidence.model) or ""
        return Sketch(shapes, self.width, self.seed, entry if entry in shapes else "")

    def _network(self, weights: Mapping[str, Tensor], evidence: Evidence) -> VectorDecoder:
        front, plane = len(weights["front_mean"]), None
        if front and isinstance(evidence.model, FaceNet) and evidence.model.pool == "flatten":
            with torch.no_grad():
                maps = evidence.model.body(weights["front_mean"].new_zeros(1, *evidence.shape))
            if maps.dim() == 4:  # a stranger's body may end in rows
                plane = (maps.shape[1], maps.shape[2], maps.shape[3])
        width, shape = front + len(weights["directions"]), evidence.free_shape
        return VectorDecoder(width, shape, evidence.count, self.hidden, plane)


def principal(vectors: Tensor, most: int) -> dict[str, Tensor]:
    """Mean, principal directions `[K, D]` and the spread along them, of `[M, D]` by its Gram
    matrix.
    """
    mean = vectors.mean(0)
    deviations = vectors - mean
    values, combinations = torch.linalg.eigh(deviations @ deviations.T)
    keep = values > 1e-6 * values[-1]
    values, combinations = values[keep].flip(0)[:most], combinations[:, keep].flip(1)[:, :most]
    lengths = values.sqrt()
    directions = (combinations / lengths).T @ deviations
    return {"mean": mean, "directions": directions, "spread": lengths / len(vectors) ** 0.5}


def _project(vectors: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """The front, standardized; and coordinates of the rest along the principal directions.

    The root of their spread is taken out: full whitening would weigh noise like the first
    directions.
    """
    statistics = {name: value.to(vectors) for name, value in weights.items()}
    front = len(statistics["front_mean"])
    first = (vectors[:, :front] - statistics["front_mean"]) / statistics["front_spread"]
    along = (vectors[:, front:] - statistics["mean"]) @ statistics["directions"].T
    spread = statistics["spread"]
    return torch.cat([first, along / (spread * spread[0]).sqrt()], 1)


def _adaptive(seen: Observation) -> Adaptive:
    """Every defense that is known was replayed, or the attack would have refused."""
    if seen.defense is None:
        return "estimated"
    return "known" if {facts.name for facts in seen.defense} - {"none"} else "none needed"
