"""The simulated federation: a server, clients that own photos, rounds of training."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.protocols import Defense, Method
from fedaudit.core.scenario import Federation
from fedaudit.core.seeds import generator_for, seed_for
from fedaudit.core.shared import Buffers, Returns, Shared, Update
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split
from fedaudit.defenses.chain import parts_of
from fedaudit.defenses.composition import Plan, apply_defense
from fedaudit.federation.abilities import (
    Absorbs,
    Aggregates,
    Checks,
    Classifies,
    Labels,
    Secures,
    Sends,
    Starts,
    Trains,
    Withholds,
)
from fedaudit.federation.aggregation import mean_buffers
from fedaudit.federation.class_rows import taken_apart
from fedaudit.federation.federation_state import State
from fedaudit.federation.local_training import is_withheld, train_locally
from fedaudit.federation.pretraining import check_apart, pretrain
from fedaudit.federation.together import (
    aggregator_of,
    combine,
    defense_at,
    network_of,
    notes_of,
    publish,
    share_of,
    training_of,
)
from fedaudit.models.batch_norm import running_statistics
from fedaudit.models.build_network import build, parameters_of

T = TypeVar("T", Update, Buffers)


@dataclass(frozen=True)
class Simulation:
    """Everything that stays the same over the rounds.

    Attributes:
        network: Registered name or factory, with arguments other than `classes` and `image_size`.
        seed: Of the fresh model and of all training.
        planted: The network that a malicious server sends in place of all that study, method and
            defense make of theirs.
        others: Images `[C, H, W]` that clients hold in place of photos of the set, by the photos'
            numbers (a control's clients).
    """

    network: ModelSpec
    faces: FaceSet
    split: Split
    federation: Federation
    method: Method
    defense: Defense
    seed: int = 0
    planted: ModelSpec | None = None
    others: Mapping[int, Tensor] = field(default_factory=dict)

    def images(self, photos: Sequence[int]) -> Tensor:
        """`[N, C, H, W]`: the photos of these numbers, as clients hold them."""
        images = self.faces.images[list(photos)]
        for k, photo in enumerate(photos):
            if photo in self.others:
                images[k] = self.others[photo]
        return images

    @property
    def withheld(self) -> tuple[str, ...]:
        """Parameter prefixes that no update contains."""
        own = self.method.withheld if isinstance(self.method, Withholds) else ()
        return (*self.defense.facts().withheld, *own)

    def labels_of(self, client: int) -> tuple[str, ...]:
        """What the classes of this client's head are: people, or what the method tells apart.

        A head that stays on the device has only its client's people; a shared one has everybody.
        """
        if self._classes is not None:
            return tuple(sorted(set(self._classes)))
        return self.split.clients[client] if self._head_is_private else self.split.people

    def label_of(self, client: int, photo: int) -> int:
        """The class of a photo in this client's head."""
        classes = self.faces.people if self._classes is None else self._classes
        return self.labels_of(client).index(classes[photo])

    def spec(self, client: int) -> ModelSpec:
        """The network that this client trains."""
        spec = network_of(self.method, self.defense, self._plain_spec(client), self.split)
        if self.planted is None:
            return spec
        classes = {"classes": spec.arguments["classes"]}
        return replace(self.planted, arguments={**self.planted.arguments, **classes})

    @property
    def plan(self) -> Plan:
        """What of the planned training decides how much privacy a defense spends."""
        settings = self.federation
        fewest = min(len(photos) for photos in self.split.photos)
        training = self.local(settings.training)
        rate = 1 / math.ceil(fewest / training.batch_size)
        return Plan(settings.rounds, training.steps, rate)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the defenses change in the network that the study names."""
        return notes_of(self.method, self.defense, self._plain_spec(0), self.split)

    def local(self, training: LocalTraining) -> LocalTraining:
        """How a client trains where the study asks for `training`."""
        return training_of(self.method, self.defense, training)

    def fresh(self) -> State:
        """The state before round 1: the method's start or a random model, without unshared layers.

        Method and defense refuse faces that they cannot use by a `DataError`; so are those refused
        that the network would be pre-trained on.
        """
        for part in (self.method, *parts_of(self.defense)):
            if isinstance(part, Checks):
                part.check(self.faces, self.split)
        for asks in (self.federation, self.method):  # both may train on public faces first
            if getattr(asks, "pretrain_steps", 0):
                check_apart(self.faces, getattr(asks, "public", ""))
        seed = seed_for("fresh", self.seed)
        model = build(self.spec(0), seed=seed)
        server = {
            name: value
            for name, value in {**parameters_of(model), **running_statistics(model)}.items()
            if not is_withheld(name, self.withheld)
        }
        if steps := self.federation.pretrain_steps:
            public = self.federation.public
            server = pretrain(self.spec(0), server, public=public, steps=steps, seed=seed)
        if isinstance(self.method, Starts):
            server = self.method.start(self.spec(0), server, seed)
        return State(server)

    def received(self, state: State, client: int) -> Mapping[str, Tensor]:
        """What the server sends this client."""
        if not isinstance(self.method, Sends):
            return state.server
        return self.method.sends(state.server, client, self.owned(client))

    def owned(self, client: int) -> tuple[int, ...]:
        """Numbers of this client's own classes among everybody's; () where the head is shared.

        A person at two clients has a number at each: neither can know of the other's class.
        """
        if self._classes is not None or not self._head_is_private:
            return ()
        before = sum(len(people) for people in self.split.clients[:client])
        return tuple(range(before, before + len(self.split.clients[client])))

    def step(
        self,
        state: State,
        client: int,
        photos: tuple[int, ...],
        training: LocalTraining,
        generator: torch.Generator,
    ) -> ClientReturn:
        """One client's defended round on `photos` (indices into the face set)."""
        rest = self.unlabelled(client, photos)
        further, alone = self.images(rest), isinstance(self.method, Labels)
        task = ClientTask(
            model=self.spec(client),
            before=self.received(state, client),
            kept=state.kept.get(client, {}),
            images=self.images(photos),
            labels=self._labels(client, photos),
            training=self.local(training),
            share=share_of(self.method),
            generator=generator,
            owned=self.owned(client),
            memory=state.memory.get(client, {}),
            unlabelled=further if alone else None,
            others=None if alone else further,
            other_labels=None if alone else self._labels(client, rest),
        )
        own = self.method.client if isinstance(self.method, Trains) else train_locally
        return apply_defense(defense_at(self.defense, state.public), own)(task)

    def unlabelled(self, client: int, photos: tuple[int, ...]) -> tuple[int, ...]:
        """The client's photos beside `photos`, which train without labels where the method can."""
        batch = set(photos)
        return tuple(i for i in self._photos(client) if i not in batch)

    def _labels(self, client: int, photos: tuple[int, ...]) -> Tensor:
        """`[N]` classes of the photos in this client's head."""
        classes = self.faces.people if self._classes is None else self._classes
        numbers = {label: number for number, label in enumerate(self.labels_of(client))}
        return torch.tensor([numbers[classes[i]] for i in photos], dtype=torch.long)

    @property
    def aggregator(self) -> Secures | None:
        """The defense's secure aggregator; None where there is none."""
        return aggregator_of(self.method, self.defense)

    def train(
        self,
        state: State,
        rounds: range,
        progress: Callable[[int, int], None] | None = None,
        account: Callable[[int, ClientReturn], None] | None = None,
    ) -> tuple[State, float]:
        """Run `rounds` (1-based numbers) from `state`; returns the end and the seconds it took.

        `account(client, returned)` is called for each client in each round.
        """
        settings = self.federation
        training = settings.training
        start = time.perf_counter()
        for number in rounds:
            returns = []
            for client in range(len(self.split.clients)):
                generator = generator_for("train", self.seed, number, client)
                photos = self.labelled(client)
                returns.append(self.step(state, client, photos, training, generator))
                if account:
                    account(client, returns[-1])
            uploads = [r.shared for r in returns]
            server = self._combine(state, self._arrivals(uploads, number), self.local(training))
            public = publish(defense_at(self.defense, state.public), uploads)
            state = State(
                server,
                {client: r.kept for client, r in enumerate(returns)},
                {client: r.memory for client, r in enumerate(returns)},
                public,
            )
            if progress:
                progress(number - rounds.start + 1, len(rounds))
        return state, time.perf_counter() - start

    def _arrivals(self, returns: list[tuple[Shared, ...]], number: int) -> Returns:
        """What the server can make of round `number`: everything, or what an aggregator lets it."""
        if isinstance(self.method, Aggregates) and self.method.secure:
            return taken_apart(self.method.aggregate(returns))
        if (aggregator := self.aggregator) is None:
            return returns
        generator = generator_for("aggregate", self.seed, number)
        left = aggregator.survivors(len(returns), generator)
        some = {k: returns[k] for k in left}
        return taken_apart(aggregator.aggregate(some, len(returns), generator))

    def _combine(
        self, state: State, returns: Returns, training: LocalTraining
    ) -> dict[str, Tensor]:
        """What the server holds after a round."""
        server = combine(self.method, state.server, _each(returns, Update), training)
        server |= mean_buffers(_each(returns, Buffers))
        if isinstance(self.method, Absorbs):
            server |= self.method.absorb(state.server, returns, training)
        return server

    def _plain_spec(self, client: int) -> ModelSpec:
        """The network that the study names, for this client."""
        settings = {"image_size": self.faces.images.shape[-1], **self.network.arguments}
        arguments = {**settings, "classes": len(self.labels_of(client))}
        return replace(self.network, arguments=arguments)

    def _photos(self, client: int) -> tuple[int, ...]:
        return self.split.photos[client]

    def labelled(self, client: int) -> tuple[int, ...]:
        """This client's photos that train with their label."""
        photos = self._photos(client)
        if not isinstance(self.method, Labels):
            return photos
        labels = self._labels(client, photos)
        return tuple(photos[k] for k in self.method.labelled(labels).tolist())

    @property
    def _classes(self) -> tuple[str, ...] | None:
        own = self.method.classes(self.faces) if isinstance(self.method, Classifies) else None
        return own or self.faces.classes or None

    @property
    def _head_is_private(self) -> bool:
        return is_withheld("head.weight", self.withheld)


def _each(returns: Returns, kind: type[T]) -> list[T]:
    """The first of that kind that each client sent, where it sent one."""
    firsts = [next((s for s in shared if isinstance(s, kind)), None) for shared in returns]
    return [first for first in firsts if first is not None]
