"""What a federated method, or a defense, may do beyond its verb: each ability is optional.

A method without any of them is FedAvg: everybody trains the whole network as the federation's
settings say, each client shares how its weights changed, the server adds the mean, weighted by
images. A method that differs has the members below in which it differs, and no others; what holds
where one is missing stands in `fedaudit.federation.together`, and with `simulation.Simulation`.
Those marked * a defense may have as well; a chain's parts act after the method, in order
(`fedaudit.federation.together`).

    check *     data that it cannot use are refused               before anything runs
    network *   the network, with a loss of its own in it         client and attacker build it
    share       whether an update is a gradient or a delta        the observation says so
    local *     how a client trains                               the observation says so
    combine     the next round's parameters, of all updates
    photos *    how many photos are behind an update (defenses only)
    copies *    how many images train in place of each photo (defenses only)
    at, after * a setting that moves from round to round (defenses only)
    notes *     what a reader must know of its network            plans and reports say so
    start       what the server holds before round 1
    sends       what one client receives                          server → client
    labelled    which photos have a label; the others train without
    client      one client's round, what it shares and keeps      client → server
    aggregate   what a secure aggregator lets the server see (of a defense: `Secures`)
    absorb      what the server makes of all that is not an update
    withheld    parameters that no update contains
    classes     what the head tells apart

A loss stands in the network, because an attacker who knows the method rebuilds the network.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.protocols import Defense
from fedaudit.core.shared import Returns, Shared, Update
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split


@runtime_checkable
class Checks(Protocol):
    """A method or defense that refuses data which it cannot use."""

    def check(self, faces: FaceSet, split: Split) -> None:
        """Raises `DataError`, which says what to change."""


@runtime_checkable
class Networks(Protocol):
    """A method or defense that trains another network than the study names, or by another loss."""

    def network(self, spec: ModelSpec, split: Split) -> ModelSpec:
        """The network that clients train; `spec` has its `classes` and `image_size`."""


@runtime_checkable
class Tunes(Protocol):
    """A method or defense that changes how clients train: more local steps, a proximal term."""

    def local(self, training: LocalTraining) -> LocalTraining:
        """The settings that a client trains with, in training as in the audited round."""


@runtime_checkable
class Shares(Protocol):
    """A method that says what a client's update is."""

    @property
    def share(self) -> Literal["gradient", "delta"]:
        """The gradient of one step, or the change of the weights."""


@runtime_checkable
class Combines(Protocol):
    """A method that combines the clients' updates in its own way."""

    def combine(
        self, before: Mapping[str, Tensor], updates: Sequence[Update], training: LocalTraining
    ) -> dict[str, Tensor]:
        """Global parameters of the next round, of those `before`."""


@runtime_checkable
class Multiplies(Protocol):
    """A defense that makes several images of each photo; batches grow by as much."""

    @property
    def copies(self) -> int:
        """Images that train in place of each photo."""


@runtime_checkable
class Moves(Protocol):
    """A defense with settings that the server moves from round to round, for all to see."""

    def at(self, public: Mapping[str, Tensor]) -> Defense:
        """The defense of a round for which the server has published `public`."""

    def after(self, returns: Returns) -> dict[str, Tensor]:
        """What the server publishes for the next round, by names of its own; {} if nothing."""


@runtime_checkable
class Notes(Protocol):
    """A defense that does something to the network which a reader of its results must be told."""

    def notes(self, spec: ModelSpec) -> tuple[str, ...]:
        """Sentences without full stop on what it does to the network that `spec` builds."""


@runtime_checkable
class Gathers(Protocol):
    """A defense that puts more photos behind an update."""

    def photos(self, batch_size: int) -> int:
        """How many are behind it where the study asks for `batch_size`; no fewer than that."""


@runtime_checkable
class Starts(Protocol):
    """A method that does not start from random parameters."""

    def start(self, spec: ModelSpec, server: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        """What the server holds before round 1; `server` is the random start."""


@runtime_checkable
class Sends(Protocol):
    """A method whose server sends each client its own part of what it holds."""

    def sends(
        self, server: Mapping[str, Tensor], client: int, owned: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """What `client`, whose classes have the numbers `owned` among everybody's, receives."""


@runtime_checkable
class Labels(Protocol):
    """A method that uses the labels of a few photos only."""

    def labelled(self, labels: Tensor) -> Tensor:
        """Indices `[k]` of the photos, of those with `labels [N]`, whose label is used."""


@runtime_checkable
class Trains(Protocol):
    """A method with a client step of its own, which defenses wrap."""

    def client(self, task: ClientTask) -> ClientReturn:
        """One client's round."""


@runtime_checkable
class Aggregates(Protocol):
    """A method that puts a secure aggregator between clients and server where `secure` says so."""

    @property
    def secure(self) -> bool:
        """Whether there is a secure aggregator."""

    def aggregate(self, returns: Returns) -> tuple[Shared, ...]:
        """All that the server sees of the round in which the clients sent `returns`."""


@runtime_checkable
class Secures(Protocol):
    """A defense that puts a secure aggregator between clients and server."""

    def survivors(
        self, clients: int, generator: torch.Generator, audited: int | None = None
    ) -> tuple[int, ...]:
        """Numbers of the clients that are left in a round; `audited` always is."""

    def aggregate(
        self, returns: Mapping[int, tuple[Shared, ...]], clients: int, generator: torch.Generator
    ) -> tuple[Shared, ...]:
        """All that the server sees of the round in which those left, of `clients`, sent `returns`.

        What it makes of it, `fedaudit.federation.class_rows.taken_apart` says.
        """


@runtime_checkable
class Absorbs(Protocol):
    """A method whose clients share more than an update, of which the server keeps something."""

    def absorb(
        self, server: Mapping[str, Tensor], returns: Returns, training: LocalTraining
    ) -> dict[str, Tensor]:
        """What the server keeps of the rest, by name; `server` is what it held and sent.

        It replaces what `combine` left under these names.
        """


@runtime_checkable
class Withholds(Protocol):
    """A method that keeps parameters out of updates; a head that it keeps is the client's own."""

    @property
    def withheld(self) -> tuple[str, ...]:
        """Prefixes of parameter names."""


@runtime_checkable
class Classifies(Protocol):
    """A method that classifies something other than people, with one head for all clients."""

    def classes(self, faces: FaceSet) -> tuple[str, ...] | None:
        """`[N]` a class for each photo; None where the classes are the people."""
