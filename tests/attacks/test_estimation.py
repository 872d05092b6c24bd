"""Defenses are read off real defended updates, and off nothing else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import assume
from fedaudit.attacks.adaptive.estimation import clip_bound, estimate
from fedaudit.attacks.adaptive.probing import adapt_to
from fedaudit.attacks.evidence.round_averaging import average, deviation, drift, rounds_of
from fedaudit.attacks.gathering.gather import gather
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture
from fedaudit.core.observation import DefenseFacts, Observation
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Update

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
    assert drift(before, other) == 0
    assert drift(before, {n: 1.1 * v for n, v in before.items()}) == pytest.approx(1 / 11, rel=1e-3)
    assert drift(before, {"x": before["head.weight"]}) == float("inf")


def test_a_control_has_no_earlier_rounds_to_average(intercept: Intercept) -> None:
    seen = intercept(defense="gaussian_noise", settings={"std": 0.05}, rounds_seen=3).seen
    control = without_update(seen, generator_for("control", 0))
    rounds = rounds_of(control)
    assert len(rounds) == 3
    one, two = (r.tensors["embedding.weight"].flatten() for r in rounds[:2])
    assert abs(float(one @ two / (one.norm() * two.norm()))) < 0.05


def under_noise(
    captured: Capture, rounds: Sequence[tuple[float, float]]
) -> tuple[Observation, dict[str, Tensor]]:
    """An observation of rounds of one gradient, each of a length and with noise, newest first.

    Args:
        captured: An undefended update.
        rounds: Factor on the gradient, and the noise's standard deviation in units of its root mean
            square.
    """
    update = captured.seen.update
    assert update is not None
    plain = dict(update.tensors)
    flat = torch.cat([v.flatten() for v in plain.values()])
    scale = float(flat.square().mean().sqrt())
    drawn = torch.Generator().manual_seed(5)
    made = []
    for factor, std in rounds:
        noisy = {
            n: factor * v + scale * std * torch.randn(v.shape, generator=drawn)
            for n, v in plain.items()
        }
        facts = (DefenseFacts("gaussian_noise", {"std": std * scale}),)
        made.append(replace(captured.seen, shared=(Update("gradient", noisy),), defense=facts))
    return replace(made[0], earlier=tuple(reversed(made[1:]))), plain


@pytest.mark.parametrize(
    "rounds",
    [
        ((1.0, 4.0), (1.0, 0.5), (1.0, 2.0), (1.0, 4.0)),  # other scales of noise
        ((0.2, 1.0), (1.0, 1.0), (0.5, 1.0), (0.1, 1.0)),  # clipped to other lengths
        ((1.0, 3.0), (1.0, 0.3)),
    ],
)
def test_noisier_rounds_weigh_less(
    rounds: Sequence[tuple[float, float]], intercept: Intercept
) -> None:
    """What is left is what inverse variances leave, in truth and by the attack's own account."""
    seen, plain = under_noise(intercept(), rounds)
    best = rounds[0][0] / sum((f / s) ** 2 for f, s in rounds) ** 0.5
    adaptation = adapt_to(seen)
    assert adaptation.update is not None
    size = sum(v.numel() for v in plain.values())
    scale = (sum(float(v.square().sum()) for v in plain.values()) / size) ** 0.5
    made = adaptation.update.tensors
    left = sum(float((made[n] - rounds[0][0] * v).square().sum()) for n, v in plain.items())
    assert (left / size) ** 0.5 / scale == pytest.approx(best, rel=0.03)
    assert adaptation.noise / scale == pytest.approx(best, rel=0.06)
    assert deviation(rounds_of(seen)) == pytest.approx(rounds[0][1] * scale, rel=0.02)
    evenly = average(rounds_of(seen)).tensors
    length = sum(f for f, _ in rounds) / len(rounds)
    off = sum(float((evenly[n] - length * v).square().sum()) for n, v in plain.items())
    assert (off / size) ** 0.5 / scale / length > 1.2 * best / rounds[0][0]


def test_rounds_that_noise_drowns_weigh_alike(intercept: Intercept) -> None:
    seen, _ = under_noise(intercept(), ((1.0, 300.0),) * 4)
    adaptation = adapt_to(seen)
    assert sum(adaptation.weights) == pytest.approx(1.0, rel=0.1)
    assert max(adaptation.weights) < 1.5 * min(adaptation.weights)
