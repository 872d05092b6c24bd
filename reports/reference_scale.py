"""Where a run's rate stands among reference federations, whose results ship with fedaudit.

`benchmarks/reference_federations.py` made them, with one attack on one set of faces. A place among
them says how a number compares with well-known settings; it is no probability, and says nothing of
how many real federations leak.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from fedaudit.reports.comparison import Row
from fedaudit.reports.results import Results

FILE = Path(__file__).parent / "reference_federations.json"
FEWEST = 10
"""References from which a place among them is worth saying."""


@dataclass(frozen=True)
class Reference:
    """One federation that was attacked for comparison.

    Attributes:
        steps: Local steps of the audited client.
        settings: Of the defense.
        hits, n: How many of how many `unit` were re-identified.
        date: When it was attacked.
        build: Version and commit that did it.
    """

    data: str
    size: int
    network: str
    method: str
    round: int
    batch_size: int
    steps: int
    defense: str
    settings: Mapping[str, float | int | str | bool]
    attack: str
    threat_model: str
    hits: int
    n: int
    unit: str
    date: str
    build: str

    @property
    def value(self) -> float:
        """The rate."""
        return self.hits / self.n


@dataclass(frozen=True)
class Scale:
    """A rate among those of the references that it can be compared with.

    Attributes:
        value: The run's.
        others: Rate and number of references at it, rising.
        lower, equal, higher: How many references have a lower, the same or a higher rate.
        people: How many each reference has, at least.
        what: What they are, in words.
    """

    value: float
    others: tuple[tuple[float, int], ...]
    lower: int
    equal: int
    higher: int
    people: int
    what: str

    @property
    def count(self) -> int:
        """How many references there are."""
        return self.lower + self.equal + self.higher


@cache
def read_references() -> tuple[Reference, ...]:
    """All that ship with fedaudit."""
    known: tuple[Reference, ...] = TypeAdapter(tuple[Reference, ...]).validate_python(
        json.loads(FILE.read_text("utf-8"))
    )
    return known


def scale(results: Results, row: Row | None) -> Scale | None:
    """The place of a row among the references; None where there is nothing to compare it with.

    Comparable are simulated federations of faces at the same image size, under the same threat
    model, counted in the same unit.
    """
    if row is None or row.reid is None or not row.reid.n or results.subject != "people":
        return None
    if row.measurement is None or row.measurement.searched or row.measurement.of != "photos":
        return None
    sizes = {c.image_size for c in results.ceilings if c.scenario in {row.scenario, "all"}}
    same = [
        one
        for one in read_references()
        if {one.size} == sizes
        and one.threat_model == row.threat_model
        and one.unit == row.reid.unit
        and results.provenance.data != "recorded"
    ]
    if len(same) < FEWEST:
        return None
    values = sorted(one.value for one in same)
    first = same[0]
    return Scale(
        value=row.reid.value,
        others=tuple((value, values.count(value)) for value in sorted(set(values))),
        lower=sum(value < row.reid.value for value in values),
        equal=sum(value == row.reid.value for value in values),
        higher=sum(value > row.reid.value for value in values),
        people=min(one.n for one in same),
        what=(
            f"{first.data.upper()} faces at {first.size} px, threat model {first.threat_model}, "
            f"attacked with {first.attack} on {first.date} by fedaudit {first.build}"
        ),
    )
