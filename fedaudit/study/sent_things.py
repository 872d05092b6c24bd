"""What was shared in a cell, and which attacks read it."""

from collections.abc import Iterable, Sequence
from functools import cache

from fedaudit.captures.simulate.exposed_things import names_of
from fedaudit.core import registry
from fedaudit.core.errors import FedauditError
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import Attack
from fedaudit.core.shared import Aggregate, Buffers, Shared, Update, kind_of, tensors_in
from fedaudit.core.trial import Cell, Sent, Trial


def sent_things(
    seen: Observation, attack: Attack | None, only: Iterable[str] = ()
) -> tuple[Sent, ...]:
    """What was shared as a reviewer is told of it, and what of it `attack` attacks.

    Of several updates an attack reads the first alone (`Observation.update`); the others are
    attacked where `expose` names them.

    Args:
        seen: What the attacker is shown.
        attack: Who attacks it; None for nobody.
        only: What `expose` has left of it: things keep the names that they had before.
    """
    kinds = attack.reads if attack else frozenset()
    found: list[Sent] = []
    update_seen = False
    for name, sent in zip(_names_before(seen.shared, only), seen.shared, strict=True):
        is_read = reads(kinds, sent) and not (_is_update(sent) and update_seen)
        update_seen = update_seen or _is_update(sent)
        used = not is_read and _is_buffers(sent) and Update in kinds
        readers = tuple(other for other, read in _registered() if reads(read, sent))
        found.append(Sent(name, _summary(sent), _bytes(sent), is_read, used, readers))
    return tuple(found)


def _names_before(shared: Sequence[Shared], only: Iterable[str]) -> tuple[str, ...]:
    """Names of the shared things as they were before `expose` left these only."""
    names = names_of(shared)
    kept: dict[str, list[int]] = {}
    for name in {wanted.partition(":")[0] for wanted in only}:
        kind, _, number = name.partition("#")
        kept.setdefault(kind, []).append(int(number or 1))
    if not kept:
        return names
    numbers = {kind: iter(sorted(found)) for kind, found in kept.items()}
    found = ((kind, next(numbers[kind])) for kind in map(kind_of, shared))
    return tuple(f"{kind}#{n}" if n > 1 else kind for kind, n in found)


def reads(kinds: frozenset[type], sent: Shared) -> bool:
    """Whether an attack that reads these kinds reads that one.

    An aggregate's mean is an update (`Observation.update`). Of buffers, what reads updates makes
    use, too, but does not attack them.
    """
    return type(sent) in kinds or (Update in kinds and _is_update(sent))


def _is_update(sent: Shared) -> bool:
    summed = isinstance(sent, Aggregate) and sent.kind in {"gradient", "delta"}
    return summed or isinstance(sent, Update)


def _is_buffers(sent: Shared) -> bool:
    return isinstance(sent, Buffers) or (isinstance(sent, Aggregate) and sent.kind == "buffers")


@cache
def _registered() -> tuple[tuple[str, frozenset[type]], ...]:
    """Registered attacks, and what each reads; without those that cannot be built bare."""
    found = []
    for name in registry.names("attacks"):
        try:
            known = getattr(registry.lookup("attacks", name), "reads", None)
            if not isinstance(known, frozenset):  # a function that configures another attack
                known = registry.create("attacks", name, {}).reads
        except (FedauditError, ImportError, AttributeError):
            continue  # a package that is broken, or needs settings, attacks nothing here
        found.append((name, known))
    return tuple(found)


def nothing_to_attack(sent: Sequence[Sent], shared: Sequence[Shared], cell: Cell) -> str:
    """Why the cell's attack cannot be run on what was sent; "" where it can.

    Args:
        sent: What is said of each thing in `shared`.
        shared: The things.
        cell: Where the attack stands in the study.
    """
    if cell.role == "noise":
        return ""
    read = [thing for said, thing in zip(sent, shared, strict=True) if said.read]
    if any(bool(t.any()) for thing in read for t in tensors_in(thing)):
        return ""
    if read:
        return "what was shared is zero everywhere: nothing was trained in this round"
    return f"{cell.attack} reads none of what was shared: {', '.join(s.name for s in sent)}"


def not_attacked(cell: Cell, sent: tuple[Sent, ...], why: str) -> Trial:
    """The trial of a cell in which there was nothing to attack: not tested, hence no scores."""
    return Trial(
        cell=cell,
        images=(),
        labels_correct=None,
        objective=float("nan"),
        iterations=0,
        gradient_evaluations=0,
        seconds=0.0,
        adaptive="none needed",
        sent=sent,
        not_attacked=why,
    )


def _summary(sent: Shared) -> str:
    tensors = tensors_in(sent)
    if len(tensors) == 1:
        return f"{' × '.join(str(n) for n in tensors[0].shape)} values"
    return f"{len(tensors)} tensors, {sum(t.numel() for t in tensors):,} values"


def _bytes(sent: Shared) -> int:
    return sum(t.numel() * t.element_size() for t in tensors_in(sent))
