"""The trials of a run, grouped and paired for the statistics."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from fedaudit.core.trial import Cell, ImageScore, Trial

Place = tuple[int, int, int]
"""(target, seed, image): what pairs a score with the same photo's score elsewhere."""


@dataclass(frozen=True)
class Group:
    """All trials of one scenario × defense × attack × role."""

    trials: tuple[Trial, ...]

    def __bool__(self) -> bool:
        return bool(self.trials)

    @property
    def cell(self) -> Cell:
        """Any of its cells: they differ in target and seed only."""
        return self.trials[0].cell

    @property
    def adaptive(self) -> str:
        """Whether the attack took the defense into account, on most targets; "no" on a tie.

        What an attack reads off updates may show in some of them only.
        """
        counts = Counter(trial.adaptive for trial in self.trials)
        return max(counts, key=lambda word: (counts[word], word == "no"))

    def scores(self) -> dict[Place, ImageScore]:
        """Every image's score by its place."""
        return {
            (trial.cell.target, trial.cell.seed, k): image
            for trial in self.trials
            for k, image in enumerate(trial.images)
        }

    def metric(self, name: str) -> list[float] | None:
        """A metric of each image; None where it was not measured on all of them."""
        images = [image for trial in self.trials for image in trial.images]
        is_complete = all(name in image.metrics for image in images)
        return [image.metrics[name] for image in images] if is_complete else None

    @property
    def people(self) -> list[str]:
        """The person of each image, in the order of `metric`: the clusters of the statistics."""
        return [image.person for trial in self.trials for image in trial.images]

    def tested(self) -> bool:
        """Whether every image has a re-identification outcome."""
        return bool(self.trials) and all(
            image.reidentified is not None for trial in self.trials for image in trial.images
        )


@dataclass(frozen=True)
class Trials:
    """All finished trials of a run."""

    all: tuple[Trial, ...]

    def group(self, scenario: str, defense: str, attack: str, role: str = "audit") -> Group:
        """The trials of one line of the comparison in which there was something to attack.

        Empty where none is finished.
        """
        mine = self._of(scenario, defense, attack, role)
        return Group(tuple(t for t in mine if not t.not_attacked))

    def idle(self, scenario: str, defense: str, attack: str) -> Group:
        """The audit trials of one line in which there was nothing for the attack to attack."""
        mine = self._of(scenario, defense, attack, "audit")
        return Group(tuple(t for t in mine if t.not_attacked))

    def audited(self, scenario: str, defense: str) -> tuple[Trial, ...]:
        """All audit trials of a scenario under a defense, those without anything to attack too."""
        mine = (t for t in self.of_role("audit") if t.cell.scenario == scenario)
        return tuple(t for t in mine if t.cell.defense == defense)

    def _of(self, *key: str) -> Iterator[Trial]:
        return iter(self._lines.get(key, ()))

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], list[Trial]]:
        lines: defaultdict[tuple[str, ...], list[Trial]] = defaultdict(list)
        for trial in self.all:
            lines[_key(trial.cell)].append(trial)
        return dict(lines)

    def of_role(self, role: str) -> Iterator[Trial]:
        """All trials of one role."""
        return (trial for trial in self.all if trial.cell.role == role)


def _key(cell: Cell) -> tuple[str, str, str, str]:
    return cell.scenario, cell.defense, cell.attack, cell.role
