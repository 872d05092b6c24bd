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
    """What was sent, described for a reviewer, and which of it `attack` reads.

    Of several updates an attack reads the first alone (`Observation.update`); the others are
    attacked where `expose` names them.

    Args:
        seen: What the attacker is shown.
        attack: Who attacks it; None for nobody.
        only: What `expose` has left of it: things keep the names that they had before.
    """
    kinds = attack.reads if attack else frozenset()
    things: list[Sent] = []
    update_seen = False
    for name, part in zip(_names_before(seen.shared, only), seen.shared, strict=True):
        is_read = reads(kinds, part) and not (_is_update(part) and update_seen)
        update_seen = update_seen or _is_update(part)
        aids = not is_read and _is_buffers(part) and Update in kinds
        readers = tuple(other for other, read in _attacks() if reads(read, part))
        things.append(Sent(name, _summary(part), _bytes(part), is_read, aids, readers))
    return tuple(things)


def _names_before(shared: Sequence[Shared], only: Iterable[str]) -> tuple[str, ...]:
    """Names of the shared things as they were before `expose` left these only."""
    names = names_of(shared)
    spots: dict[str, list[int]] = {}
    for name in {entry.partition(":")[0] for entry in only}:
        kind, _, number = name.partition("#")
        spots.setdefault(kind, []).append(int(number or 1))
    if not spots:
        return names
    numbers = {kind: iter(sorted(pairs)) for kind, pairs in spots.items()}
    pairs = ((kind, next(numbers[kind])) for kind in map(kind_of, shared))
    return tuple(f"{kind}#{n}" if n > 1 else kind for kind, n in pairs)


def reads(kinds: frozenset[type], sent: Shared) -> bool:
    """Whether an attack that reads these kinds of shared things reads this one.

    An aggregate's mean is an update (`Observation.update`). Of buffers, what reads updates makes
    use, too, but does not attack them.
    """
    return type(sent) in kinds or (Update in kinds and _is_update(sent))


def _is_update(part: Shared) -> bool:
    is_sum = isinstance(part, Aggregate) and part.kind in {"gradient", "delta"}
    return is_sum or isinstance(part, Update)


def _is_buffers(part: Shared) -> bool:
    return isinstance(part, Buffers) or (isinstance(part, Aggregate) and part.kind == "buffers")


@cache
def _attacks() -> tuple[tuple[str, frozenset[type]], ...]:
    """Registered attacks, and what each reads; without those that cannot be built bare."""
    attacks = []
    for name in registry.names("attacks"):
        try:
            kinds = getattr(registry.lookup("attacks", name), "reads", None)
            if not isinstance(kinds, frozenset):  # a function that configures another attack
                kinds = registry.create("attacks", name, {}).reads
        except (FedauditError, ImportError, AttributeError):
            continue  # a package that is broken, or needs settings, attacks nothing here
        attacks.append((name, kinds))
    return tuple(attacks)


def nothing_to_attack(sent: Sequence[Sent], shared: Sequence[Shared], cell: Cell) -> str:
    """Why the cell's attack cannot be run on what was sent; "" where it can.

    Args:
        sent: What is said of each thing in `shared`.
        shared: The things.
        cell: Where the attack stands in the study.
    """
    if cell.role == "noise":
        return ""
    read = [thing for entry, thing in zip(sent, shared, strict=True) if entry.read]
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


def _summary(part: Shared) -> str:
    tensors = tensors_in(part)
    if len(tensors) == 1:
        return f"{' × '.join(f'{n:,}' for n in tensors[0].shape)} values"
    return f"{len(tensors)} tensors, {sum(t.numel() for t in tensors):,} values"


def _bytes(part: Shared) -> int:
    return sum(t.numel() * t.element_size() for t in tensors_in(part))
