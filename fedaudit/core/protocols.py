"""The verbs: what a plugin must be able to do. Protocols, no base classes."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedaudit.core.client import ClientStep
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import DefenseFacts, ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction

Progress = Callable[[int, int, float], None]
"""Called now and then with the step, the number of steps, and the objective."""


class AttackCategory(StrEnum):
    """The classes of attacks on shared updates that reports tell apart, most common first."""

    GRADIENT_MATCHING = "gradient inversion in image space"
    GENERATIVE = "gradient inversion with a generative prior"
    CLOSED_FORM = "inversion in closed form (inputs, feature maps)"
    LEARNED = "learned inversion"
    TEMPLATE = "template inversion"
    MALICIOUS_SERVER = "malicious server"
    OTHER = "other"


class Attack(Protocol):
    """`attack(seen, generator=…, progress=…) -> Reconstruction`; settings are its constructor's.

    Its `category` says in which class reports count it (`category_of`).
    """

    @property
    def needs(self) -> frozenset[Knowledge]:
        """Facts that a threat model must grant."""

    @property
    def reads(self) -> frozenset[type]:
        """Kinds of shared things that it attacks."""

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """Reconstruct; `progress(step, steps, objective)` is called now and then."""


@runtime_checkable
class Halves(Protocol):
    """An attack that can show whether it had converged: half of its steps would do as well.

    The slope of the objective at the end does not show it. Learning rates fall to zero, so every
    search looks flat at its end, and one of too few steps has the same shape as one of enough.
    """

    def halved(self) -> Attack:
        """The same attack with half of its steps, and half of its time where that is limited."""


def category_of(attack: object) -> AttackCategory:
    """The attack's own `category`; `OTHER` for one that declares none, or none that is known."""
    try:
        return AttackCategory(getattr(attack, "category", AttackCategory.OTHER))
    except ValueError:
        return AttackCategory.OTHER


@runtime_checkable
class ManipulatingAttack(Attack, Protocol):
    """An attack that chooses what the server sends; its `needs` hold `Knowledge.MANIPULATION`."""

    def broadcast(
        self, model: ModelSpec, before: Mapping[str, Tensor], *, generator: torch.Generator
    ) -> tuple[ModelSpec, Mapping[str, Tensor]]:
        """What clients receive in place of the honest `model` and its parameters `before`.

        Parameters that stay on the devices are absent from `before`, and keep their names.
        """


class Metric(Protocol):
    """How alike images are: two batches `[N, C, H, W]` in [0, 1] → `[N]`; a pure function.

    Its class may also say how it is shown (`fedaudit.core.measures.MetricFacts`): `title`, `digits`
    and `order`.
    """

    higher_is_better: ClassVar[bool]
    unit: ClassVar[str]
    range: ClassVar[tuple[float, float]]

    def __call__(self, original: Tensor, other: Tensor) -> Tensor:
        """Compare image by image."""


# --- a client's step, which defenses wrap ---------------------------------------------------------


class Defense(Protocol):
    """`defense(step) -> step`, so that defenses compose in order.

    A class attribute `keeps_claims` says whether claims of mechanisms further in survive it: True
    where all that it does to what is sent depends on nothing but that and draws of its own, False
    where it reads the photos as well. One that has none breaks them.
    """

    def __call__(self, step: ClientStep) -> ClientStep:
        """Wrap a client's step."""

    def facts(self) -> DefenseFacts:
        """What an attacker who read the paper and the configuration knows."""


class Method(Protocol):
    """A federated method: what clients send, how they train, how the server combines.

    It has the members of `fedaudit.federation.abilities` in which it differs from FedAvg.
    """
