"""What each shared thing adds: exact Shapley values over the artifacts of one observation.

Players: every kind of thing that was shared; the update, which is the largest, in groups of layers
(the body's first and second half, the embedding, the head …); and the knowledge of the labels,
whether the scenario grants it or not. A coalition is what the attacker is shown. Its value is the
leakage of the best attack (by its own objective) on exactly that, mean SSIM over the target's
images, and beside it the identity cosine. Nobody's value, and that of labels alone, is the
prior-only control: what the attack makes of an invented person's update. So the values of all
players add up to what the whole observation gives beyond the prior.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from fedaudit.captures.simulate.exposed_things import names_of
from fedaudit.core.errors import AttackError, ConfigError
from fedaudit.core.measures import Estimate
from fedaudit.core.observation import Observation
from fedaudit.core.shared import kind_of
from fedaudit.reports.explanation import Game, Player
from fedaudit.why.explained_scenario import Measurement, Subject
from fedaudit.why.layers import layers_of, update_of
from fedaudit.why.leaks import Cut, Leak, estimate
from fedaudit.why.shapley import MOST, coalitions, exact

LABELS = "labels (knowledge)"


def players_of(seen: Observation) -> dict[str, tuple[str, ...]]:
    """Players by name, each with what `expose` is to show; `LABELS` shows nothing of what was sent.

    Raises:
        ConfigError: More than `MOST` players.
    """
    players: dict[str, tuple[str, ...]] = {}
    try:
        update, payload = update_of(seen)
    except AttackError:
        update, layers = "", {}
    else:
        layers = layers_of(payload.tensors)
    for name, other in zip(names_of(seen.shared), seen.shared, strict=True):
        if name == update:
            players |= {
                group: tuple(f"{name}:{prefix}" for layer in members for prefix in layers[layer])
                for group, members in _groups(list(layers)).items()
            }
        else:
            players[kind_of(other).replace("_", " ") + name.removeprefix(kind_of(other))] = (name,)
    players[LABELS] = ()
    if len(players) > MOST:
        raise ConfigError(
            f"{len(players)} shared things have 2^{len(players)} coalitions, and exact Shapley "
            f"values stop at {MOST}: use expose in the scenario to leave some out."
        )
    return players


def measurements(subject: Subject) -> list[Measurement[Leak | None]]:
    """Every coalition that shows something, and the prior, on `subject.targets` targets."""
    players = players_of(subject.captured(0).seen)
    cuts = [_cut(players, coalition) for coalition in coalitions(list(players))]
    whole, targets = _everything(subject), range(subject.targets)
    audits = [subject.leak(cut, t) for t in targets for cut in (whole, *cuts) if cut]
    return audits + [subject.leak(whole, t, role="invented") for t in targets]


def explain(subject: Subject) -> Game:
    """Exact Shapley values for each of `subject.targets` targets, and means with intervals."""
    players = players_of(subject.captured(0).seen)
    names = list(players)
    every = coalitions(names)
    tables: list[dict[frozenset[str], Leak]] = []
    unread: set[frozenset[str]] = set()
    for target in range(subject.targets):
        nothing = subject.get(subject.leak(_everything(subject), target, role="invented"))
        if nothing is None:
            raise AttackError("none of the scenario's attacks reads what is shared")
        tables.append({})
        for coalition in every:
            cut = _cut(players, coalition)
            leak = subject.get(subject.leak(cut, target)) if cut else None
            if leak is None:  # nothing that an attack reads: it has its prior, and no more
                unread |= {coalition} if coalition - {LABELS} else set()
                leak = nothing
            tables[-1][coalition] = leak
    people = [table[frozenset(names)].people for table in tables]
    has_judge = all(leak.cosine is not None for table in tables for leak in table.values())
    values = [exact(names, partial(_ssim, table)) for table in tables]
    identities = [exact(names, partial(_cosine, table)) for table in tables if has_judge]

    def mean_of(coalition: Sequence[str]) -> Estimate:
        return estimate([table[frozenset(coalition)].ssim for table in tables], people)

    return Game(
        players=tuple(
            Player(
                name=name,
                alone=mean_of([name]),
                ssim=estimate([value[name] for value in values], people),
                identity=estimate([value[name] for value in identities], people)
                if has_judge
                else None,
            )
            for name in names
        ),
        nobody=mean_of([]),
        everybody=mean_of(names),
        method=f"exact, 2^{len(names)} coalitions a target",
        coalitions=len(every),
        unread=len(unread),
    )


def _ssim(table: Mapping[frozenset[str], Leak], coalition: frozenset[str]) -> float:
    return table[coalition].ssim


def _cosine(table: Mapping[frozenset[str], Leak], coalition: frozenset[str]) -> float:
    return table[coalition].cosine or 0.0


def _groups(layers: list[str]) -> dict[str, list[str]]:
    """Layers joined to few players: halves of what has numbered modules, else the parts."""
    parts: dict[str, list[str]] = {}
    for layer in layers:
        parts.setdefault(layer.partition(".")[0], []).append(layer)
    groups: dict[str, list[str]] = {}
    for part, members in parts.items():
        half = len(members) // 2
        if half:
            groups[f"{part}, first half"], groups[f"{part}, second half"] = (
                members[:half],
                members[half:],
            )
        else:
            groups[part] = members
    return groups


def _cut(players: dict[str, tuple[str, ...]], coalition: frozenset[str]) -> Cut | None:
    """What a coalition shows; None where that is nothing of what was shared."""
    only = tuple(name for player in players if player in coalition for name in players[player])
    return Cut(only, LABELS in coalition) if only else None


def _everything(subject: Subject) -> Cut:
    """All that was shared, without the labels: its control is the prior."""
    return Cut(None, None if subject.captured(0).seen.labels is None else False)
