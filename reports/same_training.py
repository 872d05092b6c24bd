"""Defenses under which a federation trained as without them, so that they have no accuracy there.

Some ask for no more than the federation already does: larger batches than one photo, where every
step takes sixteen. They change the audited update alone, and what their training is worth, or
takes, is what the undefended one is worth: nothing was measured of them.
"""

from collections.abc import Collection, Mapping
from typing import Any

from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.study.inventory import Inventory
from fedaudit.study.jobs import utility_jobs
from fedaudit.study.run_folder import MODELS, RunFolder

OF_TRAINING = frozenset({"larger_batch", "more_steps"})
"""Our defenses that act by local training alone. Of others equal weights say no such thing: what
encrypts an update, say, leaves the network as it would be, and costs what it costs."""


def trained_alike(folder: RunFolder, study: Study, stock: Inventory) -> set[tuple[str, str]]:
    """Scenario and label of defenses whose training is the undefended one, bit by bit."""
    keys = set(stock.done)
    return {
        (scenario.name, defense.label)
        for scenario in study.scenarios
        for bare in scenario.defenses
        if bare.name == "none"
        for defense in scenario.defenses
        if _of_training(defense.name, defense.settings)
        and _alike(folder, keys, _jobs(study, scenario, bare), _jobs(study, scenario, defense))
    }


def _of_training(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a defense, or each part of a chain, acts by local training alone."""
    if name != "chain":
        return name in OF_TRAINING
    tables = [{"name": part} if isinstance(part, str) else part for part in settings["of"]]
    return all(_of_training(table["name"], table) for table in tables)


def _jobs(study: Study, scenario: Scenario, defense: Choice) -> list[str]:
    return [job.key for job in utility_jobs(study, scenario, defense)]


def _alike(folder: RunFolder, done: Collection[str], plain: list[str], own: list[str]) -> bool:
    """Whether all trainings that both have ended in the same weights; at least one."""
    pairs = [pair for pair in zip(plain, own, strict=True) if {*pair} <= {*done}]
    return bool(pairs) and all(
        folder.record(MODELS, one).tensors == folder.record(MODELS, other).tensors
        for one, other in pairs
    )
