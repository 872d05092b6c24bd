"""A leak that was planted in known layers: an attack that knows the truth, and its subject."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedaudit.core.capture import Capture
from fedaudit.core.observation import Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.scenario import Scenario, Study
from fedaudit.core.shared import Update
from fedaudit.federation.simulation import Simulation
from fedaudit.study.run_folder import RunFolder
from fedaudit.why.explained_scenario import Subject

Federate = Callable[..., Simulation]
NEEDED = ("embedding.weight", "head.weight")


@dataclass
class Planted:
    """Knows the truth, and tells it only where the update has all `needed` parameters.

    What an attack may never do; here it makes the leak of each layer known beforehand.
    """

    faces: Tensor
    needed: tuple[str, ...] = NEEDED
    only_labeled: bool = False
    calls: int = 0
    needs = frozenset[Any]()
    reads = frozenset({Update})

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Any = None
    ) -> Reconstruction:
        self.calls += 1
        update = seen.update
        assert update is not None
        count = seen.batch_size or 1
        there = all(n in update.tensors and is_real(update.tensors[n]) for n in self.needed)
        if self.only_labeled:
            there = there and seen.labels is not None
        images = torch.full((count, *self.faces.shape[1:]), 0.5)
        if there:
            images = torch.stack([self.faces[int(i)] for i in who(seen, count)])
        return Reconstruction(images, torch.full((count,), -1), objective=0.0 if there else 1.0)


def is_real(tensor: Tensor) -> bool:
    """Whether a shared tensor is no noise: the tests mark real ones with a first number of 7."""
    return bool((tensor.flatten()[0] % 7).abs() < 1e-4)


def who(seen: Observation, count: int) -> Sequence[int]:
    """Numbers of the photos, which the tests hide in the update: one more than each, a slot each.

    A mean over clients divides every slot by their number.
    """
    update = seen.update
    assert update is not None
    slots = update.tensors["embedding.weight"].flatten()[1:5] * count
    return [round(slot) - 1 for slot in slots.tolist() if slot > 0.5]


@dataclass(frozen=True)
class Rigged(Subject):
    """A subject whose captures hide the photos' numbers in the update."""

    def capture(
        self, target: int, number: int | None = None, *, simulation: Simulation | None = None
    ) -> Capture:
        captured = super().capture(target, number, simulation=simulation)
        assert captured.secret is not None
        assert captured.seen.update is not None
        tensors = {n: t.clone() for n, t in captured.seen.update.tensors.items()}
        for tensor in tensors.values():
            tensor.view(-1)[0] = 7.0
        index = self.simulation.faces.sources.index(captured.secret.sources[0])
        slots = tensors["embedding.weight"].view(-1)[1:5]
        slots.zero_()
        slots[target % len(self.simulation.split.clients)] = float(index + 1)
        shared = (Update("delta", tensors, captured.seen.batch_size),)
        return replace(captured, seen=replace(captured.seen, shared=shared))

    def invented(
        self, target: int, number: int | None = None, *, simulation: Simulation | None = None
    ) -> Capture:
        captured = super().invented(target, number, simulation=simulation)
        assert captured.seen.update is not None
        for tensor in captured.seen.update.tensors.values():
            tensor.view(-1)[0] = 3.0
        return captured


def rigged(
    federate: Federate,
    folder: Path,
    attack: Any = None,
    *,
    name: str = "alone",
    targets: int = 2,
) -> Rigged:
    """Ready to be explained, with a planted attack."""
    simulation = federate(network="face", method="fedavg", arguments={"dim": 16})
    scenario = Scenario(name, batch_size=1)
    return Rigged(
        study=Study("planted", (scenario,), size=32),
        scenario=scenario,
        simulation=simulation,
        attacks={"planted": attack or Planted(simulation.faces.images)},
        skipped=(),
        gallery=None,
        embed=None,
        folder=RunFolder(folder),
        targets=targets,
        seed=0,
    )
