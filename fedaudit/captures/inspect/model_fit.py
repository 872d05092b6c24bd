"""Whether the model that was named is that of a recording, before anything is attacked."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fedaudit.captures.format.capture_facts import Facts
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
    name_tensors,
    parse_rules,
)
from fedaudit.captures.inspect.model_mismatch import find_mismatch
from fedaudit.captures.inspect.name_matching import Shapes
from fedaudit.core import registry
from fedaudit.core.errors import CaptureError, UsageError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.printable import first_few, printable
from fedaudit.models import library_networks
from fedaudit.models.build_network import build
from fedaudit.models.derivatives import OTHER_DERIVATIVES, check_differentiable


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
    broadcast = _first_broadcast(stored, rounds)
    if broadcast is None:
        return Fit(parse_rules(asked) or Renaming())
    return fit_shapes(broadcast, spec, stored.facts, asked)


def check_import(broadcast: Shapes, spec: ModelSpec, facts: Facts) -> tuple[str, ...]:
    """Compare a model that is stated at import with what the server sent.

    Returns:
        What to say, a sentence each: that the audit takes --rename, what is still to be stated,
        and what an audit would note.

    Raises:
        UsageError: No audit could use this model, as `fit`.
    """
    try:
        return fit_shapes(broadcast, spec, facts, ()).notes
    except UsageError as error:
        if _is_open(spec, facts):
            return (str(error),)
        try:  # a wrapper's names are no fault of the model
            fit_shapes(broadcast, spec, facts, ("auto",))
        except UsageError:
            raise UsageError(
                f"{error} Nothing was recorded; without --model and what belongs to it, it would "
                "be, and the audit can name a model."
            ) from error
        return (str(error),)


def _is_open(spec: ModelSpec, facts: Facts) -> bool:
    """Whether facts by which the network is built may be stated later."""
    built = spec.factory in registry.names("networks") or spec.factory == library_networks.FACTORY
    return built and None in {facts.classes, facts.image_shape}


def fit_shapes(broadcast: Shapes, spec: ModelSpec, facts: Facts, asked: Sequence[str]) -> Fit:
    """As `fit`, of the shapes of a broadcast, by the names under which it was sent."""
    rules = parse_rules(asked)
    check_size(spec, facts, broadcast.values())
    if is_numbered(broadcast):
        broadcast = name_tensors(broadcast, names_of(spec, facts))
    broadcast = {
        n: s for n, s in name_tensors(broadcast, ()).items() if not f".{n}".endswith(COUNTER)
    }
    network = build(spec)
    shapes = _shapes(network)

    def advise(classes: int) -> str:
        return advice_on_classes(spec, facts, classes)

    if rules is None:
        mismatch = find_mismatch(broadcast, shapes, advise)
        if mismatch is not None and mismatch.renaming is None:
            raise UsageError(f"--rename auto finds no names that are beyond doubt: {mismatch}")
        rules = Renaming() if mismatch is None or mismatch.renaming is None else mismatch.renaming
    shapes_by_name = rules.names(broadcast)
    if (wrong := find_mismatch(shapes_by_name, shapes, advise)) is not None:
        raise UsageError(f"the model does not fit what the server sent: {wrong}")
    notes = [*_describe_renaming(broadcast, rules), *_beyond(shapes_by_name, network)]
    shape = image_shape(facts, spec)
    if shape is not None:
        if not check_differentiable(network, shape):
            notes.append(OTHER_DERIVATIVES)
        _check_classes(network, shape, facts)
    return Fit(rules, tuple(notes))


def _check_classes(network: nn.Module, shape: Sequence[int], facts: Facts) -> None:
    """Refuse a stated number of classes that the model, which takes such images, does not give."""
    parameter = next(network.parameters())
    network.eval()
    with torch.no_grad():
        count = network(torch.zeros(1, *shape, dtype=parameter.dtype)).shape[1]
    network.train()
    if facts.classes is not None and facts.classes != count:
        raise UsageError(
            f"classes = {facts.classes:,} is stated, and the model gives {count:,} scores: correct "
            f"it to {count:,}, or name the model that was trained."
        )


def _first_broadcast(capture: StoredCapture, rounds: Collection[int]) -> Shapes | None:
    """Shapes of the first broadcast; None where none can be read, which is told elsewhere."""
    for round in rounds:
        first = next(capture.messages(round), None)
        try:
            message = capture.broadcast_message(round, first.message.client if first else None)
        except (CaptureError, UsageError):
            continue
        return message.shapes()
    return None


def _shapes(network: nn.Module) -> Shapes:
    tensors = {
        **network.state_dict(),
        **dict(network.named_parameters()),
        **dict(network.named_buffers()),
    }
    return {n: tuple(t.shape) for n, t in tensors.items() if not f".{n}".endswith(COUNTER)}


def _describe_renaming(broadcast: Shapes, rules: Renaming) -> tuple[str, ...]:
    changes = [(name, new) for name in broadcast if (new := rules.name(name)) != name]
    if not changes:
        return ("--rename changes no name",) if rules.rules else ()
    rules_text = [f"{printable(old)[:100]} → {printable(new)[:100]}" for old, new in changes]
    excerpt = first_few(rules_text, SHOWN)
    return (f"{len(changes)} names of the recording were mapped to the model's: {excerpt}",)


def _beyond(broadcast: Shapes, network: nn.Module) -> tuple[str, ...]:
    missing = [name for name, _ in network.named_parameters() if name not in broadcast]
    if not missing:
        return ()
    return (
        f"the server sent nothing for {len(missing)} parameters of the model, {missing[0]!r} the "
        "first: they are taken to stay on the devices. Where clients do send them, this is another "
        "model",
    )
