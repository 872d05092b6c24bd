"""What an audit of a recorded run says of it, in text that a terminal and a study can hold."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedaudit.captures.format.capture_facts import Facts
from fedaudit.captures.inspect.inspection import Inspection
from fedaudit.core.observation import Observation
from fedaudit.core.printable import printable
from fedaudit.core.recorded_run import Protection, RecordedRun, RecordedTarget

ROUNDED = (
    "The recording rounded each number of an update, by 0.05 % of it at most: an attack that needs "
    "more digits was not tested. "
)
"""Of a recording in half precision."""
SHOWN = 40
"""Anomalies and problems that a report lists one by one."""


def some(lines: Sequence[str]) -> tuple[str, ...]:
    """The first few of many lines, and how many more there are."""
    excerpt = tuple(printable(line) for line in lines[:SHOWN])
    more = len(lines) - len(excerpt)
    return (*excerpt, f"and {more} more: `fedaudit inspect` lists them") if more > 0 else excerpt


def protection(one: Protection) -> Protection:
    """A protection in text that a terminal can show."""
    return replace(one, name=printable(one.name), evidence=printable(one.evidence))


def training_text(seen: Observation, assumed: Sequence[str]) -> str:
    """How clients trained, and what of it was assumed."""
    training, text = seen.training, "local training is not known"
    if training is not None:
        text = (
            f"recorded update: {training.steps} local step(s) of batch {training.batch_size}, "
            f"{training.optimizer}, lr {training.lr:g}"
        )
    return text + (f"; assumed, not stated: {', '.join(assumed)}" if assumed else "")


def description(
    targets: Sequence[RecordedTarget], facts: Facts, truth: Mapping[str, Path], gallery: Path | None
) -> str:
    """What was recorded and what is known of it, in a few sentences."""
    clients = {target.client for target in targets}
    whom = _many(len(clients), "client")
    if len(clients) == 1 and next(iter(clients)).startswith("aggregate of"):
        whom = f"an {next(iter(clients))}"
    rounds = sorted({target.round for target in targets})
    sizes = sorted({target.images for target in targets if target.images})
    behind = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0] if sizes else '—'}"
    with_truth = sum(bool(target.truth) for target in targets)
    comparison = (
        f"The originals of {with_truth} of them are known from the auditor."
        if truth
        else "Nobody knows their originals here."
    )
    search = " Faces are looked for in a gallery." if gallery else ""
    return (
        f"{_many(len(targets), 'update')} of {whom}, recorded in round(s) "
        f"{', '.join(map(str, rounds[:12]))}{' …' if len(rounds) > 12 else ''}"
        f"{f' of {printable(facts.framework)}' if facts.framework else ''}, each of {behind} "
        f"image(s). {_sample(facts)}{ROUNDED if facts.precision else ''}"
        f"{comparison}{search}"
    )


def _sample(facts: Facts) -> str:
    if facts.sampled is None:
        return ""
    share = f"{100 * facts.sampled:.3g} %"
    return f"Of all messages {share} were recorded, drawn by client and round. "


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def notes(run: RecordedRun, inspection: Inspection) -> list[str]:
    """What to say before a run starts, a sentence each."""
    remarks = []
    if run.assumed:
        remarks.append(f"assumed, as nothing else was stated: {', '.join(run.assumed)}")
    remarks += [f"unusual: {anomaly}" for anomaly in run.anomalies]
    remarks += [f"found out, but not stated: {printable(text)}" for text in inspection.found_out]
    for one in inspection.protections:
        remarks.append(f"{'FAULT, ' if one.fault else ''}{one.name}: {printable(one.evidence)}")
    remarks += [f"left out: {one['attack']} misses {one['missing']}" for one in run.left_out]
    if run.unidentified:
        names = ", ".join(run.unidentified)
        remarks.append(f"not in the gallery, hence not identified: {names}")
    remarks += [f"cannot be used: {problem}" for problem in run.problems]
    return remarks
