"""How figures of an explanation show a value: in a lane of the chart, in a cell of the table."""

from typing import Any

from fedaudit.core.measures import Estimate, Rate
from fedaudit.reports.explanation import Leakage
from fedaudit.reports.lanes import bounds
from fedaudit.reports.text import ABSENT, NBSP, estimate_range, number, percent, rate_range

LEAK_COLUMNS = (
    "SSIM ↓ (−1–1) [95 % CI]",
    "Prior only ↓ (SSIM)",
    "Excess ↓ (SSIM)",
    "Identity cosine ↓ (−1–1)",
    "Re-identified ↓ (%, 0–100)",
    "Rank-1 ↓ (%, 0–100)",
)
"""Headers of `leak_cells`."""
NOTES = 136
"""Room for "−0.04 [−0.06, −0.14]" beside a lane, in pixels."""


def mean_cell(value: Estimate | None) -> str:
    """A mean with its interval, in one line."""
    if value is None:
        return ABSENT
    return f"{unbroken(f'{number(value.value)} {estimate_range(value)}')} n={value.n}"


def unbroken(text: str) -> str:
    """Without a place to break the line."""
    return text.replace(" ", NBSP)


def leak_cells(leak: Leakage | None) -> tuple[str, ...]:
    """What a row of a table says of one leakage, under `LEAK_COLUMNS`."""
    if leak is None:
        return ("— not tested", *[ABSENT] * 5)
    return (
        mean_cell(leak.ssim),
        mean_cell(leak.prior),
        mean_cell(leak.excess),
        mean_cell(leak.cosine),
        rate_cell(leak.reid),
        rate_cell(leak.rank1),
    )


def rate_cell(value: Rate | None) -> str:
    """A rate with its interval and what was counted."""
    if value is None:
        return ABSENT
    hits = f"{value.hits} of {value.n}"
    return f"{unbroken(f'{percent(value.value)} {rate_range(value)}')} {unbroken(hits)}"


def percent_cell(value: Estimate | None) -> str:
    """A mean share with its interval, in percent."""
    if value is None:
        return ABSENT
    low, high = (percent(max(0.0, end), unit=False) for end in (value.low, value.high))
    return unbroken(f"{percent(value.value)} [{low}, {high}]")


def leak_record(group: str, lane: str, leak: Leakage | None) -> dict[str, Any]:
    """The SSIM of one leakage in its lane, beside prior-only; as `lanes.intervals` takes it."""
    ssim = leak.ssim if leak else None
    record = mean_record(group, lane, ssim)
    return {**record, "prior": leak.prior.value if leak else None}


def mean_record(group: str, lane: str, value: Estimate | None) -> dict[str, Any]:
    """A mean with its interval in its lane, as `lanes.intervals` takes it."""
    return {
        "group": group,
        "lane": lane,
        **bounds(value),
        "prior": None,
        "note": f"{number(value.value)} {estimate_range(value)}" if value else "— not tested",
    }
