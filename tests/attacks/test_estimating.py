"""Defenses are read off real defended updates, and off nothing else."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fedaudit.attacks.adapting import adapt_to
from fedaudit.attacks.adaptive import assume
from fedaudit.attacks.averaging import average, deviation, moved, rounds_of
from fedaudit.attacks.estimating import clip_bound, estimate
from fedaudit.attacks.evidence import gather
from fedaudit.captures.simulated import without_update
from fedaudit.seeds import generator_for
from fedaudit.types import Capture

Intercept = Callable[..., Capture]


def found(captured: Capture) -> dict[str, Mapping[str, Any]]:
    facts = estimate(assume(captured.seen, "estimated"))
    assert all(one.estimated for one in facts)
    return {one.name: one.settings for one in facts}


@pytest.mark.parametrize("network", ["face", "small_cnn", "lenet"])
def test_nothing_is_seen_where_nothing_was_done(network: str, intercept: Intercept) -> None:
    assert found(intercept(network=network)) == {}


@pytest.mark.parametrize(
    ("defense", "settings"),
    [
        ("sign", {}),
        ("top_k", {"pruned": 0.9}),
        ("random_pruning", {"pruned": 0.8}),
        ("soteria", {"pruned": 0.6}),
    ],
)
def test_signs_gaps_and_masks_show(
    defense: str, settings: dict[str, float], intercept: Intercept
) -> None:
    seen = found(intercept(defense=defense, settings=settings))
    assert list(seen) == [defense]
    for name, value in settings.items():
        assert seen[defense][name] == pytest.approx(value, abs=5e-3)


@pytest.mark.parametrize(("law", "batch"), [("gaussian", 1), ("gaussian", 4), ("laplace", 1)])
def test_the_noise_is_measured(law: str, batch: int, intercept: Intercept) -> None:
    std = 0.05
    captured = intercept(batch=batch, defense=f"{law}_noise", settings={"std": std})
    (name,) = found(captured)
    assert name == "gaussian_noise"
    assert found(captured)[name]["std"] == pytest.approx(std, rel=0.02)
    told = adapt_to(captured.seen).noise
    assert told == pytest.approx(std, rel=0.02)


def test_noise_in_units_of_the_update_is_known_too(intercept: Intercept) -> None:
    captured = intercept(defense="gaussian_noise", settings={"std": 2.0, "of": "norm"})
    known = adapt_to(captured.seen).noise
    assert known == pytest.approx(adapt_to(assume(captured.seen, "estimated")).noise, rel=0.02)


def test_levels_and_buckets_show(intercept: Intercept) -> None:
    seen = found(intercept(defense="qsgd", settings={"levels": 8, "bucket": 256}))
    assert list(seen) == ["qsgd"]
    assert seen["qsgd"]["bucket"] == 256
    assert 4 <= seen["qsgd"]["levels"] <= 16


def test_a_clipped_update_is_as_long_as_its_bound(intercept: Intercept) -> None:
    update = intercept(defense="clipping", settings={"max_norm": 0.5}).seen.update
    assert update is not None
    assert clip_bound(update.tensors) == pytest.approx(0.5, rel=1e-3)


def test_rounds_divide_the_noise(intercept: Intercept) -> None:
    captured = intercept(defense="gaussian_noise", settings={"std": 0.05}, rounds_seen=4)
    plain = intercept().seen.update
    assert plain is not None
    rounds = rounds_of(captured.seen)
    assert len(rounds) == 4
    assert deviation(rounds) == pytest.approx(0.05, rel=0.02)
    mean = average(rounds).tensors
    off = sum(float((mean[n] - v).square().sum()) for n, v in plain.tensors.items())
    size = sum(v.numel() for v in plain.tensors.values())
    assert (off / size) ** 0.5 == pytest.approx(0.025, rel=0.02)
    for told in ("known", "estimated"):
        evidence = gather(assume(captured.seen, told))
        assert evidence.adaptation.noise == pytest.approx(0.025, rel=0.03)
        name = "body.1.weight"
        assert float((evidence.target[name] - mean[name]).abs().max()) < 1e-6
    blind = gather(assume(captured.seen, "no"))
    own = rounds[0].tensors["body.1.weight"]
    assert float((blind.target["body.1.weight"] - own).abs().max()) < 1e-6


def test_rounds_fill_gaps_and_repeat_themselves_without_draws(intercept: Intercept) -> None:
    random = intercept(defense="random_pruning", settings={"pruned": 0.5}, rounds_seen=3)
    mean = average(rounds_of(random.seen), sparse=True).tensors["embedding.weight"]
    assert float((mean == 0).float().mean()) == pytest.approx(0.125, abs=0.01)
    assert deviation(rounds_of(intercept(rounds_seen=2).seen)) == pytest.approx(0, abs=1e-7)


def test_a_round_from_other_weights_is_no_repetition(intercept: Intercept) -> None:
    before = intercept().seen.before
    other = intercept(network="face", seed=0).seen.before
    assert moved(before, other) == 0
    assert moved(before, {n: 1.1 * v for n, v in before.items()}) == pytest.approx(1 / 11, rel=1e-3)
    assert moved(before, {"x": before["head.weight"]}) == float("inf")


def test_a_control_has_no_earlier_rounds_to_average(intercept: Intercept) -> None:
    seen = intercept(defense="gaussian_noise", settings={"std": 0.05}, rounds_seen=3).seen
    control = without_update(seen, generator_for("control", 0))
    rounds = rounds_of(control)
    assert len(rounds) == 3
    one, two = (r.tensors["embedding.weight"].flatten() for r in rounds[:2])
    assert abs(float(one @ two / (one.norm() * two.norm()))) < 0.05
