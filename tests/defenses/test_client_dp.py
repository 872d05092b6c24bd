"""Client-level DP against its definition, and its budgets against dp-accounting."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaudit.attacks.adaptive.defense_replay import replay_of
from fedaudit.core.capture import Capture
from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.shared import ClusterCenters, Shared, Update
from fedaudit.defenses.accounting import epsilon_of, laplace_epsilon, laplace_noise_for
from fedaudit.defenses.client_dp import ClientDP, ClippedBit
from fedaudit.defenses.composition import Plan, claims_of, over_rounds
from fedaudit.defenses.dplc import gaussian_sigma
from fedaudit.defenses.gradient_transforms import Noise, norms
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation

Mechanism = Literal["gaussian", "laplace"]
MECHANISMS: tuple[Mechanism, ...] = ("gaussian", "laplace")


def sent(defense: ClientDP, *shared: Shared, seed: int = 0) -> ClientReturn:
    """What leaves the device of a client whose training made `shared`."""
    task = ClientTask(
        model=ModelSpec("small_cnn"),
        before={},
        kept={},
        images=torch.zeros(1, 3, 8, 8),
        labels=torch.zeros(1, dtype=torch.long),
        training=LocalTraining(),
        share="delta",
        generator=torch.Generator().manual_seed(seed),
    )
    return defense(lambda _: ClientReturn(shared))(task)


def update(seed: int = 0, scale: float = 1.0, entries: int = 50) -> Update:
    noise = torch.Generator().manual_seed(seed)
    parts = {"a": torch.randn(entries, generator=noise), "b": torch.randn(3, 4, generator=noise)}
    return Update("delta", {name: scale * value for name, value in parts.items()}, 7)


def length(shared: Shared, order: Literal[1, 2]) -> float:
    assert isinstance(shared, Update)
    return float(norms({n: t[None] for n, t in shared.tensors.items()}, order))


# --- what leaves the device ---------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e6), bound=st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_client_contributes_more_than_the_bound(
    mechanism: Mechanism, seed: int, scale: float, bound: float
) -> None:
    defense = ClientDP(noise_multiplier=0.0, max_norm=bound, mechanism=mechanism)
    original = update(seed, scale)
    (clipped,) = sent(defense, original).shared
    before, after = length(original, defense.order), length(clipped, defense.order)
    assert after <= bound * (1 + 1e-5)
    assert after == pytest.approx(min(before, bound), rel=1e-2)
    assert isinstance(clipped, Update)
    assert clipped.examples == 7
    for name, value in original.tensors.items():  # the direction stays
        torch.testing.assert_close(clipped.tensors[name] / after, value / before)


@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e30), other=st.floats(1e-3, 1e30))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_any_two_updates_are_no_further_apart_than_twice_the_bound(
    mechanism: Mechanism, seed: int, scale: float, other: float
) -> None:
    """Replacing a client: whatever it trained on, also where training ran away."""
    defense = ClientDP(noise_multiplier=0.0, max_norm=0.5, mechanism=mechanism)
    one, two = (sent(defense, update(seed + k, s)).shared[0] for k, s in enumerate((scale, -other)))
    assert isinstance(one, Update)
    assert isinstance(two, Update)
    apart = Update("delta", {n: one.tensors[n] - two.tensors[n] for n in one.tensors})
    assert length(apart, defense.order) <= 2 * 0.5 * (1 + 1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_sent_as_zero(value: float) -> None:
    """One such entry would pass every clipping, and show through any noise."""
    broken = Update("delta", {"a": torch.tensor([1.0, value]), "b": torch.ones(3)}, 7)
    (clipped,) = sent(ClientDP(noise_multiplier=0.0), broken).shared
    assert length(clipped, 2) == 0
    (noised,) = sent(ClientDP(noise_multiplier=1.0), broken).shared
    assert isinstance(noised, Update)
    assert all(bool(t.isfinite().all()) for t in noised.tensors.values())


def test_two_updates_of_a_round_are_one_vector() -> None:
    """FedAffect shares two; each clipped alone would have a sensitivity of √2 C."""
    made = sent(ClientDP(noise_multiplier=0.0, max_norm=1.0), update(1), update(2)).shared
    assert math.hypot(*(length(one, 2) for one in made)) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(("mechanism", "kurtosis"), [("gaussian", 3.0), ("laplace", 6.0)])
def test_noise_has_the_scale_that_is_stated(mechanism: Mechanism, kurtosis: float) -> None:
    still = replace(update(entries=100_000), examples=None)
    quiet, noisy = (
        sent(ClientDP(noise_multiplier=z, max_norm=0.5, mechanism=mechanism), still).shared[0]
        for z in (0.0, 3.0)
    )
    assert isinstance(quiet, Update)
    assert isinstance(noisy, Update)
    noise = noisy.tensors["a"] - quiet.tensors["a"]
    std = 3 * 0.5 * (math.sqrt(2) if mechanism == "laplace" else 1)
    assert float(noise.mean()) == pytest.approx(0, abs=4 * std / math.sqrt(len(noise)))
    assert float(noise.std()) == pytest.approx(std, rel=0.02)
    assert float((noise / noise.std()).pow(4).mean()) == pytest.approx(kurtosis, rel=0.1)


def test_an_attacker_replays_clipping_and_noise() -> None:
    defense = ClientDP(noise_multiplier=2.0, max_norm=0.1, mechanism="laplace")
    clip, noise = replay_of((defense.facts(),), 4).mean
    batch = {"w": torch.randn(3, 20, generator=torch.Generator().manual_seed(0))}
    torch.testing.assert_close(norms(clip(batch, torch.Generator()), 1), torch.full((3,), 0.1))
    assert noise == Noise(2 * 0.1 * math.sqrt(2), law="laplace")


# --- what is promised ---------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.5, 2.0, 8.0])
def test_a_round_of_gaussian_noise_is_the_analytic_mechanism(noise: float) -> None:
    """Sensitivity 2C: any other data of the client may turn the update around."""
    (claim,) = sent(ClientDP(noise_multiplier=noise, accountant="prv"), update()).claims
    assert gaussian_sigma(2.0, claim.epsilon, 1e-5) == pytest.approx(noise, rel=2e-2)
    assert (claim.unit, claim.neighbors, claim.rounds) == ("client", "replace one", 1)
    assert claim.covers == ("update",)
    assert "on the device" in claim.mechanism
    assert not claim.missing


@pytest.mark.parametrize("scale", [0.5, 2.0, 20.0])
def test_a_round_of_laplace_noise_is_pure(scale: float) -> None:
    defense = ClientDP(noise_multiplier=scale, mechanism="laplace")
    (claim,) = sent(defense, update()).claims
    theirs = privacy_loss_distribution.from_laplace_mechanism(parameter=scale, sensitivity=2.0)
    assert claim.delta == 0
    assert claim.epsilon == pytest.approx(theirs.get_epsilon_for_delta(1e-9), abs=1e-3)


@pytest.mark.parametrize("steps", [2, 20, 400])
@pytest.mark.parametrize("noise", [2.0, 30.0])
def test_composed_laplace_is_an_upper_bound(noise: float, steps: int) -> None:
    """Of the tight ε by its privacy loss distribution; advanced composition where that is less."""
    epsilon, delta = laplace_epsilon(noise, 1e-5, steps)
    once = privacy_loss_distribution.from_laplace_mechanism(
        parameter=noise, value_discretization_interval=1e-4
    )
    tight = once.self_compose(steps).get_epsilon_for_delta(1e-5)
    assert tight <= epsilon + 1e-4 * steps  # their distribution is rounded up to 1e-4 a step
    assert epsilon <= steps / noise
    assert (delta == 0) == (epsilon == steps / noise)
    if steps == 400 and noise == 30:
        assert epsilon < 0.5 * steps / noise


@pytest.mark.parametrize("epsilon", [0.5, 8.0])
@pytest.mark.parametrize("steps", [1, 100])
def test_the_laplace_noise_for_an_epsilon_spends_it(epsilon: float, steps: int) -> None:
    noise = laplace_noise_for(epsilon, 1e-5, steps)
    assert laplace_epsilon(noise, 1e-5, steps)[0] == pytest.approx(epsilon, rel=1e-6)
    assert laplace_epsilon(0.99 * noise, 1e-5, steps)[0] > epsilon


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_stated_epsilon_is_that_of_all_rounds(mechanism: Mechanism) -> None:
    plan = Plan(rounds=20, steps=5, sample_rate=0.1)
    defense = ClientDP(epsilon=8.0, mechanism=mechanism).planned(plan)
    once = sent(defense, update()).claims
    (whole,) = over_rounds([once] * 20)
    assert 7.95 < whole.epsilon <= 8.0 + 1e-9
    assert whole.rounds == 20
    assert 8.0 / 20 < once[0].epsilon + 1e-9 < 8.0


def test_what_is_not_covered_is_said() -> None:
    centers = ClusterCenters(torch.eye(2), 0.5)
    (claim,) = claims_of(sent(ClientDP(), update(), centers))
    assert claim.covers == ("update",)
    assert [gap.what for gap in claim.gaps] == ["cluster_centers", "counts"]
    assert sent(ClientDP(), centers).claims == ()
    (quiet,) = sent(ClientDP(noise_multiplier=0.0), update()).claims
    assert quiet.epsilon == math.inf


# --- adaptive clipping --------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_update_and_bit_together_spend_what_is_stated(mechanism: Mechanism) -> None:
    for ratio in (0.6, 1.0, 5.0):
        defense = ClientDP(noise_multiplier=3.0, quantile=0.5, bit_noise=ratio, mechanism=mechanism)
        update_noise, bit_noise = defense.noises
        assert bit_noise == pytest.approx(3.0 * ratio)
        if mechanism == "laplace":
            assert 2 / update_noise + 1 / bit_noise == pytest.approx(2 / 3.0)
        else:  # two Gaussian releases, by an accountant that composes them one by one
            both = ((update_noise / 2, 1.0, 1), (bit_noise, 1.0, 1))
            together = epsilon_of(both, 1e-5, "rdp")
            assert together == pytest.approx(epsilon_of(((1.5, 1.0, 1),), 1e-5, "rdp"), rel=1e-6)


@pytest.mark.parametrize("quantile", [0.3, 0.8])
@pytest.mark.parametrize("start", [0.01, 100.0])
def test_the_norm_goes_to_the_quantile(quantile: float, start: float) -> None:
    noise = torch.Generator().manual_seed(1)
    lengths = torch.randn(400, generator=noise).exp()
    defense = ClientDP(noise_multiplier=0.5, max_norm=start, quantile=quantile, rate=0.5)
    for _ in range(80):
        bits = defense.bit(lengths, noise)
        defense = defense.at(defense.after([(ClippedBit(one[None]),) for one in bits]))
    assert float((lengths <= defense.max_norm).float().mean()) == pytest.approx(quantile, abs=0.06)


def test_the_bit_says_whether_the_update_was_within() -> None:
    def bit_of(scale: float) -> float:
        defense = ClientDP(noise_multiplier=0.0, quantile=0.5)
        _, bit = sent(defense, update(scale=scale)).shared
        assert isinstance(bit, ClippedBit)
        return float(bit.value)

    assert (bit_of(1e-3), bit_of(10.0)) == (0.5, -0.5)
    noisy = ClientDP(noise_multiplier=2.0, quantile=0.5, bit_noise=1.5)
    noise = torch.Generator().manual_seed(0)
    bits = torch.cat([noisy.bit(torch.ones(1), noise) for _ in range(2000)])
    assert float(bits.mean()) == pytest.approx(0.5, abs=4 * 3 / math.sqrt(2000))
    assert float(bits.std()) == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("chained", [False, True])
def test_everybody_follows_the_norm_from_round_to_round(
    federate: Callable[..., Simulation], intercept: Callable[..., Capture], chained: bool
) -> None:
    own: dict[str, Any] = {"noise_multiplier": 0.0, "max_norm": 1e-3, "quantile": 0.5, "rate": 2.0}
    named, given = "client_dp", own
    if chained:
        named, given = "chain", {"of": ["sign", {"name": "client_dp", **own}]}
    simulation = federate(network="small_cnn", defense=named, settings=given, method="fedavg")
    state, _ = simulation.train(simulation.fresh(), range(1, 3))
    # Nobody is within so small a norm: twice times e^{2 · 0.5}.
    expected = 1e-3 * math.exp(2)
    kept = State.from_flat(state.flat())
    assert kept.public.keys() == {"0/max_norm"}
    seen = intercept(simulation=simulation, state=kept, training=LocalTraining(lr=1.0)).seen
    assert seen.defense is not None
    assert seen.defense[-1].settings["max_norm"] == pytest.approx(expected)
    sent_update = seen.update
    assert sent_update is not None
    assert length(sent_update, 2) == pytest.approx(expected, rel=1e-2)
    assert any(isinstance(s, ClippedBit) for s in seen.shared)
    assert set(seen.before) == set(sent_update.tensors)  # the norm is no parameter


def test_batch_norm_leaves_no_statistics_in_clear(intercept: Callable[..., Capture]) -> None:
    capture = intercept(network="convnet", arguments={"width": 8}, defense="client_dp", batch=2)
    assert capture.seen.buffers is None
    (claim,) = capture.claims
    assert claim.covers == ("update",)
    assert "buffers" not in {gap.what for gap in claim.gaps}


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_multiplier": -0.1},
        {"epsilon": 0.0},
        {"epsilon": 1.0, "noise_multiplier": 1.0},
        {"max_norm": 0.0},
        {"rate": 0.0},
        {"mechanism": "exponential"},
        {"accountant": "gdp"},
        {"delta": 1.0},
        {"quantile": 1.0},
        {"bit_noise": 0.5},
        {"rounds": 0},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClientDP(**wrong)


def test_one_is_noise_and_norm_unless_others_are_set() -> None:
    assert ClientDP().claim.settings == {"z": 1.0, "C (L2)": 1.0}
