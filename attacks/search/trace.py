"""The trace of a search: history of the objective, progress reports, and the time limit."""

import math
import time
from dataclasses import dataclass, field

from fedaudit.core.protocols import Progress


@dataclass
class Trace:
    """Counts steps, keeps a thinned history, reports progress, and knows when time is up.

    Args:
        steps: How many are expected.
        progress: Called with (step, steps, objective) every tenth step.
        seconds: Wall-clock limit; None for none. Results then depend on the machine.
    """

    steps: int
    progress: Progress | None = None
    seconds: float | None = None
    step: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._deadline = math.inf if self.seconds is None else time.monotonic() + self.seconds

    @property
    def time_is_up(self) -> bool:
        """Whether the wall-clock limit has passed."""
        return time.monotonic() >= self._deadline

    def add(self, value: float) -> None:
        """One more step, whose objective was `value`."""
        self.step += 1
        if self.step % 10 == 0 or self.step == self.steps:
            self.history.append((self.step, value))
            if self.progress:
                self.progress(min(self.step, self.steps), self.steps, value)
