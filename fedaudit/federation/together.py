"""What a method and a defense make of a client's round between them."""

from fedaudit.data.splits import Split
from fedaudit.defenses.chain import parts_of
from fedaudit.errors import ConfigError
from fedaudit.federation.abilities import Gathers, Networks, Notes, Tunes
from fedaudit.types import LocalTraining, ModelSpec
from fedaudit.verbs import Defense, Method


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


def training_of(method: Method, defense: Defense, training: LocalTraining) -> LocalTraining:
    """How clients train: as the method says, and then the defense's parts in order.

    Raises:
        ConfigError: Several local steps, of which the method shares one gradient.
    """
    made = method.local(training)
    for part in parts_of(defense):
        if isinstance(part, Tunes):
            made = part.local(made)
    if made.steps != 1 and method.share == "gradient":
        raise ConfigError(
            f"the defense makes {made.steps} local steps, and the method shares the gradient of "
            'one. Write method = "fedavg", whose clients share what all their steps changed.'
        )
    return made


def photos_of(defense: Defense, batch_size: int) -> int:
    """How many photos are behind an update where the study asks for `batch_size`."""
    for part in parts_of(defense):
        if isinstance(part, Gathers):
            batch_size = part.photos(batch_size)
    return batch_size
