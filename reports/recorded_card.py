"""A report of recorded updates: what explains them, and which fact would say more."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedaudit.reports.comparison import Row
from fedaudit.reports.measurement import Explained
from fedaudit.reports.results import Results

TRAINING = (
    "The facts of training: no attack explains these updates better than its controls do, and a "
    "wrong learning rate, number of local steps or normalization looks just like that. State them "
    "with fedaudit.recording(FOLDER, lr=…, local_steps=…) and audit again."
)
TRUTH = (
    "--truth CLIENT=DIR: the photos of one consenting client say how much of them came back, and "
    "whether it is the right person."
)
GALLERY = (
    "--gallery DIR: other photos of the people concerned, in a folder each, say whether anybody "
    "would recognize them."
)
NOTHING = "None that this command takes: more clients, or more rounds, narrow the intervals."


@dataclass(frozen=True)
class Explanations:
    """How much of a scenario's updates the attack explains that explains most of them.

    Attributes:
        controls: Name and mean cosine of each control that was run.
    """

    scenario: str
    attack: str
    explained: Explained

    @property
    def controls(self) -> tuple[tuple[str, float], ...]:
        """By name, in the order of the page."""
        e = self.explained
        pairs = (
            ("another client’s update", e.other),
            ("invented people’s images", e.prior),
            ("random images", e.noise),
        )
        return tuple((name, control.value) for name, control in pairs if control)


@dataclass(frozen=True)
class RecordedCard:
    """The card of a recorded run.

    Attributes:
        lines: One a scenario.
        wanted: The single fact that would say most, and how to give it.
    """

    lines: tuple[Explanations, ...]
    wanted: str


def recorded_card(results: Results) -> RecordedCard | None:
    """The card; None of a run that simulated its updates."""
    best: dict[str, tuple[Row, Explained]] = {}
    for row in results.rows:
        shares = row.measurement and row.measurement.explained
        if shares and (
            row.scenario not in best or shares.update.value > best[row.scenario][1].update.value
        ):
            best[row.scenario] = (row, shares)
    if not best:
        return None
    lines = tuple(Explanations(s, row.attack, known) for s, (row, known) in best.items())
    return RecordedCard(lines, _missing_fact([row for row, _ in best.values()]))


def _missing_fact(rows: Sequence[Row]) -> str:
    measurements = [row.measurement for row in rows if row.measurement]
    if not any(m.explained and m.explained.beyond_controls for m in measurements):
        return TRAINING
    if any(m.searched for m in measurements) or not any(m.ssim for m in measurements):
        return TRUTH
    return NOTHING if any(m.reid for m in measurements) else GALLERY
