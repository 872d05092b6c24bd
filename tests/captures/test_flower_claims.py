"""Claims of differential privacy in Flower's apps."""

import sys
from pathlib import Path

import pytest

from fedaudit.captures.claims.protection_catalog import judge
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism
from fedaudit.study.read_claims import read_claims

sys.path.insert(0, str(Path(__file__).parent))
from claim_files import only, write_app


def test_a_sensitivity_that_is_not_the_clipping_norm_is_contradicted(tmp_path: Path) -> None:
    config = (
        "dp-clipping-norm = 1.0\ndp-sensitivity = 1e-4\ndp-epsilon = 10.0\n"
        "[tool.flwr.federations.local]\noptions.num-supernodes = 8\n"
    )
    names = ("clipping-norm", "sensitivity", "epsilon")
    arguments = ", ".join(f'float(config["dp-{name}"])' for name in names)
    verdict = only(write_app(tmp_path, f"{arguments}, DELTA", config=config))
    assert verdict.standing == "contradicted"
    assert verdict.claimed == 10
    assert "10,000 times too weak" in verdict.reasons[0]
    # μ = 1/(1e-4·√(2 ln 1.25e5)/10); ε of it, and of twice as much for another set of photos.
    assert verdict.a_round[0].epsilon == pytest.approx(2.13106545e8, rel=1e-6)
    assert verdict.a_round[1].epsilon == pytest.approx(8.5225012e8, rel=1e-6)


def test_a_consistent_local_dp_is_a_guarantee_with_its_epsilon(tmp_path: Path) -> None:
    verdict = only(write_app(tmp_path, "1.0, 2.0, 1.0, DELTA"))
    assert verdict.standing == "guarantee"
    none, other = verdict.a_round
    assert none.epsilon < other.epsilon < 1  # the formula errs to the safe side for ε ≤ 1
    assert verdict.over_rounds[0].rounds == 2
    assert "neighbor relation" in verdict.missing
    assert {"counters", "counts", "metrics"} == {gap.what for gap in verdict.outside}


def test_a_sensitivity_that_is_a_little_too_small_may_still_do(tmp_path: Path) -> None:
    verdict = only(write_app(tmp_path, "1.0, 0.9, 0.5, DELTA"))
    assert verdict.a_round[0].epsilon <= 0.5
    assert verdict.standing == "guarantee"
    assert not any("too weak" in reason for reason in verdict.reasons)


def test_the_formula_of_local_dp_fails_for_large_epsilon(tmp_path: Path) -> None:
    verdict = only(write_app(tmp_path, "1.0, 1.0, 10.0, DELTA"))
    assert verdict.standing == "contradicted"
    assert "holds for ε ≤ 1 only" in verdict.reasons[0]


def test_what_is_set_at_run_time_is_missing_unless_it_is_told(tmp_path: Path) -> None:
    app = write_app(tmp_path, "1.0, 2.0, options.epsilon, DELTA")
    verdict = only(app)
    assert verdict.standing == "no claim"
    assert verdict.missing == ("epsilon (set at run time)",)
    (told,) = read_claims(app, RunSize(), values={"epsilon": 1.0}).verdicts
    assert told.standing == "guarantee"


@pytest.mark.parametrize("name", ["fixedclipping_mod", "adaptiveclipping_mod", "secaggplus_mod"])
def test_modifiers_without_noise_are_heuristics(tmp_path: Path, name: str) -> None:
    app = write_app(tmp_path, "1.0, 2.0, 1.0, DELTA", mods=name)
    verdicts = read_claims(app, RunSize()).verdicts
    assert [(v.mechanism, v.standing) for v in verdicts] == [
        ("LocalDpMod", "guarantee"),
        (name, "heuristic"),
    ]


@pytest.mark.parametrize("side", ["Server", "Client"])
@pytest.mark.parametrize("clipping", ["Fixed", "Adaptive"])
def test_noise_of_the_server_protects_from_others(side: str, clipping: str) -> None:
    name = f"DifferentialPrivacy{side}Side{clipping}Clipping"
    settings = {"noise_multiplier": 1.0, "num_sampled_clients": 10}
    verdict = judge(StatedMechanism(name=name, place="", settings=settings), RunSize(rounds=4))
    assert verdict.standing == "guarantee"
    assert verdict.a_round[0].covers == ("global model",)
    assert verdict.a_round[0].epsilon == pytest.approx(4.377178, abs=1e-6)  # μ = 1
    assert "update" in {gap.what for gap in verdict.outside}
    assert ("norm_bit" in {gap.what for gap in verdict.outside}) == (
        (side, clipping) == ("Client", "Adaptive")
    )
    silent = judge(
        StatedMechanism(name=name, place="", settings=settings | {"noise_multiplier": 0.0}),
        RunSize(),
    )
    assert silent.standing == "heuristic"


def test_a_delta_that_publishes_a_client_is_contradicted(tmp_path: Path) -> None:
    config = "[tool.flwr.federations.local]\noptions.num-supernodes = 8\n"
    verdict = only(write_app(tmp_path, "1.0, 2.0, 1.0, 0.2", config=config))
    assert verdict.standing == "contradicted"
    assert "larger than 1/n = 0.125 for n = 8 clients" in verdict.reasons[0]
