"""The simulated federation: a server, clients that own people, rounds of training."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedaudit.config import Federation
from fedaudit.data.faces import FaceSet
from fedaudit.data.splits import Split
from fedaudit.federation.averaging import mean_buffers
from fedaudit.federation.client import is_withheld, local_training, train_locally
from fedaudit.models.batch_norm import running_statistics
from fedaudit.models.zoo import build, parameters_of
from fedaudit.seeds import generator_for, seed_for
from fedaudit.types import Buffers, LocalTraining, ModelSpec, Update
from fedaudit.verbs import ClientReturn, ClientTask, Defense, Method


@dataclass(frozen=True)
class State:
    """A federation between two rounds.

    Attributes:
        server: What the server holds and broadcasts: parameters, and the running statistics of
            batch norm, by name.
        kept: What each client keeps on its device, by client number.
    """

    server: Mapping[str, Tensor]
    kept: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)

    def flat(self) -> dict[str, Tensor]:
        """One mapping for a file: `server/NAME` and `client-K/NAME`."""
        flat = {f"server/{name}": value for name, value in self.server.items()}
        for client, kept in self.kept.items():
            flat |= {f"client-{client}/{name}": value for name, value in kept.items()}
        return flat

    @staticmethod
    def from_flat(tensors: Mapping[str, Tensor]) -> "State":
        """The inverse of `flat`."""
        server: dict[str, Tensor] = {}
        kept: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            owner, _, name = key.partition("/")
            if owner == "server":
                server[name] = value
            else:
                kept.setdefault(int(owner.removeprefix("client-")), {})[name] = value
        return State(server, kept)


@dataclass(frozen=True)
class Simulation:
    """Everything that stays the same over the rounds.

    Attributes:
        network: Registered name or factory, with arguments other than `classes` and `image_size`.
        seed: Of the fresh model and of all training.
    """

    network: ModelSpec
    faces: FaceSet
    split: Split
    federation: Federation
    method: Method
    defense: Defense
    seed: int = 0

    @property
    def withheld(self) -> tuple[str, ...]:
        """Parameter prefixes that never leave a device."""
        return self.defense.facts().withheld

    def labels_of(self, client: int) -> tuple[str, ...]:
        """The people behind the classes of this client's head.

        A head that stays on the device has only its client's people; a shared one has everybody.
        """
        return self.split.clients[client] if self._head_is_private else self.split.people

    def spec(self, client: int) -> ModelSpec:
        """The network that this client trains."""
        arguments = {
            "image_size": self.faces.images.shape[-1],
            **self.network.arguments,
            "classes": len(self.labels_of(client)),
        }
        return replace(self.network, arguments=arguments)

    def fresh(self) -> State:
        """Round 0: a random model, minus what the server never sees."""
        model = build(self.spec(0), seed=seed_for("fresh", self.seed))
        server = {
            name: value
            for name, value in {**parameters_of(model), **running_statistics(model)}.items()
            if not is_withheld(name, self.withheld)
        }
        return State(server)

    def step(
        self,
        state: State,
        client: int,
        photos: tuple[int, ...],
        training: LocalTraining,
        generator: torch.Generator,
    ) -> ClientReturn:
        """One client's defended round on `photos` (indices into the face set)."""
        classes = {person: k for k, person in enumerate(self.labels_of(client))}
        task = ClientTask(
            model=self.spec(client),
            before=state.server,
            kept=state.kept.get(client, {}),
            images=self.faces.images[list(photos)],
            labels=torch.tensor([classes[self.faces.people[i]] for i in photos]),
            training=self.method.local(training),
            share=self.method.share,
            generator=generator,
        )
        return self.defense(train_locally)(task)

    def train(
        self,
        state: State,
        rounds: range,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[State, float]:
        """Run `rounds` (1-based numbers) from `state`; returns the end and the seconds it took."""
        settings = self.federation
        training = local_training(settings)
        started = time.perf_counter()
        for number in rounds:
            returns = {}
            for client, people in enumerate(self.split.clients):
                photos = tuple(i for person in people for i in self.split.train[person])
                generator = generator_for("train", self.seed, number, client)
                returns[client] = self.step(state, client, photos, training, generator)
            updates = [_update(r) for r in returns.values()]
            server = self.method.combine(state.server, updates, training)
            server |= mean_buffers([b for r in returns.values() if (b := _buffers(r))])
            state = State(server, {client: r.kept for client, r in returns.items()})
            if progress:
                progress(number - rounds.start + 1, len(rounds))
        return state, time.perf_counter() - started

    @property
    def _head_is_private(self) -> bool:
        return is_withheld("head.weight", self.withheld)


def _buffers(returned: ClientReturn) -> Buffers | None:
    return next((shared for shared in returned.shared if isinstance(shared, Buffers)), None)


def _update(returned: ClientReturn) -> Update:
    return next(shared for shared in returned.shared if isinstance(shared, Update))
