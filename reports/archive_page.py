"""Pages over many runs: the list, and what changed between two of them; pure functions."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import pairwise

from fedaudit.core.version import VERSION
from fedaudit.reports import text
from fedaudit.reports.archive import RunSummary, plain
from fedaudit.reports.difference_table import HEADS, difference_table
from fedaudit.reports.differences import Differences, compare_runs
from fedaudit.reports.html import page, scripts
from fedaudit.reports.results import Results
from fedaudit.reports.serialization import canonical_bytes

SECTIONS = (("runs", "Runs"), ("reading", "How to read it"))


def run_id(run: RunSummary) -> str:
    """A name of a run that is safe in an address, whatever its folder is called."""
    return sha256(run.name.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def predecessors(runs: Sequence[RunSummary]) -> dict[str, RunSummary]:
    """By `run_id`, the run of the same study before it; both must be readable."""
    before = {}
    for name in dict.fromkeys(run.study for run in runs):
        same = [run for run in runs if run.study == name and run.state != "unreadable"]
        for later, earlier in pairwise(sorted(same, key=lambda run: run.started, reverse=True)):
            before[run_id(later)] = earlier
    return before


def index_page(runs: Sequence[RunSummary], title: str, *, live: bool) -> str:
    """The list of runs. Links lead to `runs/ID/…` and `diffs/ID-ID.html` beside it.

    Args:
        runs: In their order.
        title: What was listed.
        live: It is served: any two runs can be compared, and pages are opened as they are kept.
    """
    before = predecessors(runs)
    rows = [(run_id(run), text.clean(run), before.get(run_id(run)), _rate(run)) for run in runs]
    content = {
        "rows": [(i, run, run_id(b) if b else "", rate) for i, run, b, rate in rows],
        "title": text.visible(title),
        "live": live,
        "version": VERSION,
        "schema": f"{len(runs)} run{'' if len(runs) == 1 else 's'}",
        "source": "reading",
    }
    data = json.dumps([plain(run) for run in runs], sort_keys=True, ensure_ascii=True)
    return page(
        "archive.html",
        content,
        SECTIONS,
        evidence="none",
        digest=sha256(data.encode()).hexdigest(),
        script=scripts()[1],
        form_action="'self'" if live else "'none'",
    )


def difference_page(before: Results, after: Results, names: tuple[str, str]) -> str:
    """What changed between two runs.

    Args:
        before: The earlier one.
        after: The later one.
        names: What they are called.
    """
    differences: Differences = compare_runs(before, after)
    both = sha256(canonical_bytes(before) + canonical_bytes(after)).hexdigest()
    content = {
        "d": text.clean(differences),
        "heads": HEADS,
        "rows": difference_table(differences),
        "names": tuple(map(text.visible, names)),
        "version": VERSION,
        "schema": "difference of two runs",
        "source": "changes",
    }
    sections = (("changes", "What changed"), ("findings", "Findings"))
    return page("difference.html", content, sections, evidence="none", digest=both)


def difference_json(found: Differences) -> dict[str, object]:
    """The same as plain data."""
    return {
        "unlike": found.unlike,
        "rows": [
            {
                "scenario": row.scenario,
                "defense": row.defense,
                "attack": row.attack,
                "before": asdict(c.before.reid) if c.before and c.before.reid else None,
                "after": asdict(c.after.reid) if c.after and c.after.reid else None,
                "change": c.word,
                "why": c.why,
                "p_value": c.p_value,
            }
            for c in found.rows
            if (row := c.after or c.before)
        ],
        "new": [asdict(f) for f in found.new],
        "gone": [asdict(f) for f in found.gone],
        "changed": [[asdict(old), asdict(new)] for old, new in found.changed],
    }


def _rate(run: RunSummary) -> str:
    return text.ABSENT if run.reid is None else text.counted(run.reid)
