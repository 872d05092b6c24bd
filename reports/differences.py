"""What changed from one run to another, and whether it can be called better or worse."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from scipy.stats import fisher_exact

from fedaudit.reports.comparison import Row
from fedaudit.reports.results import Finding, Results
from fedaudit.stats.intervals import holm

Word = Literal["new", "gone", "worse", "better", "no difference shown", "not comparable"]
ALPHA = 0.05


@dataclass(frozen=True)
class RowChange:
    """One line of the comparison in both runs.

    Attributes:
        before, after: Of the earlier and of the later run; None where it has no such line.
        word: What may be said of the re-identification rate.
        why: What differs beside the code, so that the two cannot be compared.
        p_value: Two-sided, exact (Fisher), adjusted (Holm) over all lines that were compared; None
            where none was made.
    """

    before: Row | None
    after: Row | None
    word: Word
    why: tuple[str, ...] = ()
    p_value: float | None = None


@dataclass(frozen=True)
class Differences:
    """What differs between two runs of a study, the earlier and the later.

    Attributes:
        unlike: What differs between the runs as a whole (data, judge): nothing is comparable then.
        rows: Every line that either has.
        new, gone: Findings by their fingerprints.
        changed: Findings of both whose severity changed, earlier and later.
    """

    unlike: tuple[str, ...]
    rows: tuple[RowChange, ...]
    new: tuple[Finding, ...]
    gone: tuple[Finding, ...]
    changed: tuple[tuple[Finding, Finding], ...]


def compare_runs(before: Results, after: Results) -> Differences:
    """Compare two runs line by line; "better" and "worse" only of like with like.

    The rates are taken as of different people, which is cautious where they are the same.
    """
    unlike = tuple(_unlike_runs(before, after))
    old, new = ({_place(row): row for row in r.rows} for r in (before, after))
    changes = [
        _change(old.get(place), new.get(place), unlike) for place in dict.fromkeys([*old, *new])
    ]
    then = {f.fingerprint: f for f in before.findings}
    now = {f.fingerprint: f for f in after.findings}
    return Differences(
        unlike=unlike,
        rows=_adjust(changes),
        new=tuple(f for key, f in now.items() if key not in then),
        gone=tuple(f for key, f in then.items() if key not in now),
        changed=tuple(
            (then[key], f)
            for key, f in now.items()
            if key in then and then[key].severity != f.severity
        ),
    )


def _place(row: Row) -> tuple[str, str, str]:
    return row.scenario, row.defense, row.attack


def _change(before: Row | None, after: Row | None, unlike: tuple[str, ...]) -> RowChange:
    if before is None:
        return RowChange(None, after, "new")
    if after is None:
        return RowChange(before, None, "gone")
    why = (*unlike, *_unlike_rows(before, after))
    if why or before.reid is None or after.reid is None:
        return RowChange(before, after, "not comparable", why or ("identity was not tested",))
    counts = [[r.hits, r.n - r.hits] for r in (before.reid, after.reid)]
    p_value = float(fisher_exact(counts).pvalue)
    word: Word = "worse" if after.reid.value > before.reid.value else "better"
    return RowChange(before, after, word, p_value=p_value)


def _adjust(changes: list[RowChange]) -> tuple[RowChange, ...]:
    p_values = iter(holm([c.p_value for c in changes if c.p_value is not None]))
    table = []
    for change in changes:
        p_value = None if change.p_value is None else next(p_values)
        is_significant = p_value is None or p_value <= ALPHA
        word: Word = change.word if is_significant else "no difference shown"
        table.append(RowChange(change.before, change.after, word, change.why, p_value))
    return tuple(table)


def _unlike_runs(before: Results, after: Results) -> Iterator[str]:
    yield from _differing(
        {
            "data": (before.provenance.data, after.provenance.data),
            "photos, by their hash": (_photos(before), _photos(after)),
            "false match rate": (before.settings.fmr, after.settings.fmr),
            "judge": (_judges(before), _judges(after)),
        }
    )


def _photos(results: Results) -> str:
    """Folders of one name may hold others today."""
    return results.provenance.hashes.get("faces", "")[:12]


def _judges(results: Results) -> tuple[tuple[str, int, str], ...]:
    return tuple(
        dict.fromkeys((c.judge, c.image_size, f"{c.threshold:.3f}") for c in results.ceilings)
    )


def _unlike_rows(before: Row, after: Row) -> Iterator[str]:
    yield from _differing(
        {
            name: (getattr(before, name), getattr(after, name))
            for name in (
                *("threat_model", "network", "method", "round", "batch_size", "adaptive"),
                "attack_settings",
            )
        }
    )
    yield from _differing({"attack's steps": (_effort(before), _effort(after))})
    if before.reid and after.reid:
        yield from _differing({"units": (before.reid.unit, after.reid.unit)})


def _effort(row: Row) -> tuple[int, int] | None:
    effort = row.measurement.effort if row.measurement else None
    return (effort.steps, effort.restarts) if effort else None


def _differing(pairs: Mapping[str, tuple[object, object]]) -> Iterator[str]:
    for name, (old, new) in pairs.items():
        if old != new:
            yield f"{name.replace('_', ' ')}: {old} → {new}"
