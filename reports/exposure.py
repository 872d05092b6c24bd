"""The exposure map: each thing that was sent × each attack on it, and what came of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.source import COMPLETE, SourceFacts
from fedaudit.core.trial import Sent, Trial
from fedaudit.reports.comparison import Exposure, Row
from fedaudit.reports.text import counted
from fedaudit.reports.trials import Trials

Rows = dict[tuple[str, str, str], Row]


def exposures(
    study: Study,
    trials: Trials,
    rows: tuple[Row, ...],
    source: SourceFacts = COMPLETE,
) -> tuple[Exposure, ...]:
    """All cells of the map, in the order of the study.

    A thing that an attack of the study attacks, or could, has a cell for each; one that none does
    has one cell, without an attack, that says so. What each attack reads was noted when the trial
    was run, so that the map does not depend on what is installed where it is drawn.
    """
    by_place = {(row.scenario, row.defense, row.attack): row for row in rows}
    cells: list[Exposure] = []
    for scenario in study.scenarios:
        state = source.model_states.get(scenario.name, "")
        for defense in scenario.defenses:
            group = trials.audited(scenario.name, defense.label)
            for name in dict.fromkeys(one.name for trial in group for one in trial.sent):
                thing = _Thing(study, scenario, group, name, state)
                cells += thing.cells(by_place) or [thing.untouched()]
    return tuple(cells)


@dataclass(frozen=True)
class _Thing:
    """One thing that was sent in one scenario under one defense."""

    study: Study
    scenario: Scenario
    audited: Sequence[Trial]
    name: str
    model_state: str

    @property
    def held(self) -> list[tuple[Trial, Sent]]:
        """Trials in which it was sent, each with what was sent."""
        return [(t, s) for t in self.audited for s in t.sent if s.name == self.name]

    @property
    def readers(self) -> tuple[str, ...]:
        """Names of the registered attacks that read it."""
        return tuple(dict.fromkeys(r for _, s in self.held for r in s.readers))

    def cells(self, rows: Rows) -> list[Exposure]:
        """One for each attack that attacks it, uses it, or could have been run on it."""
        return [cell for attack in _attacks(self.study) if (cell := self._by(attack, rows))]

    def untouched(self) -> Exposure:
        """The exposure of something that no attack reads."""
        return self._exposure(None, None, (), self._why())

    def _by(self, attack: Choice, rows: Rows) -> Exposure | None:
        in_scenario = any(attack.label == mine.label for mine in self.scenario.attacks)
        mine = (
            [(t, s) for t, s in self.held if t.cell.attack == attack.label] if in_scenario else []
        )
        together = _together(mine)
        cell = self.audited[0].cell
        row = rows.get((cell.scenario, cell.defense, attack.label))
        if any(s.read for _, s in mine):
            return self._exposure(attack.label, row, together, self._note(row, together))
        if any(s.used for _, s in mine):
            others = " + ".join(name for name in together if name != self.name)
            note = f"{attack.label} uses it beside {others}, where its result stands"
            return self._exposure(attack.label, None, together, note)
        # Of several updates attacks read the first, so that a second one is not theirs to miss.
        if not mine and attack.name in self.readers and "#" not in self.name:
            note = "not finished" if in_scenario else "not run in this scenario"
            return self._exposure(attack.label, None, (self.name,), note)
        return None

    def _note(self, row: Row | None, together: tuple[str, ...]) -> str:
        parts = []
        if row is None:
            parts.append("not finished")
        if len(together) > 1:
            parts.append(f"the result is of {' + '.join(together)} together")
        m = row.measurement if row else None
        if m and m.searched:
            parts.append("matches with somebody in the gallery")
        if m and m.of == "people" and m.reid:
            whose = "" if m.reid.unit == "people" else f"templates of {m.n_people} people: "
            parts.append(whose + counted(m.reid))
        with_it, targets = self._counts()
        if with_it < targets:
            parts.append(f"sent in {with_it} of {targets} targets")
        return "; ".join(parts)

    def _why(self) -> str:
        """Why no attack attacks it."""
        kind = self.name.partition("#")[0]
        names = {attack.name for attack in _attacks(self.study)}
        if elsewhere := [s.name for s in _siblings(self.study, self.scenario) if self._alone(s)]:
            return f"not attacked here: scenario {' and '.join(elsewhere)} shows it alone"
        if names & set(self.readers):
            return (
                f"not attacked: attacks read the first {kind} alone; a scenario with expose = "
                f'["{self.name}"] shows this one'
            )
        if self.readers:
            does = f"{_list(self.readers)} {'does' if len(self.readers) == 1 else 'do'}"
            return f"not attacked: no attack in this study reads {kind}; {does}"
        return f"not attacked: no attack reads kind {kind.replace('_', ' ')}"

    def _alone(self, other: Scenario) -> bool:
        return {e.partition(":")[0] for e in other.expose} == {self.name}

    def _counts(self) -> tuple[int, int]:
        with_it = {(t.cell.target, t.cell.seed) for t, _ in self.held}
        return len(with_it), len({(t.cell.target, t.cell.seed) for t in self.audited})

    def _exposure(
        self, attack: str | None, row: Row | None, together: tuple[str, ...], note: str
    ) -> Exposure:
        trial, thing = self.held[0]
        cell = trial.cell
        with_it, targets = self._counts()
        return Exposure(
            scenario=cell.scenario,
            network=cell.network,
            method=cell.method,
            round=cell.round,
            defense=cell.defense,
            artifact=_part(self.name, self.scenario.expose),
            summary=thing.summary,
            bytes=thing.bytes,
            sent=with_it,
            targets=targets,
            readers=self.readers,
            attack=attack,
            together=together,
            verdict=row.verdict.kind if row else "NOT TESTED",
            measurement=row.measurement if row else None,
            note=note,
            model_state=self.model_state,
        )


def _attacks(study: Study) -> list[Choice]:
    """Every attack of the study, once a label."""
    return list({a.label: a for s in study.scenarios for a in s.attacks}.values())


def _siblings(study: Study, scenario: Scenario) -> Iterator[Scenario]:
    """Other scenarios of the same method."""
    return (s for s in study.scenarios if s is not scenario and s.method == scenario.method)


def _together(mine: Sequence[tuple[Trial, Sent]]) -> tuple[str, ...]:
    """All that the attack attacks or uses at once in these trials."""
    return tuple(dict.fromkeys(s.name for t, _ in mine for s in t.sent if s.read or s.used))


def _part(name: str, expose: Sequence[str]) -> str:
    """The name, with the prefixes of the parameters that alone were shown."""
    prefixes = [e.partition(":")[2] for e in expose if e.partition(":")[0] == name]
    return name if not prefixes or "" in prefixes else f"{name}:{' + '.join(prefixes)}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
