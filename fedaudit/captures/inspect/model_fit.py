"""Whether the model that was named is that of a recording, before anything is attacked."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from fedaudit.captures.format.capture_network import (
    advice_on_classes,
    check_size,
    image_shape,
    names_of,
)
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.tensor_names import (
    COUNTER,
    SHOWN,
    Renaming,
    is_numbered,
    named,
    parsed,
)
from fedaudit.captures.inspect.model_mismatch import Shapes, find_mismatch
from fedaudit.core.errors import CaptureError, UsageError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.printable import printable
from fedaudit.models.derivatives import check_differentiable
from fedaudit.models.zoo import build


@dataclass(frozen=True)
class Fit:
    """How the names of a recording become those of the model.

    Attributes:
        renaming: To read the recording with.
        notes: What was renamed, and what the model has beyond what was sent, a sentence each.
    """

    renaming: Renaming
    notes: tuple[str, ...] = ()


def fit(
    stored: StoredCapture, spec: ModelSpec, rounds: Collection[int], asked: Sequence[str]
) -> Fit:
    """Compare the model with the first broadcast that can be read.

    Rules are `asked` as they are typed: `OLD=NEW` each, or `auto`.

    Raises:
        ConfigError: A rule is none.
        UsageError: The model does not fit, with the first wrong name, the likely cause and what to
            do; or attacks cannot work through it.
    """
    rules = parsed(asked)
    sent = _sent(stored, rounds)
    if sent is None:
        return Fit(rules or Renaming())
    check_size(spec, stored.facts, sent.values())
    if is_numbered(sent):
        sent = named(sent, names_of(spec, stored.facts))
    sent = {n: s for n, s in named(sent, ()).items() if not f".{n}".endswith(COUNTER)}
    network = build(spec)
    shapes = _shapes(network)

    def advise(needed: int) -> str:
        return advice_on_classes(spec, stored.facts, needed)

    if rules is None:
        mismatch = find_mismatch(sent, shapes, advise)
        if mismatch is not None and mismatch.renaming is None:
            raise UsageError(f"--rename auto finds no names that are beyond doubt: {mismatch}")
        rules = Renaming() if mismatch is None or mismatch.renaming is None else mismatch.renaming
    renamed = rules.names(sent)
    if (wrong := find_mismatch(renamed, shapes, advise)) is not None:
        raise UsageError(f"the model does not fit what the server sent: {wrong}")
    notes = [*_renamed(sent, rules), *_beyond(renamed, network)]
    shape = image_shape(stored.facts, spec)
    if shape is not None and not check_differentiable(network, shape):
        notes.append(
            "second derivatives of the model are not those of its gradient: an operation of its "
            "own has none, so that searches may fail for this reason alone"
        )
    return Fit(rules, tuple(notes))


def _sent(stored: StoredCapture, rounds: Collection[int]) -> Shapes | None:
    """Shapes of the first broadcast; None where none can be read, which is told elsewhere."""
    for round in rounds:
        first = next(stored.messages(round), None)
        try:
            message = stored.broadcast_message(round, first.message.client if first else None)
        except (CaptureError, UsageError):
            continue
        return message.shapes()
    return None


def _shapes(network: nn.Module) -> Shapes:
    held = {
        **network.state_dict(),
        **dict(network.named_parameters()),
        **dict(network.named_buffers()),
    }
    return {n: tuple(t.shape) for n, t in held.items() if not f".{n}".endswith(COUNTER)}


def _renamed(sent: Shapes, rules: Renaming) -> tuple[str, ...]:
    changed = [(name, new) for name in sent if (new := rules.name(name)) != name]
    if not changed:
        return ("--rename changes no name",) if rules.rules else ()
    shown = ", ".join(
        f"{printable(old)[:100]} → {printable(new)[:100]}" for old, new in changed[:SHOWN]
    )
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return (f"{len(changed)} names of the recording were mapped to the model's: {shown}{more}",)


def _beyond(renamed: Shapes, network: nn.Module) -> tuple[str, ...]:
    missing = [name for name, _ in network.named_parameters() if name not in renamed]
    if not missing:
        return ()
    return (
        f"the server sent nothing for {len(missing)} parameters of the model, {missing[0]!r} the "
        "first: they are taken to stay on the devices. Where clients do send them, this is another "
        "model",
    )
