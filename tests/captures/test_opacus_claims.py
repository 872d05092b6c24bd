"""Claims of differential privacy in scripts that call Opacus."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from claim_files import only, script

SIZE = {"images": 640, "batch_size": 64, "epochs": 1, "rounds": 5}


@pytest.mark.slow
def test_opacus_with_poisson_sampling_is_a_guarantee_over_all_rounds(tmp_path: Path) -> None:
    accounting = pytest.importorskip("dp_accounting")
    call = "make_private(module=m, noise_multiplier=1.0, max_grad_norm=1.0)"
    verdict = only(script(tmp_path, call), **SIZE)
    assert verdict.standing == "guarantee"
    event = accounting.SelfComposedDpEvent(
        accounting.PoissonSampledDpEvent(0.1, accounting.GaussianDpEvent(1.0)), 50
    )
    rdp = accounting.rdp.RdpAccountant().compose(event).get_epsilon(1e-5)
    pld = accounting.pld.PLDAccountant().compose(event).get_epsilon(1e-5)
    composed = verdict.over_rounds[0].epsilon
    assert pld <= composed * 1.001
    assert composed == pytest.approx(rdp, rel=0.03)
    assert any("new one in each round" in reason for reason in verdict.reasons)
    assert verdict.missing == ("δ",)


def test_opacus_without_poisson_sampling_is_contradicted(tmp_path: Path) -> None:
    call = "make_private(noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling=False)"
    verdict = only(script(tmp_path, call), **SIZE)
    assert verdict.standing == "contradicted"
    assert verdict.a_round[0].epsilon == pytest.approx(4.377178, abs=1e-6)  # one pass, μ = 1
    assert "leave poisson_sampling on" in verdict.changes


def test_a_target_is_for_one_engine_and_rounds_add_up(tmp_path: Path) -> None:
    asked = "target_epsilon=2.0, target_delta=1e-4, epochs=1, max_grad_norm=1.0"
    call = f"make_private_with_epsilon({asked})"
    verdict = only(script(tmp_path, call), **SIZE)
    assert verdict.claimed == 2.0
    assert verdict.a_round[0].epsilon == pytest.approx(2.0, rel=0.01)
    assert verdict.over_rounds[0].epsilon > 2.5
    assert "epochs of all rounds" in verdict.changes[0]


def test_what_opacus_cannot_say_alone_is_asked_for(tmp_path: Path) -> None:
    call = "make_private(noise_multiplier=1.0, max_grad_norm=1.0)"
    verdict = only(script(tmp_path, call), rounds=5)
    assert verdict.standing == "no claim"
    assert [name.partition(" (--")[2] for name in verdict.missing] == [
        "images)",
        "batch-size)",
        "epochs)",
    ]


def test_no_noise_is_a_heuristic(tmp_path: Path) -> None:
    call = "make_private(noise_multiplier=0.0, max_grad_norm=1.0)"
    verdict = only(script(tmp_path, call), **SIZE)
    assert verdict.standing == "heuristic"
    assert not verdict.a_round
