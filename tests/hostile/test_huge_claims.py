"""Counts that a file only claims: refused, or as fast as honest ones; and the same numbers."""

import json
import time
from pathlib import Path

import pytest
import torch

import fedaudit
from fedaudit.attacks.evidence.labels.infer import multiset
from fedaudit.attacks.training.schedule import fixed_order, steady_pace, step_factors
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observations
from fedaudit.captures.inspect.inspection import inspect
from fedaudit.core.errors import UsageError
from fedaudit.core.observation import LocalTraining


def one_at_a_time(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Labels by highest averages, as the rule is written down."""
    present = [int(k) for k in scores.argsort(descending=True) if scores[k] > 0][:count]
    found = present or [int(scores.argmax())]
    while len(found) < count:
        averages = {k: float(scores[k]) / (found.count(k) + 0.5) for k in present or found}
        found.append(max(averages, key=averages.__getitem__))
    return torch.tensor(sorted(found), dtype=torch.int64)


def test_labels_are_shared_out_as_one_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    for case in range(300):
        classes, count = (int(torch.randint(1, n, (1,), generator=generator)) for n in (30, 60))
        scores = torch.randn(classes, generator=generator)
        scores = scores.round() if case % 3 == 0 else -scores.abs() if case % 7 == 0 else scores
        assert torch.equal(multiset(scores, count), one_at_a_time(scores, count))


def test_labels_of_8000_images_take_under_a_second() -> None:
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    began = time.process_time()
    assert len(multiset(scores, 8000)) == 8000
    assert time.process_time() - began < 1


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_factors_are_the_sums_that_they_stand_for(momentum: float, optimizer: str) -> None:
    for steps in (1, 2, 7, 40):
        training = LocalTraining(lr=0.03, steps=steps, momentum=momentum, optimizer=optimizer)  # type: ignore[arg-type]
        m = momentum if optimizer == "sgd" else 0.0
        powers = [m**k for k in range(steps)]
        moves = [_sum(powers[: s + 1]) for s in range(steps)]
        assert step_factors(training) == [0.03 * _sum(powers[: steps - s]) for s in range(steps)]
        places = tuple(_sum(moves[:s]) / _sum(moves) for s in range(steps))
        assert steady_pace(training).places == places


def _sum(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def test_a_hundred_thousand_steps_take_under_a_second() -> None:
    training = LocalTraining(lr=0.1, steps=100_000, momentum=0.9)
    began = time.process_time()
    steady_pace(training)
    assert len(fixed_order(64, training)) == 100_000
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("facts", "examples"),
    [
        ({"batch_size": 4, "local_steps": 2**40}, 8),
        ({"batch_size": 4, "local_epochs": 2**40}, 8),
        ({"batch_size": 4, "local_epochs": 1}, 2**40),
        ({"batch_size": 2**40, "local_steps": 1}, None),
        ({"batch_size": 4, "local_epochs": 1, "image_shape": [1, 4096, 4096]}, 1000),
    ],
)
def test_what_is_behind_an_update_is_bounded(
    tmp_path: Path, facts: dict[str, object], examples: int | None
) -> None:
    record = fedaudit.recording(tmp_path / "c", model="mlp", classes=5, lr=0.1)
    state = {"head.weight": torch.randn(5, 4), "head.bias": torch.randn(5)}
    record.broadcast(1, state)
    moved = {name: value + 1 for name, value in state.items()}
    record.update(1, "a", moved, kind="weights", examples=examples)
    path = tmp_path / "c" / "capture.json"
    manifest = json.loads(path.read_text())
    manifest["facts"] |= facts
    path.write_text(json.dumps(manifest))
    began = time.monotonic()
    stored = StoredCapture(tmp_path / "c")
    assert list(observations(stored)) == []
    assert len(stored.problems) == 1
    assert "correct" in str(stored.problems[0])
    inspect(StoredCapture(tmp_path / "c")).as_plain()
    assert time.monotonic() - began < 5


def test_an_image_of_a_manifest_is_bounded(tmp_path: Path) -> None:
    fedaudit.recording(tmp_path, model="mlp", classes=5, lr=0.1, image_shape=(3, 8, 8))
    path = tmp_path / "capture.json"
    path.write_text(path.read_text().replace("8,", "16384,").replace(" 8", " 16384"))
    with pytest.raises(UsageError, match="image_shape"):
        StoredCapture(tmp_path)
