"""The verbs: what a plugin must be able to do. Protocols, no base classes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedaudit.types import (
    Budget,
    DefenseFacts,
    Knowledge,
    LocalTraining,
    ModelSpec,
    Observation,
    Reconstruction,
    Shared,
    Update,
)


class Attack(Protocol):
    """`attack(seen, generator=…, progress=…) -> Reconstruction`; settings are its constructor's."""

    @property
    def needs(self) -> frozenset[Knowledge]:
        """Facts that a threat model must grant."""
        ...

    @property
    def reads(self) -> frozenset[type]:
        """Kinds of shared things that it attacks."""
        ...

    def __call__(
        self,
        seen: Observation,
        *,
        generator: torch.Generator,
        progress: Callable[[int, int, float], None] | None = None,
    ) -> Reconstruction:
        """Reconstruct; `progress(step, steps, objective)` is called now and then."""
        ...


@runtime_checkable
class ManipulatingAttack(Attack, Protocol):
    """An attack that chooses what the server sends; its `needs` hold `Knowledge.MANIPULATION`."""

    def broadcast(
        self, model: ModelSpec, before: Mapping[str, Tensor], *, generator: torch.Generator
    ) -> tuple[ModelSpec, Mapping[str, Tensor]]:
        """What clients receive in place of the honest `model` and its parameters `before`.

        Parameters that stay on the devices are absent from `before`, and keep their names.
        """
        ...


# --- a client's step, which defenses wrap ---------------------------------------------------------


@dataclass(frozen=True)
class Loop:
    """What a client's training loop runs on; each part may be wrapped.

    Attributes:
        network: Images to scores.
        optimizer: Steps once a batch.
        loader: Gives (images, labels) batches.
        criterion: Scores and labels to a loss that has `backward` and `detach`.
    """

    network: Any
    optimizer: Any
    loader: Any
    criterion: Callable[[Tensor, Tensor], Any]


Prepare = Callable[[Loop], Loop]


@dataclass(frozen=True)
class ClientTask:
    """What a client is asked to do in a round.

    Attributes:
        model: Network to build.
        before: Global parameters that were received.
        kept: Parameters that stay on this device, from its earlier rounds.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]` int64, or `[N, k]` probabilities of the first k classes.
        training: Optimizer settings; a batch is of images, all `copies` of a photo together.
        share: "gradient" (FedSGD) or "delta" (FedAvg).
        generator: All randomness of the step.
        prepare: Wraps the training loop before it runs; set by defenses such as DP-SGD.
        withheld: Parameter-name prefixes that must not leave the device; set by defenses.
        owned: Number of each of the client's own classes among everybody's, in the order of its
            head; () where all clients share one head.
        unlabelled: `[M, C, H, W]` further photos of the client that train without labels; None
            where the method uses none.
        memory: What the defenses remember on this device from its earlier rounds, by names of
            their own.
        others: `[M, C, H, W]` further photos of the client, which do not train in this round unless
            a defense takes them; None where they have no labels.
        other_labels: `[M]` int64.
        copies: Images that were made of each photo, side by side in `images` and `unlabelled`; they
            train in one step.
    """

    model: ModelSpec
    before: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]
    images: Tensor
    labels: Tensor
    training: LocalTraining
    share: Literal["gradient", "delta"]
    generator: torch.Generator
    prepare: Prepare | None = None
    withheld: tuple[str, ...] = ()
    owned: tuple[int, ...] = ()
    unlabelled: Tensor | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    others: Tensor | None = None
    other_labels: Tensor | None = None
    copies: int = 1


@dataclass(frozen=True)
class ClientReturn:
    """What a client's step ends in: what is sent, and what stays.

    Attributes:
        shared: What is sent.
        kept: What stays on the device, by parameter name.
        loss: Of the last step.
        budget: The guarantee that a defense gives.
        labels: Of all images behind the update, where the client added images to its photos.
        memory: What the defenses remember for the next round.
    """

    shared: tuple[Shared, ...]
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    loss: float = float("nan")
    budget: Budget | None = None
    labels: Tensor | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)


ClientStep = Callable[[ClientTask], ClientReturn]


class Defense(Protocol):
    """`defense(step) -> step`, so that defenses compose in order."""

    def __call__(self, step: ClientStep) -> ClientStep:
        """Wrap a client's step."""
        ...

    def facts(self) -> DefenseFacts:
        """What an attacker who read the paper and the configuration knows."""
        ...


class Method(Protocol):
    """A federated method: what clients send, how they train, how the server combines.

    What a method may do beyond this is in `fedaudit.federation.abilities`.
    """

    @property
    def share(self) -> Literal["gradient", "delta"]:
        """What a client's update is."""
        ...

    def local(self, training: LocalTraining) -> LocalTraining:
        """The settings that a client really trains with."""
        ...

    def combine(
        self, before: Mapping[str, Tensor], updates: Sequence[Update], training: LocalTraining
    ) -> dict[str, Tensor]:
        """Global parameters of the next round."""
        ...
