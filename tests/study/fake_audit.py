"""The command line with plugins and work that take no time: `python fake_audit.py run study.toml`.

Worker processes import this file too, as `__mp_main__`, and so have the same fakes.
The environment variable FAKE, in JSON, says how long a cell takes and which keys fail.
"""

import importlib
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from fedaudit.core import registry
from fedaudit.core.errors import AttackError, UnknownNameError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import LocalTraining
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.seeds import generator_for
from fedaudit.core.trial import Cell, ImageScore, Trial
from fedaudit.models.zoo import face
from fedaudit.study import measured_costs
from fedaudit.study.jobs import TrainJob
from fedaudit.study.run_folder import RunFolder

STUDY = """
name = "fake"
deployed = "dpsgd"
[[scenario]]
name = "fresh"
attacks = ["quick"]
defenses = ["none", "dpsgd"]
targets = 4
[[scenario]]
name = "late"
round = 3
targets = 2
attacks = ["quick"]
controls = false
"""
JOBS = 10 + 8 + 8 + 10 + 2  # trainings; audit; prior-only; half steps and noise; late
settings: dict[str, Any] = json.loads(os.environ.get("FAKE", "{}"))


@dataclass(frozen=True)
class Quick:
    """Guesses.

    Args:
        steps: How often.
    """

    steps: int = 1
    needs: frozenset[Knowledge] = frozenset({Knowledge.MODEL})


class AsAsked:
    """A method."""

    def local(self, training: LocalTraining) -> LocalTraining:
        return training


def plain(*, path: str = "", size: int = 64) -> None:
    """Does nothing."""


PLUGINS: dict[str, dict[str, Any]] = {
    "attacks": {"quick": Quick},
    "defenses": {"none": plain, "dpsgd": plain},
    "methods": {"fedsgd": AsAsked},
    "data": {"orl": plain},
    "judges": {"sface": plain, "dlib": plain},
    "networks": {"face": face},
}


def lookup(kind: str, name: str) -> Any:
    known = PLUGINS.get(kind, {})
    if name not in known:
        raise UnknownNameError(kind.removesuffix("s"), name, known)
    return known[name]


def _take_time(key: str) -> None:
    time.sleep(settings.get("seconds", 0.0))
    if any(part in key for part in settings.get("long", [])):
        time.sleep(600)
    if any(part in key for part in settings.get("fail", [])):
        raise AttackError("it was told to fail.")


def run_train(study: Study, job: TrainJob, folder: RunFolder) -> None:
    _take_time(job.key)
    weights = torch.rand(3, generator=generator_for(job.key))
    folder.save_model(job.key, {"w": weights}, {"accuracy": 0.5})


def run_cell(
    study: Study, cell: Cell, folder: RunFolder, evidence: str, device: str = "cpu"
) -> None:
    _take_time(cell.key)
    image = torch.rand(1, 3, 4, 4, generator=generator_for(cell.key))
    if evidence == "full":
        folder.save_evidence(cell.scenario, cell.target, {"images": image})
    score = ImageScore("s1", {"ssim": image.mean().item(), "psnr": 20.0, "mse": 0.1})
    trial = Trial(
        cell,
        (score,),
        None,
        settings.get("objective", float("nan")),
        1,
        1,
        0.1,
        "none needed",
        history=((1, 0.5),),
        closed_form=True,
    )
    folder.save_trial(trial, {"images": image})


def build_report(folder: Path, evidence: str) -> Any:
    if "report" in settings.get("fail", []):
        raise AttackError("there is nothing to report.")
    (folder / "report.html").write_text(f"evidence {evidence}")
    kind = settings.get("headline", "LEAK DEMONSTRATED")
    headline = SimpleNamespace(kind=kind, sentence="3 of 4.", severity="none")
    finding = SimpleNamespace(id="F1", severity=settings.get("severity", "medium"))
    thresholds = SimpleNamespace(reid_limit=0.05)
    return SimpleNamespace(
        headline=headline,
        findings=[finding],
        exposures=(),
        limitations=settings.get("limitations", ()),
        settings=thresholds,
    )


def decided(folder: Path) -> dict[tuple[str, str], str]:
    """Defenses that are as soon as so many of their targets are done."""
    found = {}
    for place, targets in settings.get("decided", {}).items():
        scenario, _, defense = place.partition("/")
        last = f"cells/{scenario}--{defense}--*--audit--t{targets - 1:03d}--*.json"
        if any(folder.glob(last)):
            found[scenario, defense] = f"stopped after {targets} targets: decided"
    return found


def demo_study(quick: bool) -> Study:
    scenario = Scenario("tiny", targets=1 if quick else 2, attacks=(), controls=True)
    return Study("demo", (scenario,), utility=False)


def demo_color(quick: bool) -> Study:
    return replace(demo_study(quick), name="color")


def notes_of(study: Study) -> tuple[str, ...]:
    return (f"dpsgd: the network of {study.name} was changed.",)


def modules() -> dict[str, ModuleType]:
    """Stand-ins for the modules that do real work."""
    contents: dict[str, dict[str, Any]] = {
        "fedaudit.study.run_cell": {
            "run_train": run_train,
            "run_cell": run_cell,
        },
        "fedaudit.reports.build": {
            "build_report": build_report,
        },
        "fedaudit.reports.interim_analysis": {
            "decided": decided,
            "stops_of": lambda folder, manifest, stock: ((), (*stock.missing, *stock.damaged)),
        },
        "fedaudit.study.demo_study": {"study": demo_study, "color_study": demo_color},
    }
    made = {}
    for name, content in contents.items():
        made[name] = ModuleType(name)
        vars(made[name]).update(content)
    return made


if __name__ in {"__main__", "__mp_main__"}:
    for name, module in modules().items():
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        setattr(importlib.import_module(parent), child, module)
    vars(registry)["lookup"] = lookup
    vars(measured_costs)["costs_file"] = lambda: Path("costs.json")
    if __name__ == "__main__":
        from fedaudit.cli import main

        main()
