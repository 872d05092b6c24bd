"""A federated method that shares mean features of people, and an attack that turns them to faces.

fedaudit knows nothing of this file but the two entry points in `pyproject.toml`. It has, in order:

1. two kinds of shared things, `Prototypes` and `Spreads`: frozen dataclasses that hold tensors,
2. `PrototypeSharing`, the federated method whose clients share them,
3. `MeanFace`, an attack that reads `Prototypes`. Nothing reads `Spreads`, and reports say so.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.generators.auxiliary import Auxiliary
from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Shared, Update
from fedaudit.federation.class_rows import HEAD, ROWS, own_rows
from fedaudit.federation.local_training import is_withheld, train_locally
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.facenet import FaceNet, require_face_net

# --- 1. what is shared ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Prototypes:
    """Mean features, one a person, as the people's own client sends them.

    Attributes:
        means: `[k, D]`, mean of the unit embeddings of each person's photos.
        owners: `[k]` number of each person among everybody's.
    """

    means: Tensor
    owners: tuple[int, ...]


@dataclass(frozen=True)
class Spreads:
    """How far features lie from their prototype: a figure for the server's dashboard.

    Attributes:
        values: `[k]`, mean squared distance of each person's, in the order of the `Prototypes`.
    """

    values: Tensor


# --- 2. the method that shares it -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PrototypeSharing:
    """FedAvg of the backbone; each client's head starts a round as the prototypes of its people.

    After FedProto (Tan et al., AAAI 2022), whose clients share mean features of their classes, and
    no weights. Here the backbone is averaged besides, and what the prototypes are for is our
    choice: the server hands them back, and a client's head is its prototypes less their mean.

    Shared: the weight delta of the backbone (everything but the head) and the number of images; a
    prototype of each person in the round's photos, and its spread.
    """

    withheld: ClassVar[tuple[str, ...]] = (HEAD,)

    def sends(
        self, server: Mapping[str, Tensor], client: int, owned: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """The backbone and, after round 1, the client's own head."""
        received = own_rows(server, client, owned)
        if len(owned) > 1 and ROWS in received:
            received[ROWS] = received[ROWS] - received[ROWS].mean(0)
        return received

    def client(self, task: ClientTask) -> ClientReturn:
        """Train everything; share the backbone's delta, prototypes and spreads."""
        returned = train_locally(replace(task, withheld=(*task.withheld, HEAD)))
        if is_withheld(ROWS, task.withheld):  # a defense keeps the head, and what stands for it
            return returned
        network = _trained(task.model, {**task.before, **returned.kept}, returned.shared)
        with torch.no_grad():
            features = network.embed(task.images)
        classes = sorted(set(task.labels.tolist()))
        of_person = [features[task.labels == k] for k in classes]
        prototypes = Prototypes(
            means=torch.stack([mine.mean(0) for mine in of_person]),
            owners=tuple(task.owned[k] for k in classes),
        )
        spreads = Spreads(torch.stack([mine.var(0, unbiased=False).sum() for mine in of_person]))
        kept = {name: value for name, value in returned.kept.items() if name != ROWS}
        return replace(returned, shared=(*returned.shared, prototypes, spreads), kept=kept)

    def absorb(
        self,
        server: Mapping[str, Tensor],
        returns: Sequence[tuple[Shared, ...]],
        training: LocalTraining,
    ) -> dict[str, Tensor]:
        """Everybody's prototypes: of whom none was sent, what it was."""
        del training
        sent = [s for shared in returns for s in shared if isinstance(s, Prototypes)]
        rows = dict(enumerate(server.get(ROWS, ())))
        rows |= {k: row for s in sent for k, row in zip(s.owners, s.means, strict=True)}
        return {ROWS: torch.stack([rows[k] for k in sorted(rows)])} if rows else {}


# --- 3. an attack that reads it -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MeanFace:
    """Each prototype as the face that a linear map draws of it.

    In the spirit of template inversion (Mai et al., TPAMI 2019, train a network instead): the
    attacker embeds faces of its own with the client's network, and fits images to embeddings by
    ridge regression. A linear map takes the mean of features to the mean of faces, so that a
    prototype gives a person's mean face away however many photos it hides them among. The strength
    of the ridge is the one that draws held-out faces of the attacker best.

    Args:
        faces: The attacker's own faces; every fourth is held out.
        ridges: Strengths to choose from, relative to the features' mean variance; > 0.
        seed: Of the faces. Not the attack's generator: the same faces serve every target.
    """

    faces: int = 1500
    ridges: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    seed: int = 0

    needs: ClassVar[frozenset[Knowledge]] = frozenset(
        {Knowledge.MODEL, Knowledge.BASIC, Knowledge.AUXILIARY}
    )
    reads: ClassVar[frozenset[type]] = frozenset({Prototypes})

    def __post_init__(self) -> None:
        if self.faces < 8 or not self.ridges or min(self.ridges) <= 0:
            raise ValueError("faces must be at least 8, and ridges be some numbers > 0")

    def __call__(
        self,
        seen: Observation,
        *,
        generator: torch.Generator,
        progress: Callable[[int, int, float], None] | None = None,
    ) -> Reconstruction:
        """One face a prototype.

        Raises:
            AttackError: The client shared no prototypes.
            KnowledgeError: The size of the images is not known.
        """
        del generator  # nothing is random but the attacker's faces
        started = time.process_time()
        sent = next((s for s in seen.shared if isinstance(s, Prototypes)), None)
        if sent is None:
            raise AttackError("mean_face reads prototypes, and none were shared.")
        if seen.image_shape is None:
            raise KnowledgeError("mean_face needs the images' size: use threat model B or more.")
        network = _trained(seen.model, seen.before, seen.shared).to(sent.means.device)
        faces = _faces(self.faces, seen.image_shape, self.seed).to(sent.means.device)
        with torch.no_grad():
            features = torch.cat([network.embed(part) for part in torch.split(faces, 256)])
        held = torch.arange(len(faces)) % 4 == 0
        fits = []
        for k, ridge in enumerate(self.ridges):
            draw = _linear_map(features[~held], faces[~held].flatten(1), ridge)
            error = float((draw(features[held]) - faces[held].flatten(1)).square().mean())
            fits.append((error, k, draw))
            if progress:
                progress(k + 1, len(self.ridges), error)
        error, _, draw = min(fits)
        count = len(sent.means)
        return Reconstruction(
            images=draw(sent.means).view(-1, *seen.image_shape).clamp(0, 1),
            # The client's people come in the order of its head; of some of them, nobody knows whom.
            labels=torch.arange(count) if count == seen.num_classes else torch.full((count,), -1),
            of="people",
            objective=error,
            seconds=time.process_time() - started,
            adaptive=how_adaptive(seen),
        )


def _linear_map(inputs: Tensor, outputs: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
    """Ridge regression of `outputs [M, P]` on `inputs [M, D]`, with an intercept."""
    middle, mean = inputs.double().mean(0), outputs.double().mean(0)
    centered = inputs.double() - middle
    gram = centered.T @ centered
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    weights = torch.linalg.solve(gram, centered.T @ (outputs.double() - mean))
    return lambda rows: (mean + (rows.double() - middle) @ weights).float()


@lru_cache(maxsize=1)
def _faces(count: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """The attacker's own faces `[count, C, H, W]`, drawn once for all targets."""
    generator = torch.Generator().manual_seed(seed)
    return Auxiliary().faces(count, shape, generator, grayscale=False)


def _trained(spec: ModelSpec, before: Mapping[str, Tensor], shared: Sequence[Shared]) -> FaceNet:
    """The network that the prototypes were computed with: what was sent out, plus the delta."""
    network = build(spec, before)
    update = next((s for s in shared if isinstance(s, Update)), None)
    moved = {
        name: value + update.tensors[name]
        for name, value in parameters_of(network).items()
        if update is not None and name in update.tensors
    }
    return require_face_net(build(spec, {**before, **moved}), "prototype sharing").eval()
