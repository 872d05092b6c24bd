"""DP-SGD against its definition: Abadi et al. (2016), algorithm 1."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dp_accounting
import pytest
import torch
from dp_accounting.rdp import RdpAccountant
from torch import Tensor, nn

from fedaudit.core.capture import Capture
from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.defenses.accounting import epsilon_of
from fedaudit.defenses.chain import change_each, parts_of
from fedaudit.defenses.composition import Plan, Planned, over_rounds
from fedaudit.defenses.dpsgd import DPSGD
from fedaudit.federation.local_training import train_locally
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.facenet import FaceNet, criterion_of

ORDERS = [1 + x / 10 for x in range(1, 100)] + [float(x) for x in range(12, 64)]
SPEC = ModelSpec("small_cnn", {"classes": 4, "image_size": 16})
N = 4


def batch_normed(*, classes: int, image_size: int) -> FaceNet:
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU())
    return FaceNet(body, image_size=image_size, classes=classes)


def task(
    spec: ModelSpec = SPEC, seed: int = 0, training: LocalTraining | None = None
) -> ClientTask:
    faces = torch.Generator().manual_seed(5)
    return ClientTask(
        model=spec,
        before=parameters_of(build(spec, seed=3)),
        kept={},
        images=torch.rand(N, 3, 16, 16, generator=faces),
        labels=torch.tensor([0, 1, 2, 2]),
        training=training or LocalTraining(batch_size=N),
        share="gradient",
        generator=torch.Generator().manual_seed(seed),
    )


def update_of(returned: ClientReturn) -> Update:
    (shared,) = returned.shared
    assert isinstance(shared, Update)
    return shared


def gradients_one_by_one(asked: ClientTask) -> list[dict[str, Tensor]]:
    model = build(asked.model, asked.before)
    named = dict(model.named_parameters())
    rows = []
    for image, label in zip(asked.images, asked.labels, strict=True):
        loss = criterion_of(model)(model(image[None]), label[None])
        grads = torch.autograd.grad(loss, list(named.values()))
        rows.append(dict(zip(named, grads, strict=True)))
    return rows


def norm(tensors: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(t.square().sum()) for t in tensors.values()))


@pytest.mark.parametrize("spec", [SPEC, ModelSpec("face", {"classes": 4, "image_size": 16})])
@pytest.mark.parametrize("fraction", [0.05, 0.97, 10.0], ids=["all clipped", "some", "none"])
def test_each_images_gradient_is_clipped(spec: ModelSpec, fraction: float) -> None:
    asked = task(spec)
    rows = gradients_one_by_one(asked)
    norms = sorted(norm(row) for row in rows)
    bound = fraction * norms[-1]
    clipped = sum(n > bound for n in norms)
    assert {0.05: clipped == N, 0.97: 0 < clipped < N, 10.0: clipped == 0}[fraction]
    factors = [min(1.0, bound / norm(row)) for row in rows]

    defense = DPSGD(noise_multiplier=0.0, max_grad_norm=bound)
    shared = update_of(defense(train_locally)(asked))

    assert shared.kind == "gradient"
    assert shared.examples == N
    for name, value in shared.tensors.items():
        by_hand = sum(
            (f * row[name] for f, row in zip(factors, rows, strict=True)), torch.zeros(())
        )
        torch.testing.assert_close(value, by_hand / N, rtol=1e-3, atol=1e-6 * bound)


def test_clipping_is_not_that_of_the_batch() -> None:
    """The planted fault: clipping the mean gradient gives another, larger update."""
    asked = task()
    rows = gradients_one_by_one(asked)
    mean = {k: torch.stack([row[k] for row in rows]).mean(0) for k in rows[0]}
    bound = 0.9 * norm(mean)
    shared = update_of(DPSGD(noise_multiplier=0.0, max_grad_norm=bound)(train_locally)(asked))
    assert norm(dict(shared.tensors)) < 0.95 * bound


@pytest.mark.parametrize(("sigma", "bound"), [(1.0, 1.0), (0.5, 2.0), (4.0, 0.1)])
def test_noise_has_the_standard_deviation_sigma_c_over_b(sigma: float, bound: float) -> None:
    asked = task()
    quiet = update_of(DPSGD(noise_multiplier=0.0, max_grad_norm=bound)(train_locally)(asked))
    noisy = update_of(
        DPSGD(noise_multiplier=sigma, max_grad_norm=bound)(train_locally)(task(seed=9))
    )
    noise = torch.cat([(noisy.tensors[k] - quiet.tensors[k]).flatten() for k in quiet.tensors])
    expected, n = sigma * bound / N, noise.numel()
    assert n > 20_000
    # Four standard errors: of the mean, expected/√n; of the standard deviation, expected/√2n.
    assert abs(float(noise.mean())) < 4 * expected / math.sqrt(n)
    assert abs(float(noise.std()) - expected) < 4 * expected / math.sqrt(2 * n)
    # Gaussian, not merely of that size: kurtosis 3, standard error √(24/n).
    kurtosis = float(((noise - noise.mean()) / noise.std()).pow(4).mean())
    assert abs(kurtosis - 3) < 4 * math.sqrt(24 / n)


def test_deterministic_under_a_seed() -> None:
    step = DPSGD()(train_locally)
    first, again, other = (update_of(step(task(seed=s))).tensors for s in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not any(torch.equal(first[k], other[k]) for k in first)


def rdp(sigma: float, rate: float, steps: int, delta: float) -> float:
    """ε by dp-accounting, an implementation independent of Opacus."""
    accountant = RdpAccountant(ORDERS)
    event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(sigma))
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps))
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(("steps", "size"), [(1, N), (6, 2)])
def test_the_return_carries_the_claim_of_what_was_spent(steps: int, size: int) -> None:
    """With batches of 2 out of 4, Poisson sampling at rate 1/2; each step is accounted."""
    training = LocalTraining(steps=steps, batch_size=size, lr=0.01)
    (claim,) = DPSGD(noise_multiplier=1.5)(train_locally)(task(training=training)).claims
    assert claim.epsilon == pytest.approx(rdp(1.5, size / N, steps, 1e-5), rel=5e-3)
    assert claim.delta == 1e-5
    assert (claim.unit, claim.neighbors, claim.rounds) == ("image", "add or remove one", 1)
    assert claim.covers == ("update",)
    assert claim.settings == {"C": 1.0, "σ": 1.5}
    assert claim.sampling == f"Poisson sampling of images, q = {size / N:g}"
    assert not claim.missing


def test_a_step_whose_batch_is_empty() -> None:
    """Poisson sampling at rate 1/4 leaves three of ten batches empty: noise alone is a step."""
    training = LocalTraining(steps=8, batch_size=1, lr=0.01)
    for seed in range(3):
        returned = DPSGD()(train_locally)(task(seed=seed, training=training))
        assert norm(dict(update_of(returned).tensors)) > 0


def test_without_noise_there_is_no_guarantee() -> None:
    quiet = DPSGD(noise_multiplier=0.0)
    claims = quiet(train_locally)(task()).claims
    assert claims[0].epsilon == math.inf
    assert over_rounds([claims] * 3)[0].epsilon == math.inf


def test_ten_rounds_spend_more_than_one() -> None:
    training = LocalTraining(steps=3, batch_size=2, lr=0.01)
    once = DPSGD(noise_multiplier=4.0)(train_locally)(task(training=training)).claims
    (whole,) = over_rounds([once] * 10)
    assert whole.epsilon == pytest.approx(rdp(4.0, 0.5, 30, 1e-5), rel=5e-3)
    assert (whole.rounds, whole.delta, whole.covers) == (10, 1e-5, ("update",))


# --- a stated ε ---------------------------------------------------------------------------------


def test_a_stated_epsilon_is_that_of_the_whole_training() -> None:
    plan = Plan(rounds=10, steps=2, sample_rate=0.5)
    defense = DPSGD(epsilon=8.0).planned(plan)
    assert 7.9 < epsilon_of(((defense.sigma(), 0.5, 20),), 1e-5, "rdp") <= 8.0
    assert (defense.steps, defense.sample_rate) == (20, 0.5)
    # The audited client has that noise, and its round of its own ε; so does the attacker's replay.
    returned = defense(train_locally)(task())
    assert returned.claims[0].epsilon == pytest.approx(rdp(defense.sigma(), 1.0, 1, 1e-5), rel=5e-3)
    noise = create("defenses", "dpsgd", defense.facts().settings).replay(N).mean[0]
    assert noise.std == defense.sigma() / N
    assert DPSGD(noise_multiplier=2.0).planned(plan) == DPSGD(noise_multiplier=2.0)


@pytest.mark.slow
def test_a_stated_epsilon_without_a_plan_is_that_of_the_round() -> None:
    training = LocalTraining(steps=6, batch_size=2, lr=0.01)
    (claim,) = DPSGD(epsilon=3.0)(train_locally)(task(training=training)).claims
    assert 2.97 < claim.epsilon <= 3.0


def test_a_plan_reaches_the_parts_of_a_chain() -> None:
    chain = create("defenses", "chain", {"of": [{"name": "dpsgd", "epsilon": 8.0}, "sign"]})
    plan = Plan(rounds=10, steps=2, sample_rate=0.5)
    made = change_each(chain, lambda p: p.planned(plan) if isinstance(p, Planned) else p)
    private, sign = parts_of(made)
    assert private == DPSGD(epsilon=8.0).planned(plan)
    assert sign == create("defenses", "sign", {})
    assert parts_of(change_each(chain, lambda p: p)) == parts_of(chain)


# --- ghost clipping -----------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["linear", "cosface", "arcface"])
@pytest.mark.parametrize(
    "training", [LocalTraining(batch_size=N), LocalTraining(steps=6, batch_size=1, lr=0.05)]
)
def test_ghost_clipping_gives_the_same_update(head: str, training: LocalTraining) -> None:
    """With Poisson's empty batches, and margin losses, which are means that know no `reduction`."""
    spec = ModelSpec("small_cnn", {"classes": 4, "image_size": 16, "head": head})
    asked = replace(task(spec, training=training), share="delta")
    made = []
    for ghost in (False, True):
        again = replace(asked, generator=torch.Generator().manual_seed(4))
        defense = DPSGD(ghost=ghost, max_grad_norm=0.05, noise_multiplier=0.3)
        made.append(defense(train_locally)(again))
    hooks, ghosts = made
    assert hooks.claims == ghosts.claims != ()
    if training.steps == 1:
        assert hooks.loss == pytest.approx(ghosts.loss)
    for name, value in update_of(hooks).tensors.items():
        torch.testing.assert_close(
            update_of(ghosts).tensors[name], value, rtol=1e-3, atol=1e-6, msg=name
        )


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("network", ["face", "small_cnn"])
def test_no_image_contributes_more_than_the_bound(ghost: bool, network: str) -> None:
    """Of neighboring batches: what one image adds to the sum is at most C, whatever it shows."""
    spec = ModelSpec(network, {"classes": 4, "image_size": 16})
    defense = DPSGD(noise_multiplier=0.0, max_grad_norm=0.01, ghost=ghost)
    for seed in range(4):
        noise = torch.Generator().manual_seed(seed)
        images = torch.rand(N, 3, 16, 16, generator=noise) * (1, 1, 100, 1e4)[seed]
        everybody = replace(task(spec), images=images)
        without = replace(task(spec), images=images[1:], labels=everybody.labels[1:])
        full, less = (update_of(defense(train_locally)(t)).tensors for t in (everybody, without))
        added = {name: N * full[name] - (N - 1) * less[name] for name in full}
        assert norm(added) <= 0.01 * (1 + 1e-3)


def test_batch_norm_is_refused_and_says_why() -> None:
    spec = ModelSpec(f"{__name__}:batch_normed", {"classes": 4, "image_size": 16})
    with pytest.raises(ConfigError, match=r"per-sample gradients.*GroupNorm"):
        DPSGD()(train_locally)(task(spec))


@pytest.mark.parametrize(
    "settings",
    [
        {"noise_multiplier": -0.1},
        {"max_grad_norm": 0.0},
        {"delta": 0.0},
        {"delta": 1.0},
        {"accountant": "gdp"},
        {"epsilon": 0.0},
        {"epsilon": 8.0, "noise_multiplier": 1.0},
        {"steps": 0},
        {"sample_rate": 1.5},
        {"sample_rate": 0.0},
        {"sample_rate": -0.5},
    ],
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        DPSGD(**settings)


def test_a_network_with_batch_norm_is_made_fit_for_everybody(
    federate: Callable[..., Simulation], intercept: Callable[..., Capture]
) -> None:
    """Client, server and attacker have the same network; a reader is told what it is."""
    simulation = federate(
        network="convnet", arguments={"width": 8}, defense="dpsgd", settings={"max_grad_norm": 1e6}
    )
    capture = intercept(simulation=simulation, batch=2)
    assert capture.seen.statistics is None
    model = build(capture.seen.model, capture.seen.before)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    update = capture.seen.update
    assert update is not None
    assert set(update.tensors) == set(capture.seen.before) == set(parameters_of(model))
    (note,) = simulation.notes
    assert "batch norm in 8 layers was replaced by group norm" in note
    assert federate(network="face", defense="dpsgd").notes == ()
    assert federate(network="convnet").notes == ()
