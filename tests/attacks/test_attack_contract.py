"""What every registered attack must do. A new attack adds one row to `contract_rows`."""

import inspect
import random
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch

from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.captures.simulate.simulated_capture import withhold
from fedaudit.core.capture import Capture, Secret
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.observation import Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.threat_models import threat_model

sys.path.insert(0, str(Path(__file__).parent))
from contract_rows import (
    BLIND_TO_NOISE,
    CLOSED_FORM,
    MALICIOUS,
    NETWORK,
    ONE_IMAGE,
    PRESETS,
    SINGLE,
    TEMPLATES,
    TINY,
    UNLABELED,
    WHOLE_MODEL,
)

pytestmark = pytest.mark.usefixtures("drawn_once")
Intercept = Callable[..., Capture]


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow) if n in PRESETS else n for n in TINY],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def attack(name: str) -> Any:
    return create("attacks", name, TINY[name])


@pytest.fixture(scope="module")
def intercept(name: str, attack: Any, intercept: Intercept) -> Intercept:
    """An update of the network that the attack is for, from a server that sends what it wants.

    The same settings give the same update, not another one like it.
    """
    usual = {"network": NETWORK.get(name, "face")}
    if name in TEMPLATES:
        usual["method"] = "fedgc"
    made: dict[str, Capture] = {}

    def once(**settings: Any) -> Capture:
        named = repr(sorted(settings.items()))
        if named not in made:
            malicious = {"threat": "G", "malicious": attack} if name in MALICIOUS else {}
            made[named] = intercept(**{**settings, **usual, **malicious})
        return made[named]

    def capture(*, threat: str = "D", **settings: Any) -> Capture:
        settings = {"batch": 1, "defense": "none", **settings}
        if name not in MALICIOUS:
            return once(threat=threat, **settings)
        full = once(**settings)
        return replace(full, seen=withhold(full.seen, threat_model(threat.replace("D", "G"))))

    return capture


Attacked = Callable[[int, str], tuple[Reconstruction, list[tuple[int, int, float]]]]


@pytest.fixture(scope="module")
def attacked(attack: Any, intercept: Intercept) -> Attacked:
    """What the attack returns on a batch behind a defense, and its progress; run once."""
    done = {}

    def run(batch: int, defense: str) -> tuple[Reconstruction, list[tuple[int, int, float]]]:
        if (batch, defense) not in done:
            steps: list[tuple[int, int, float]] = []
            seen = intercept(batch=batch, defense=defense).seen
            result = attack(seen, generator=noise(), progress=lambda *row: steps.append(row))
            done[batch, defense] = result, steps
        return done[batch, defense]

    return run


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_takes_an_observation_and_nothing_else(
    name: str, attack: Any, intercept: Intercept
) -> None:
    signature, hints = inspect.signature(attack.__call__), get_type_hints(type(attack).__call__)
    parameters = list(signature.parameters)
    assert parameters[:3] == ["seen", "generator", "progress"]
    assert name in CLOSED_FORM or parameters[3:] == ["checkpoint"]
    assert hints["seen"] is Observation
    assert hints["return"] is Reconstruction
    with pytest.raises(AttributeError):
        attack(intercept(), generator=noise())


@pytest.mark.parametrize(
    ("defense", "batch"),
    [
        ("none", 1),
        pytest.param("none", 2, marks=pytest.mark.slow),
        ("dpsgd", 2),
        ("dplc", 1),
        pytest.param("private_projector", 2, marks=pytest.mark.slow),
    ],
)
def test_meets_every_defense(name: str, attacked: Attacked, defense: str, batch: int) -> None:
    withheld = defense in ("dplc", "private_projector")
    if (batch > 1 and name in ONE_IMAGE) or (withheld and name in WHOLE_MODEL):
        with pytest.raises(AttackError, match=r"[Uu]se "):
            attacked(batch, defense)
        return
    result, steps = attacked(batch, defense)
    batch = 2 if name in TEMPLATES else batch
    assert isinstance(result, Reconstruction)
    assert result.images.shape == (batch, 3, 32, 32)
    assert result.images.dtype == torch.float32
    assert not result.images.requires_grad
    assert float(result.images.min()) >= 0
    assert float(result.images.max()) <= 1
    assert result.labels.shape == (batch,)
    assert result.labels.dtype == torch.int64
    unlabeled = withheld or (name, defense) in UNLABELED
    assert (result.labels == -1).all() if unlabeled else (result.labels >= 0).all()
    assert np.isfinite(result.objective)
    if name not in CLOSED_FORM:
        assert result.iterations >= 10
        assert result.gradient_evaluations >= 10 * (1 if name in SINGLE else batch)
        assert result.history
    assert result.seconds > 0
    adapted = "no" if defense == "dpsgd" and name in BLIND_TO_NOISE else "known"
    assert result.adaptive == ("none needed" if defense == "none" else adapted)
    assert steps
    assert all(0 <= done <= of for done, of, _ in steps)
    assert [step[0] for step in steps] == sorted({step[0] for step in steps})


def test_deterministic_without_side_effects_and_blind_to_the_secret(
    name: str,
    attack: Any,
    attacked: Attacked,
    intercept: Intercept,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second run finds the photos overwritten and every `Secret` closed, and ends the same."""
    captured = deepcopy(intercept())  # what shared memory before still does
    seen, secret = captured.seen, captured.secret
    assert seen.update is not None
    assert secret is not None
    tensors = {**seen.before, **{f"sent {k}": v for k, v in seen.update.tensors.items()}}
    copies = {key: value.clone() for key, value in tensors.items()}
    states = (torch.get_rng_state(), np.random.get_state(), random.getstate())
    first, _ = attacked(1, "none")
    secret.images.fill_(float("nan"))
    with monkeypatch.context() as patch:
        patch.setattr(Secret, "__getattribute__", refuse)
        again = attack(seen, generator=noise(0))
        other = None if name in CLOSED_FORM else attack(seen, generator=noise(1))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == str(states[1])
    assert random.getstate() == states[2]
    assert torch.equal(first.images, again.images)
    assert first.objective == again.objective
    assert first.history == again.history
    assert other is None or not torch.equal(first.images, other.images)
    assert all(torch.equal(copies[key], value) for key, value in tensors.items())
    assert not any(value.requires_grad for value in tensors.values())


def test_refuses_what_the_threat_model_withholds(attack: Any, intercept: Intercept) -> None:
    with pytest.raises(KnowledgeError, match="number and size"):
        attack(intercept(threat="A").seen, generator=noise())


def test_works_on_deltas_and_without_knowing_the_defense(
    name: str, attack: Any, intercept: Intercept
) -> None:
    seen = intercept(method="fedavg", threat="B").seen
    assert seen.training is None
    result = attack(replace(seen, defense=None), generator=noise())
    assert result.adaptive == "estimated"
    assert result.images.shape == (2 if name in TEMPLATES else 1, 3, 32, 32)


def refuse(secret: Secret, attribute: str) -> Any:
    raise AssertionError(f"Secret.{attribute} was read")


class InterruptedByTestError(Exception):
    pass


@pytest.mark.slow
def test_goes_on_where_it_was_interrupted(
    name: str, attack: Any, attacked: Attacked, intercept: Intercept, tmp_path: Path
) -> None:
    """In the midst of a batch, and the end is the same as without a break, to the bit."""
    if name in CLOSED_FORM:
        return
    seen = intercept(batch=2).seen
    whole, _ = attacked(2, "none")
    checkpoint = Checkpoint(tmp_path / "kept.safetensors", every=0)
    with pytest.raises(InterruptedByTestError):
        attack(seen, generator=noise(), checkpoint=Saves(checkpoint, 2))
    again = attack(seen, generator=noise(), checkpoint=checkpoint)
    assert torch.equal(again.images, whole.images)
    assert again.objective == whole.objective
    assert again.iterations == whole.iterations
    assert again.history == whole.history
    assert not checkpoint.path.exists()


@dataclass(frozen=True)
class Saves:
    """A checkpoint whose machine dies after it has been written `limit` times."""

    inner: Checkpoint
    limit: int
    every: float = 0.0
    count: list[int] = field(default_factory=list)

    def save(self, *what: Any) -> None:
        self.inner.save(*what)
        self.count.append(1)
        if len(self.count) == self.limit:
            raise InterruptedByTestError

    def load(self, fingerprint: str) -> Any:
        return self.inner.load(fingerprint)

    def clear(self) -> None:
        self.inner.clear()
