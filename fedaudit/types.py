"""The nouns: what flows from a federation to a report. Data only, all frozen.

Capture(seen: Observation, secret: Secret) → attack(seen) → Reconstruction → scoring → Trial
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

# --- what one client sends, by kind -------------------------------------------------------------


@dataclass(frozen=True)
class Update:
    """Model parameters as one client shares them.

    Attributes:
        kind: "gradient" (mean over the batch), or "delta" (local weights − global weights).
        tensors: By parameter name; only what was sent. What stayed on the device is not there.
        examples: Number of images it was computed on; None where it is not sent.
    """

    kind: Literal["gradient", "delta"]
    tensors: Mapping[str, Tensor]
    examples: int | None = None


@dataclass(frozen=True)
class ClusterCenters:
    """Noised centers of groups of class embeddings (PrivacyFace's DPLC).

    Attributes:
        centers: `[Q, D]`, unit rows.
        radius: Angle ρ in radians that a cluster spans.
    """

    centers: Tensor
    radius: float


@dataclass(frozen=True)
class Buffers:
    """Batch-norm buffers as one client shares them after local training; no defense acts on them.

    Attributes:
        tensors: Running means and variances by buffer name, and the counters of training steps
            (`NAME.num_batches_tracked`, from 0 in every round).
        examples: Number of images behind them; None where it is not sent.
    """

    tensors: Mapping[str, Tensor]
    examples: int | None = None


@dataclass(frozen=True)
class ClassEmbeddings:
    """Rows of the classification layer, one a person, as the people's own client sends them.

    Attributes:
        rows: `[k, D]`; a template of each person's face in the embedding of the shared network.
        owners: `[k]` number of each row's person among everybody's; the same in every round.
    """

    rows: Tensor
    owners: tuple[int, ...]


@dataclass(frozen=True)
class Aggregate:
    """What a secure aggregator lets the server see: a weighted sum over clients, Σ w_k · t_k.

    Attributes:
        kind: Of what each client put in: as in `Update`, "buffers" as in `Buffers`, or "weights":
            values of parameters, not their changes.
        tensors: The sum, by name.
        weights: w_k of each client, in the order of the clients. They travel in clear in common
            protocols: 1 each, or each client's number of images.
    """

    kind: Literal["gradient", "delta", "weights", "buffers"]
    tensors: Mapping[str, Tensor]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class SummedRows:
    """Class embeddings of all clients as a secure aggregator lets the server see them.

    Each client puts in a matrix of everybody's rows, zeros in those that it has never received:
    the sum is Σ w_k · W_k, and of each row one client alone put in anything new.

    Attributes:
        total: `[P, D]`.
        owners: `[P]` number of the client that owns each row, by which the server sends it back.
        weights: w_k of each client; they travel in clear.
    """

    total: Tensor
    owners: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class MaskedVectors:
    """What clients send under secure aggregation: uniform numbers, each as likely as any other.

    Attributes:
        vectors: `[K, n]` int32, numbers modulo 2³², one row a client of the sum.
    """

    vectors: Tensor


class Shared(Protocol):
    """Anything that a client sends: a frozen dataclass whose tensors are fields, or in mappings.

    Its class is its kind, which attacks name in `reads`. Ours are above; a method in another
    package may share a kind of its own.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]


def with_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """A copy of a frozen dataclass, mapping or tuple with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: with_tensors(item, change) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: with_tensors(getattr(value, f.name), change) for f in fields(value)}
        return replace(value, **changed)
    return tuple(with_tensors(v, change) for v in value) if isinstance(value, tuple) else value


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in a frozen dataclass, mapping or tuple."""
    found: list[Tensor] = []
    with_tensors(value, found.append)
    return found


# --- what the attacker may know -----------------------------------------------------------------


class Knowledge(StrEnum):
    """One fact that a threat model may grant."""

    MODEL = "model"
    """Architecture, and the global parameters that the server broadcast."""
    BASIC = "basic"
    """Number of images in the update, their size, number of classes."""
    TRAINING = "training"
    """Optimizer, learning rate, local steps, batch size."""
    AUXILIARY = "auxiliary"
    """Faces, or a generator of faces, from elsewhere."""
    DEFENSE = "defense"
    """Which defense is in use, and its settings."""
    LABELS = "labels"
    """The labels of the attacked images."""
    STATISTICS = "statistics"
    """Batch-norm statistics or the distribution of the client's data."""
    MANIPULATION = "manipulation"
    """The server may send parameters of its choosing."""


@dataclass(frozen=True)
class ThreatModel:
    """A named set of facts. `A`–`H` follow Carletti et al. (USENIX Security 2025)."""

    name: str
    grants: frozenset[Knowledge]
    summary: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """How to build a network: a registered name or `package.module:factory`, and its arguments."""

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains before it shares.

    Attributes:
        lr: Learning rate.
        steps: Local optimizer steps; 1 with `kind="gradient"` is FedSGD. Where the client has more
            images than a step takes, they are shuffled anew in every epoch.
        batch_size: Images a step; the last step of an epoch takes what is left.
        momentum: Of SGD.
        optimizer: "sgd" or "adam" (β = 0.9, 0.999; ε = 1e-8).
        weight_decay: L2 penalty in the optimizer, as torch's `weight_decay`.
        proximal: μ of FedProx's term μ/2·‖w − w_global‖² (Li et al., MLSys 2020).
        batch_norm: Mode of batch-norm layers while the client trains: "train" couples the batch.
    """

    lr: float = 0.1
    steps: int = 1
    batch_size: int = 1
    momentum: float = 0.0
    optimizer: Literal["sgd", "adam"] = "sgd"
    weight_decay: float = 0.0
    proximal: float = 0.0
    batch_norm: Literal["train", "eval"] = "train"


@dataclass(frozen=True)
class DefenseFacts:
    """What is public about a defense: its name, its settings, and what it keeps on the device.

    `estimated` says that nobody stated it: the numbers of the updates show it.
    """

    name: str
    settings: Mapping[str, Any]
    withheld: tuple[str, ...] = ()
    estimated: bool = False


@dataclass(frozen=True)
class Observation:
    """Everything that the server saw of one client in one round, and the facts it was granted.

    A field is None where the threat model does not grant it. No path leads from here to `Secret`.

    Attributes:
        model: Architecture.
        before: The global parameters and running statistics of batch norm that the server sent;
            those that stay on devices are absent.
        shared: What the client sent.
        image_shape: `(C, H, W)`.
        batch_size: Number of images behind the update, over all local steps.
        num_classes: Width of the head.
        training: Local training settings.
        defense: The defenses in use, in order; () says "known to be none", None "not known".
        labels: `[N]` int64.
        round: 1-based number of the round.
        client: Pseudonym of the client.
        statistics: Of all the client's images in one batch through the model before training, at
            each batch-norm layer's input: `NAME.mean` and `NAME.var` (biased), `[channels]` each.
        earlier: What the same client shared in earlier rounds, oldest first.
    """

    model: ModelSpec
    before: Mapping[str, Tensor]
    shared: tuple[Shared, ...]
    image_shape: tuple[int, int, int] | None = None
    batch_size: int | None = None
    num_classes: int | None = None
    training: LocalTraining | None = None
    defense: tuple[DefenseFacts, ...] | None = None
    labels: Tensor | None = None
    round: int = 1
    client: str = ""
    statistics: Mapping[str, Tensor] | None = None
    earlier: tuple["Observation", ...] = ()

    def to(self, device: str) -> "Observation":
        """The same with every tensor on `device`."""
        names = ("before", "shared", "labels", "statistics", "earlier")
        moved = {n: with_tensors(getattr(self, n), lambda t: t.to(device)) for n in names}
        return replace(self, **moved)

    @property
    def update(self) -> Update | None:
        """The first model update among what was shared; of an aggregate, its mean.

        The mean over clients that weigh by their number of images (or weigh 1 and have one image
        each) is the update of one client that has everybody's images: attacks need no other case.
        """
        for sent in self.shared:
            if isinstance(sent, Update):
                return sent
            if isinstance(sent, Aggregate) and sent.kind in {"gradient", "delta"}:
                total = sum(sent.weights)
                mean = {name: value / total for name, value in sent.tensors.items()}
                return Update("gradient" if sent.kind == "gradient" else "delta", mean)
        return None

    @property
    def buffers(self) -> Buffers | None:
        """The batch-norm buffers among what was shared."""
        return next((s for s in self.shared if isinstance(s, Buffers)), None)


# --- what only the scorer may see ---------------------------------------------------------------


@dataclass(frozen=True)
class Secret:
    """The client's data. Never handed to an attack.

    Attributes:
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]` int64.
        people: `[N]` names of the people shown, for the gallery.
        sources: `[N]` where each image came from (file or index), for provenance.
        portraits: One image of each person whom the client has, `[P, C, H, W]`, whether they are in
            the batch or not, in the order of the client's own classes; what templates are judged
            by. None where the client shares none.
        portrayed: `[P]` their names.
        portrayed_as: `[P]` their classes in the client's head, where these are not 0 to P − 1:
            a head that all clients share has other clients' people besides.
        audited: How many of the images, the first ones, are scored: those that the study asked
            for, where a defense puts others behind the update as well. None for all.
        behind: `[M]` labels of all images behind the update, where the client added images to its
            photos; None elsewhere.
        defense: The defenses in use, in order, of which the attacker may not be told; None where
            nobody knows.
    """

    images: Tensor
    labels: Tensor
    people: tuple[str, ...]
    sources: tuple[str, ...]
    portraits: Tensor | None = None
    portrayed: tuple[str, ...] = ()
    portrayed_as: tuple[int, ...] = ()
    audited: int | None = None
    behind: Tensor | None = None
    defense: tuple[DefenseFacts, ...] | None = None


@dataclass(frozen=True)
class Budget:
    """A differential-privacy guarantee as its accountant states it.

    Attributes:
        epsilon: ε.
        delta: δ.
        unit: What is protected ("one image", "one class center").
        mechanism: What gives it, with its settings.
        accountant: Who computed ε.
    """

    epsilon: float
    delta: float
    unit: str
    mechanism: str
    accountant: str


@dataclass(frozen=True)
class Capture:
    """One client's round as intercepted; `secret` is None for a run without a canary client."""

    seen: Observation
    secret: Secret | None = None
    budget: Budget | None = None


# --- what an attack returns ---------------------------------------------------------------------


Adaptive = Literal["known", "estimated", "no", "none needed"]


@dataclass(frozen=True)
class Reconstruction:
    """What an attack made of an observation.

    Attributes:
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]` int64; -1 where the attack has none.
        of: "photos" of the batch; or "people": one face a person, who is the class `labels` of the
            client's head (-1: any of its own). Those are scored against `Secret.portraits`.
        objective: What the attack reached of its own objective, lower is better.
        iterations: Optimization steps.
        gradient_evaluations: Single-image forward–backward–backward passes.
        seconds: CPU seconds of the process.
        adaptive: Whether the attack took the defense in use into account: "known", as it was told
            of it; "estimated", by what the update shows of it, where that shows anything that must
            be taken into account; "no"; "none needed", where it was told that there is none.
        history: (step, objective) pairs to draw.
    """

    images: Tensor
    labels: Tensor
    of: Literal["photos", "people"] = "photos"
    objective: float = float("nan")
    iterations: int = 0
    gradient_evaluations: int = 0
    seconds: float = 0.0
    adaptive: Adaptive = "none needed"
    history: tuple[tuple[int, float], ...] = ()


# --- rows of a study ----------------------------------------------------------------------------

Role = Literal["audit", "prior_only", "noise", "positive", "positive_prior"]
"""The last two of recorded runs only: an undefended step of the auditor's own, and its control."""


@dataclass(frozen=True)
class Cell:
    """The coordinates of one trial; its `key` names its file."""

    scenario: str
    network: str
    method: str
    round: int
    batch_size: int
    defense: str
    attack: str
    threat_model: str
    target: int
    seed: int
    role: Role = "audit"

    @property
    def key(self) -> str:
        """A name that is a safe file name and unique within a study."""
        parts = (self.scenario, self.defense, self.attack, self.role)
        return "--".join((*parts, f"t{self.target:03d}", f"s{self.seed}"))


@dataclass(frozen=True)
class ImageScore:
    """One reconstructed image against its original and its person's other photos.

    Attributes:
        person: Who the original shows; the client where that is not known.
        ssim, psnr, lpips, mse: Image metrics on [0, 1]; PSNR in dB. None where the original is not
            known.
        cosine: Identity cosine to the person's gallery, independent embedder; None without one.
        reidentified: Cosine above the threshold at the calibrated FMR.
        rank: 1 + number of gallery people who are closer than the right one.
        wrong_reidentified: The same reconstruction tested against another target's person
            (the wrong-client control).
        nearest: Where it is not known who is shown: the closest person of the gallery, whom
            `cosine` and `reidentified` are about then. "" elsewhere.
    """

    person: str
    ssim: float | None
    psnr: float | None
    lpips: float | None
    mse: float | None
    cosine: float | None = None
    reidentified: bool | None = None
    rank: int | None = None
    wrong_reidentified: bool | None = None
    nearest: str = ""


@dataclass(frozen=True)
class Sent:
    """One thing that the attacked client sent, as a reviewer is told of it.

    Attributes:
        name: As `fedaudit.captures.exposed.names_of` gives it.
        summary: What it holds, in numbers ("12 tensors, 567,264 values").
        bytes: Of its tensors.
        read: Whether the attack of this trial attacks it.
        used: Whether that attack does not attack it, but may use it beside what it attacks.
        readers: Registered attacks that read that kind, when the trial was run.
    """

    name: str
    summary: str
    bytes: int
    read: bool
    used: bool = False
    readers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One finished cell.

    Attributes:
        cell: Where it stands in the study.
        images: One score per image of the target.
        labels_correct: Share of the label multiset that was recovered; None where not attempted.
        objective, iterations, gradient_evaluations, seconds, adaptive, history: As in
            `Reconstruction`.
        budget: The DP guarantee of the attacked update, if it has one.
        of: What the images are of, as in `Reconstruction`.
        sent: Everything that the client sent, in order.
        not_attacked: Why there was nothing to attack; "" where the attack ran.
        explained: Of recorded updates: cosine between the update and the one that a client would
            have made of the reconstruction. None where that is not known.
        explained_other: The same against another client's update.
    """

    cell: Cell
    images: tuple[ImageScore, ...]
    labels_correct: float | None
    objective: float
    iterations: int
    gradient_evaluations: int
    seconds: float
    adaptive: str
    budget: Budget | None = None
    history: tuple[tuple[int, float], ...] = ()
    of: Literal["photos", "people"] = "photos"
    sent: tuple[Sent, ...] = ()
    not_attacked: str = ""
    explained: float | None = None
    explained_other: float | None = None
