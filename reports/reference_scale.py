"""Where a run's rate stands among reference federations, whose results ship with fedaudit.

`benchmarks/reference_federations.py` made them, with one attack on one set of faces. A place among
them says how a number compares with well-known settings; it is no probability, and says nothing of
how many real federations leak.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from fedaudit.reports.comparison import Row
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.results import Results

FILE = Path(__file__).parent / "reference_federations.json"
_FACES = {"orl": "ORL", "openpeople": "OpenPeople"}
FEWEST, PEOPLE = 10, 5
"""References, and people of a run, from which a place among them is worth saying."""


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
        what: What they are, in words.
    """

    value: float
    others: tuple[tuple[float, int], ...]
    lower: int
    equal: int
    higher: int
    what: str

    @property
    def sentence(self) -> str:
        """The place in words.

        >>> Scale(0.5, (), 3, 0, 1, "").sentence
        'Worse than 3 of 4 federations that were attacked here for comparison; better than 1.'
        """
        places = {"worse than": self.lower, "the same as": self.equal, "better than": self.higher}
        parts = [f"{word} {number}" for word, number in places.items() if number]
        first = f"{parts[0]} of {self.count} federations that were attacked here for comparison"
        sentence = "; ".join([first, *parts[1:]])
        return f"{sentence[:1].upper()}{sentence[1:]}."

    @property
    def count(self) -> int:
        """How many references there are."""
        return self.lower + self.equal + self.higher


@cache
def read_references() -> tuple[Reference, ...]:
    """All that ship with fedaudit."""
    references: tuple[Reference, ...] = TypeAdapter(tuple[Reference, ...]).validate_python(
        json.loads(FILE.read_text("utf-8"))
    )
    return references


def scale(results: Results, row: Row | None) -> Scale | None:
    """The place of a row among the references; None where there is nothing to compare it with.

    Comparable are simulated federations of faces at the same image size, under the same threat
    model, counted in the same unit.
    """
    if row is None or row.reid is None or row.reid.n < PEOPLE or results.subject != "people":
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
    return Scale(
        value=row.reid.value,
        others=tuple((value, values.count(value)) for value in sorted(set(values))),
        lower=sum(value < row.reid.value for value in values),
        equal=sum(value == row.reid.value for value in values),
        higher=sum(value > row.reid.value for value in values),
        what=_kinds(same),
    )


def _kinds(references: Sequence[Reference]) -> str:
    """What they are, how many of each kind, and what a place among them is not."""
    first = references[0]
    fresh = sum(one.round == 1 for one in references)
    people = sorted(one.n for one in references)
    spread = f"{people[0]} to {people[-1]}" if people[0] < people[-1] else f"{people[0]}"
    names = {
        "faces of": {_FACES.get(one.data, one.data) for one in references},
        "networks": {one.network.replace("_", " ") for one in references},
        "defenses": {defense_name(one.defense) for one in references},
        "attacks": {attack_name(one.attack) for one in references},
    }
    lists = "; ".join(f"{kind}: {', '.join(sorted(values))}" for kind, values in names.items())
    return (
        f"{fresh} fresh models and {len(references) - fresh} trained ones, {spread} {first.unit} "
        f"each, at {first.size} px, threat model {first.threat_model}; {lists}. Attacked on "
        f"{first.date} by fedaudit {first.build} (benchmarks/reference_federations.py), without "
        "controls. So few people place a federation roughly. A place among settings that were "
        "tried is no probability: their data and attacks may be easier or harder than yours."
    )
