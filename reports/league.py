"""The league table: one line a defense, the one that leaks most first."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any
from urllib.parse import quote

from fedaudit.core import claims
from fedaudit.core.measures import Utility
from fedaudit.reports import text
from fedaudit.reports.comparison import ADAPTED, GRAVITY, DefenseLine
from fedaudit.reports.guarantees import guarantee
from fedaudit.reports.plain_names import attack_name, defense_name
from fedaudit.reports.results import Results
from fedaudit.reports.text import ABSENT, rounded

UNTESTED = -1.0
"""Where a line without a rate stands: last."""


@dataclass(frozen=True)
class League:
    """The table with what it can be downloaded as.

    Attributes:
        lines: Sorted by what leaks, most first; of equal rates the graver verdict.
        scenarios: Of the lines, in the order of the study.
        csv, json: `data:` addresses of the numbers behind the table.
        trainings: Which column is of which training, a sentence for scenarios that train alike.
    """

    lines: tuple["LeagueLine", ...]
    scenarios: tuple[str, ...]
    csv: str
    json: str
    trainings: tuple[str, ...]


@dataclass(frozen=True)
class LeagueLine:
    """One line as the page shows it.

    Attributes:
        defense: Its plain name.
        settings: What the study set, as text.
        attack: The strongest attack's plain name; "" where none was run.
        adaptive: What that attack knows of the defense, in words.
        leak: Sorts by leakage: rate, then its lower bound.
        lost: Points of accuracy lost against no defense; None where not measured.
        accuracy: Of the federation with it; None where not measured.
        why: Why that was not measured; "" where it was, or nothing is known.
        price: Times of a client's work, and bytes, in words.
        guarantee: ε with its unit, of the audited update and of the training whose accuracy it is;
            or what stands in its place.
    """

    source: DefenseLine
    defense: str
    settings: str
    attack: str
    adaptive: str
    leak: float
    lost: float | None
    accuracy: Utility | None
    why: str
    price: str
    guarantee: str


def league(results: Results) -> League:
    """All lines of the comparison of defenses."""
    # Of equal rates the graver verdict: a trace of identity is more than what is inconclusive.
    lines = sorted(
        map(_line, results.defenses),
        key=lambda line: (-line.leak, GRAVITY.index(line.source.verdict)),
    )
    return League(
        lines=tuple(lines),
        scenarios=tuple(dict.fromkeys(line.scenario for line in results.defenses)),
        csv="data:text/csv;charset=utf-8," + quote(csv_of(results)),
        json="data:application/json," + quote(json_of(results)),
        trainings=tuple(_trainings(results)),
    )


def record(line: DefenseLine) -> dict[str, Any]:
    """Numbers of a line as a record; None is "not measured"."""
    m, worth = line.measurement, line.utility
    reid, prior = line.reid, m.prior if m else None
    return {
        "scenario": line.scenario,
        "defense": line.defense,
        "name": line.name,
        "settings": json.dumps(dict(line.settings), sort_keys=True),
        "role": line.role,
        "verdict": line.verdict,
        "strongest_attack": line.attack,
        "adaptive": line.adaptive,
        "reidentified": reid and reid.hits,
        "of": reid and reid.n,
        "unit": reid and reid.unit,
        "rate": reid and reid.value,
        "rate_low": reid and reid.low,
        "rate_high": reid and reid.high,
        "prior_only_rate": prior and prior.value,
        "accuracy": worth and worth.accuracy.value,
        "accuracy_untrained": worth and worth.untrained.value,
        "accuracy_lost": line.accuracy_lost and line.accuracy_lost.value,
        "overhead": worth and worth.overhead,
        "bytes_sent": worth and worth.bytes_sent,
        "accuracy_not_measured": text.TRAINS_SO if line.same_training else None,
        "guarantee": claims.in_short(line.claims, ""),
        "guarantee_of_training": claims.in_short(worth.training_claims if worth else (), ""),
    }


def json_of(results: Results) -> str:
    """The records of all lines as JSON."""
    return json.dumps([record(x) for x in results.defenses], indent=1, allow_nan=False) + "\n"


def csv_of(results: Results) -> str:
    """The records of all lines as CSV, with a head."""
    out, records = StringIO(), [record(line) for line in results.defenses]
    if records:
        writer = csv.DictWriter(out, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in line.items()} for line in records)
    return out.getvalue()


def _line(line: DefenseLine) -> LeagueLine:
    difference = line.accuracy_lost
    return LeagueLine(
        source=line,
        defense=defense_name(line.defense),
        settings=_settings(line),
        attack=attack_name(line.attack) if line.attack else "",
        adaptive=_adaptive(line),
        leak=UNTESTED if line.reid is None else line.reid.value + line.reid.low / 1e3,
        lost=None if difference is None else 100 * difference.value,
        accuracy=line.utility,
        why=f"accuracy and cost {text.TRAINS_SO}" if line.same_training else "",
        price=_price(line.utility),
        guarantee=guarantee(line),
    )


def _trainings(results: Results) -> Iterator[str]:
    alike: dict[tuple[str, str], list[str]] = {}
    for ledger in results.ledger:
        if ledger.federation:
            alike.setdefault((ledger.training, ledger.federation), []).append(ledger.scenario)
    for (update, whole), names in alike.items():
        where = f" in {', '.join(names)}" if len(results.ledger) > 1 else ""
        yield (
            f"Leaks{where} are of the {update}. Accuracy and cost{where} are of the federation's "
            f"training: {whole}."
        )


def _settings(line: DefenseLine) -> str:
    own = line.settings or {k: v for claim in line.claims for k, v in claim.settings.items()}
    return ", ".join(f"{key.replace('_', ' ')} = {_value(value)}" for key, value in own.items())


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return defense_name(str(value.get("name", "…")))
    if isinstance(value, list | tuple):
        return " + ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _adaptive(line: DefenseLine) -> str:
    if line.attack is None or line.name == "none":
        return ""
    if line.adaptive in ADAPTED:
        return "knows the defense"
    return "takes it for absent" if line.met_by_adaptive else "takes it for absent; no other ran"


def _price(worth: Utility | None) -> str:
    if worth is None:
        return ABSENT
    times = f"{rounded(worth.overhead)} × work" if worth.overhead is not None else ""
    bytes_text = ""
    if worth.bytes_sent and worth.plain_bytes_sent:
        bytes_text = f"{rounded(worth.bytes_sent / worth.plain_bytes_sent)} × bytes"
    return ", ".join(part for part in (times, bytes_text) if part) or ABSENT


def _cell(value: object) -> object:
    """A table cell that no spreadsheet takes for a formula."""
    risky = isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"}
    return f"'{value}" if risky else value
