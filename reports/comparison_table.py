"""What each defense buys, as the cells of a plain or Markdown table."""

from collections.abc import Sequence

from fedaudit.core.measures import Rate
from fedaudit.reports.results import DefenseLine
from fedaudit.reports.text import ABSENT, number, percent, points, signed, visible

COLUMNS = (
    "scenario",
    "defense",
    "strongest attack",
    "adaptive",
    "re-id",
    "blind",
    "adapted",
    "Holm p",
    "excess",
    "worst cosine",
    "SSIM",
    "LPIPS",
    "PSNR",
    "accuracy",
    "lost",
    "overhead",
    "kB sent",
    "ε",
    "dominated by",
)


def cells(line: DefenseLine) -> tuple[str, ...]:
    """One line's cells, in the order of `COLUMNS`; "—" is not tested or not measured."""
    utility = line.utility
    overhead = sent = accuracy = None
    if utility:
        accuracy, sent = utility.accuracy, utility.bytes_sent
        if utility.step_seconds and utility.plain_step_seconds:
            overhead = utility.step_seconds / utility.plain_step_seconds
    return (
        visible(line.scenario),
        visible(line.defense),
        visible(line.attack or ABSENT),
        line.adaptive or ABSENT,
        _rate(line.reid, interval=True),
        _rate(line.reid_blind),
        _rate(line.reid_adapted),
        ABSENT if line.p_holm is None else f"{line.p_holm:.2g}",
        points(line.excess),
        number(line.worst_cosine),
        number(line.ssim.value if line.ssim else None),
        number(line.lpips.value if line.lpips else None),
        number(line.psnr.value if line.psnr else None, 1),
        percent(accuracy),
        ABSENT if line.accuracy_lost is None else signed(-100 * line.accuracy_lost, 1),
        ABSENT if overhead is None else f"{number(overhead)} ×",
        ABSENT if sent is None else f"{sent / 1000:,.0f}",
        _epsilon(line),
        visible(line.dominated_by or ABSENT),
    )


def markdown(lines: Sequence[DefenseLine]) -> str:
    """A Markdown table; pipes in names are escaped."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, lines)]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows)


def _rate(rate: Rate | None, *, interval: bool = False) -> str:
    if rate is None:
        return ABSENT
    shown = f"{rate.hits}/{rate.n}"
    return f"{shown} ({100 * rate.low:.0f}–{100 * rate.high:.0f} %)" if interval else shown


def _epsilon(line: DefenseLine) -> str:
    if line.budget is None:
        return ABSENT
    return "∞" if line.budget.epsilon == float("inf") else f"{line.budget.epsilon:.3g}"
