"""What a method and a defense make of a client's round between them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Literal

from torch import Tensor

from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.protocols import Defense, Method
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Returns, Update
from fedaudit.data.splits import Split
from fedaudit.defenses.chain import Chain, change_each, parts_of
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.abilities import (
    Absorbs,
    Aggregates,
    Combines,
    Gathers,
    Moves,
    Multiplies,
    Networks,
    Notes,
    Secures,
    Shares,
    Tunes,
)
from fedaudit.federation.aggregation import add_mean


def network_of(method: Method, defense: Defense, spec: ModelSpec, split: Split) -> ModelSpec:
    """The network that clients train: the method's, as the defense's parts change it in order."""
    for part in (method, *parts_of(defense)):
        if isinstance(part, Networks):
            spec = part.network(spec, split)
    return spec


def notes_of(method: Method, defense: Defense, spec: ModelSpec, split: Split) -> tuple[str, ...]:
    """What the defense's parts say of what they do to the network that `spec` builds."""
    notes: list[str] = []
    for part in (method, *parts_of(defense)):
        notes += part.notes(spec) if isinstance(part, Notes) else ()
        spec = part.network(spec, split) if isinstance(part, Networks) else spec
    return tuple(notes)


def defense_at(defense: Defense, public: Mapping[str, Tensor]) -> Defense:
    """The defense as it is in a round, by what the server has published (`publish`)."""
    if not public:
        return defense
    numbers = count()

    def part_at(part: Defense) -> Defense:
        if not isinstance(part, Moves):
            return part
        prefix = f"{next(numbers)}/"
        own = {n.removeprefix(prefix): v for n, v in public.items() if n.startswith(prefix)}
        return part.at(own) if own else part

    return change_each(defense, part_at)


def publish(defense: Defense, returns: Returns) -> dict[str, Tensor]:
    """What the server publishes after a round: `NUMBER/NAME`, by number among parts that move."""
    moving = [part for part in parts_of(defense) if isinstance(part, Moves)]
    return {
        f"{number}/{name}": value
        for number, part in enumerate(moving)
        for name, value in part.after(returns).items()
    }


def training_of(method: Method, defense: Defense, training: LocalTraining) -> LocalTraining:
    """How clients train: as the method says, and then the defense's parts in order.

    Several local steps are refused where the method shares one gradient.
    """
    for part in (method, *parts_of(defense)):
        if isinstance(part, Tunes):
            training = part.local(training)
    for part in parts_of(defense):
        if isinstance(part, Multiplies):
            training = replace(training, batch_size=training.batch_size * part.copies)
    if training.steps != 1 and share_of(method) == "gradient":
        raise ConfigError(
            f"the defense makes {training.steps} local steps, and the method shares the gradient "
            'of one. Write method = "fedavg", whose clients share what all their steps changed.'
        )
    return training


def share_of(method: Method) -> Literal["gradient", "delta"]:
    """What a client's update is: the change of the weights, unless the method says otherwise."""
    return method.share if isinstance(method, Shares) else "delta"


def combine(
    method: Method, before: Mapping[str, Tensor], updates: Sequence[Update], training: LocalTraining
) -> dict[str, Tensor]:
    """Global parameters of the next round: by the method's rule, or `before` + the mean delta."""
    if isinstance(method, Combines):
        return method.combine(before, updates, training)
    return add_mean(before, updates)


def aggregator_of(method: Method, defense: Defense) -> Secures | None:
    """The defense's part that is a secure aggregator; None where there is none.

    Two are refused, and a method that can bring its own or shares what it could not sum.
    """
    aggregators = [part for part in parts_of(defense) if isinstance(part, Secures)]
    if len(aggregators) > 1:
        raise ConfigError("a federation has one secure aggregator: name one in the chain")
    if aggregators and isinstance(method, Aggregates):
        raise ConfigError(
            f"{type(method).__name__} has a secure aggregator of its own, which knows what it "
            "shares. Write secure = true among the method's settings, and leave out this defense."
        )
    if aggregators and isinstance(method, Absorbs):
        raise ConfigError(
            f"{type(method).__name__} shares more than one update a client, of which no sum is "
            "known. Use fedavg, fedprox or fedsgd with this defense."
        )
    return aggregators[0] if aggregators else None


def is_secure(method: Method) -> bool:
    """Whether the method has a secure aggregator of its own in use, audited as a whole."""
    return isinstance(method, Aggregates) and method.secure


def targets_behind(
    method: Method, aggregator: Secures | None, *, clients: int, target: int, seed: int
) -> tuple[int, ...]:
    """Numbers of the targets that are behind what the server sees.

    A method with a secure aggregator is audited as a whole: a target is a round of all clients.
    Under a defense that is one, target k is the client that it is without: it comes first, and the
    next targets stand for the others that are left, so that sums of neighbors share photos.
    """
    if is_secure(method):
        return tuple(range(target * clients, (target + 1) * clients))
    if aggregator is None:
        return (target,)
    draw = generator_for("left", seed, target)
    left = aggregator.survivors(clients, draw, audited=target % clients)
    return tuple(t for t in range(target, target + clients) if t % clients in left)


def without_aggregator(defense: Defense) -> Defense:
    """The defense's parts that are no secure aggregator, in order."""
    left = [part for part in parts_of(defense) if not isinstance(part, Secures)]
    if len(left) == len(parts_of(defense)):
        return defense
    facts = [part.facts() for part in left]
    tables = tuple({"name": f.name, **f.settings} for f in facts)
    return Chain(of=tables) if tables else NoDefense()


def photos_of(defense: Defense, batch_size: int) -> int:
    """How many photos are behind an update where the study asks for `batch_size`."""
    for part in parts_of(defense):
        if isinstance(part, Gathers):
            batch_size = part.photos(batch_size)
    return batch_size
