"""How long a run still takes, from how long its finished jobs took."""

from collections import Counter
from collections.abc import Mapping


class RemainingTime:
    """Keeps the time that jobs took, by group; jobs of one group take about equally long.

    >>> estimate = RemainingTime({"a": "attack", "b": "attack", "c": "attack"}, workers=2)
    >>> estimate.finished("a", 10.0)
    >>> estimate.left()
    10.0

    Args:
        groups: Group of every job that is not done, by key.
        workers: How many jobs run at once.
    """

    def __init__(self, groups: Mapping[str, str], workers: int) -> None:
        self._open = dict(groups)
        self._workers = workers
        self._seconds: Counter[str] = Counter()
        self._count: Counter[str] = Counter()

    def seen(self, group: str, seconds: float) -> None:
        """A job of this group took that long, in this run or an earlier one."""
        self._seconds[group] += seconds  # type: ignore[assignment] # counters count floats too
        self._count[group] += 1

    def finished(self, key: str, seconds: float | None) -> None:
        """A job ended; None says that its time tells nothing, because it failed."""
        group = self._open.pop(key, "")
        if seconds is not None:
            self.seen(group, seconds)

    def left(self) -> float | None:
        """Seconds until all jobs are done; None before any was."""
        count = sum(self._count.values())
        if not count:
            return None
        mean = sum(self._seconds.values()) / count
        total = 0.0
        for group in self._open.values():
            known = self._count[group]
            total += self._seconds[group] / known if known else mean
        return total / max(1, min(self._workers, len(self._open)))


def duration_in_words(seconds: float) -> str:
    """A duration for people.

    >>> duration_in_words(7), duration_in_words(187), duration_in_words(7500)
    ('7 s', '3 min 7 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
