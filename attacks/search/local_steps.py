"""How several local steps are met: as one gradient, along a path, or replayed."""

from dataclasses import replace
from typing import Literal

import torch

from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.training.dummy_update import DummyUpdate, dummy_update_for
from fedaudit.attacks.training.simulated_training import along_simulated_path
from fedaudit.attacks.training.training_inference import guess_training, plausible
from fedaudit.core.observation import Observation

LocalSteps = Literal["start", "path", "replay"]

# Chosen by benchmarks/local_steps.py.
POINTS = 4
"""Places on the line to the shared weights at which gradients are taken, at most."""


def dummy_update_of(
    seen: Observation,
    evidence: Evidence,
    mode: LocalSteps,
    generator: torch.Generator,
) -> DummyUpdate | None:
    """What dummy images would have made the client share, over all its steps (see `DummyUpdate`).

    Settings of its training that the threat model does not grant are guessed. None where one
    gradient says it all: a shared gradient, one step of SGD, mode "start"; or where the labels are
    not known, without which nothing can be replayed.
    """
    if mode == "start" or seen.update is None or seen.update.kind == "gradient":
        return None
    if evidence.labels is None:
        return None
    training = seen.training
    if training is None:
        candidates = plausible(evidence.count)
        guesses = guess_training(seen, evidence.model, evidence.labels, candidates, generator)
        training = guesses[0].training
    if training.steps == 1 and training.optimizer == "sgd":
        return None
    dummy = dummy_update_for(seen, evidence.model, training, mode="replay")
    if mode == "replay":
        return dummy
    along = along_simulated_path(dummy, evidence.shape, evidence.labels, generator)
    return replace(along, points=POINTS)
