"""Claims that a recording states, held against its rounds, its messages and its numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch

import fedaudit
from fedaudit.captures.claims.claim_verdict import ClaimVerdict
from fedaudit.captures.claims.recorded_claims import unmet_claims
from fedaudit.captures.claims.stated_mechanism import RunSize
from fedaudit.captures.format.capture_facts import DpClaim
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.inspect.inspection import inspect
from fedaudit.cli import cli
from fedaudit.cli.ending import end
from fedaudit.core.scenario import Study
from fedaudit.reports.recorded import findings_of
from fedaudit.study.read_claims import read_claims

WHOLE: dict[str, Any] = {"clip": 1.0, "delta": 1e-5, "unit": "client", "where": "client"}
"""A claim but for noise, ε and neighbors."""


def recorded(
    folder: Path,
    claim: DpClaim | None,
    *,
    noise: float = 0.0,
    rounds: int = 2,
    metrics: dict[str, Any] | None = None,
    protections: tuple[str, ...] = (),
    **facts: Any,
) -> Path:
    """A capture of updates of norm 1 with noise of this deviation."""
    shapes = {"a.weight": (16, 32), "b.weight": (16, 64), "c.weight": (40, 40)}
    record = fedaudit.recording(folder, dp=claim, **facts)
    generator = torch.Generator().manual_seed(0)
    for number in range(1, rounds + 1):
        record.broadcast(number, {name: torch.zeros(shape) for name, shape in shapes.items()})
        for client in range(4):
            sent = {
                name: torch.randn(shape, generator=generator) * 0.01 * (k + 1) / 3
                + noise * torch.randn(shape, generator=generator)
                for k, (name, shape) in enumerate(shapes.items())
            }
            record.update(
                number,
                client,
                sent,
                kind="delta",
                examples=8,
                metrics=metrics or {},
                protections=protections,
            )
    return folder


def only(folder: Path) -> ClaimVerdict:
    (verdict,) = read_claims(folder, RunSize()).verdicts
    return verdict


def test_a_claim_that_holds_in_every_round_but_not_over_all_is_contradicted(
    tmp_path: Path,
) -> None:
    claim = DpClaim(noise=1.0, epsilon=4.4, neighbors="add_remove", **WHOLE)  # μ = 1 a round
    once = only(recorded(tmp_path / "one", claim, noise=1.0, rounds=1))
    assert once.standing == "guarantee"
    assert once.a_round[0].epsilon == pytest.approx(4.377178, abs=1e-6)
    twice = only(recorded(tmp_path / "two", claim, noise=1.0, rounds=2))
    assert twice.standing == "contradicted"
    assert "ε = 4.4 holds for one round" in twice.reasons[0]
    assert "over 2 rounds" in twice.reasons[0]


def test_another_neighbor_relation_doubles_the_influence(tmp_path: Path) -> None:
    claim = DpClaim(noise=1.0, epsilon=4.4, neighbors="replace", **WHOLE)
    verdict = only(recorded(tmp_path, claim, noise=1.0, rounds=1))
    assert verdict.standing == "contradicted"
    assert "not even one round" in verdict.reasons[0]


def test_an_epsilon_without_its_unit_is_no_claim(tmp_path: Path) -> None:
    claim = DpClaim(clip=1.0, noise=1.0, epsilon=8.0, delta=1e-5)
    verdict = only(recorded(tmp_path, claim, noise=1.0))
    assert verdict.standing == "no claim"
    assert verdict.missing == ("unit", "neighbor relation", "where the noise is added")
    assert "without its unit is no claim" in verdict.reasons[0]


def test_noise_that_is_not_in_what_was_sent_contradicts_the_claim(tmp_path: Path) -> None:
    claim = DpClaim(noise=5.0, epsilon=8.0, neighbors="add_remove", **WHOLE)
    honest = only(recorded(tmp_path / "with", claim, noise=5.0))
    assert honest.standing == "guarantee"
    silent = only(recorded(tmp_path / "without", claim))
    assert silent.standing == "contradicted"
    assert "the noise is not in what was shared" in silent.reasons[0]


def test_a_sensitivity_below_the_clipping_norm_is_counted(tmp_path: Path) -> None:
    claim = DpClaim(noise=1.0, sensitivity=1e-4, epsilon=10.0, neighbors="add_remove", **WHOLE)
    verdict = only(recorded(tmp_path, claim, noise=1e-4, rounds=1))
    assert verdict.standing == "contradicted"
    assert verdict.a_round[0].epsilon > 1e7


def test_dp_sgd_is_counted_by_steps_and_sampling(tmp_path: Path) -> None:
    claim = DpClaim(
        clip=1.0, noise=1.0, epsilon=3.0, delta=1e-5, unit="example", sampling=0.1,
        neighbors="add_remove", where="client",
    )  # fmt: skip
    verdict = only(recorded(tmp_path, claim, noise=1.0, local_steps=5))
    (over,) = verdict.over_rounds
    assert (over.unit, over.spendings[0].runs, over.spendings[0].sampling) == ("image", 10, 0.1)
    assert verdict.standing == ("guarantee" if over.epsilon <= 3.0 else "contradicted")
    assert verdict.missing == ()


SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "batch_size": 8, "local_steps": 4}
"""Whose steps leave noise of 0.1 · σC / 8 · √4 = σC / 40 in an update."""


def test_dp_sgd_without_its_noise_is_contradicted_by_what_was_sent(tmp_path: Path) -> None:
    claim = DpClaim(
        clip=1.0, noise=8.0, epsilon=8.0, delta=1e-5, unit="image", sampling=0.1,
        neighbors="add_remove", where="client",
    )  # fmt: skip
    honest = only(recorded(tmp_path / "with", claim, noise=8 / 40, **SGD))
    assert honest.standing == "guarantee"
    silent = only(recorded(tmp_path / "without", claim, **SGD))
    assert silent.standing == "contradicted"
    assert "lr · σ·C / batch · √steps = 0.2" in silent.reasons[0]
    assert all(claim.broken for claim in silent.over_rounds)  # no ε is left to be quoted
    assert silent.changes[0].startswith("add the noise to every parameter")
    unknown = only(recorded(tmp_path / "unknown", claim, **{**SGD, "optimizer": "lion"}))
    assert unknown.standing == "guarantee"  # how it scales noise is not known


@pytest.mark.parametrize(
    ("claim", "facts", "words"),
    [
        (
            DpClaim(
                clip=1.0, noise=8.0, epsilon=8.0, delta=1e-5, unit="image", sampling=0.1,
                neighbors="add_remove", where="client",
            ),
            SGD,
            ("CONTRADICTED", "the noise is not in what was shared", "contradicted —"),
        ),
        (None, {"protections": ("NVFlare filter SVTPrivacy",)}, ("CONTRADICTED", "140,666")),
        (
            None,
            {"protections": ("NVFlare filter PercentilePrivacy",)},
            ("labeled 'PercentilePrivacy', and it is none", "Nothing is random", "take the words"),
        ),
    ],
)  # fmt: skip
def test_one_command_on_a_recording_names_the_fault_and_fails(
    tmp_path: Path,
    capsys: Any,
    claim: DpClaim | None,
    facts: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    svt = "NVFlare filter SVTPrivacy" in facts.get("protections", ())
    metrics = {"svt_privacy_budget.epsilon_total": 70_333.0} if svt else None
    folder = recorded(tmp_path / "capture", claim, metrics=metrics, **facts)
    assert end(cli, ["dp", str(folder)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert all(word in out for word in words), out


def test_unmet_claims_are_critical_in_a_report_once(tmp_path: Path) -> None:
    filters = ("NVFlare filter PercentilePrivacy", "NVFlare filter ExcludeVars")
    capture = StoredCapture(recorded(tmp_path / "filter", None, protections=filters))
    (unmet,) = unmet_claims(capture, inspect(capture).protections)
    (finding,) = findings_of(Study("s", ()), (unmet,))
    assert finding.severity == "critical"
    assert "Nothing is random" in finding.evidence
    claim = DpClaim(noise=5.0, epsilon=8.0, neighbors="add_remove", **WHOLE)
    silent = StoredCapture(recorded(tmp_path / "silent", claim))
    shown = inspect(silent).protections
    assert [one.name for one in shown if one.fault] == ["less noise than claimed"]
    assert unmet_claims(silent, shown) == ()  # it is a finding already
    honest = StoredCapture(recorded(tmp_path / "with", claim, noise=5.0))
    assert unmet_claims(honest, inspect(honest).protections) == ()


def test_what_travels_besides_is_named(tmp_path: Path) -> None:
    claim = DpClaim(noise=1.0, epsilon=8.0, neighbors="add_remove", **WHOLE)
    verdict = only(recorded(tmp_path, claim, noise=1.0, metrics={"train-loss": 0.5}))
    assert {gap.what for gap in verdict.outside} == {"counts", "metrics"}
    assert {gap.what for claim in verdict.over_rounds for gap in claim.gaps} == {
        "counts",
        "metrics",
    }


def test_a_stock_filter_of_nvflare_is_found_in_messages_with_what_its_ledger_says(
    tmp_path: Path,
) -> None:
    folder = recorded(
        tmp_path,
        None,
        metrics={"svt_privacy_budget.epsilon_total": 70_333.0},
        protections=("NVFlare filter SVTPrivacy", "NVFlare filter PercentilePrivacy"),
    )
    svt, percentile = read_claims(folder, RunSize()).verdicts
    assert svt.standing == "contradicted"
    assert svt.over_rounds[0].epsilon == pytest.approx(2 * 70_333.0)
    assert percentile.standing == "heuristic"


def test_a_recording_without_a_claim_claims_nothing(tmp_path: Path) -> None:
    assert read_claims(recorded(tmp_path, None), RunSize()).verdicts == ()


def test_no_noise_at_all(tmp_path: Path) -> None:
    claim = DpClaim(noise=0.0, epsilon=1.0, **WHOLE)
    assert only(recorded(tmp_path, claim)).standing == "contradicted"


def test_what_the_documentation_breaks_on_purpose_is_found(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "explanation" / "claimed_and_shown.md"
    monkeypatch.chdir(tmp_path)
    exec(page.read_text().split("```python\n")[1].split("```")[0], {})
    assert end(cli, ["dp", "broken"]) == 1
    assert "the noise is not in what was shared" in " ".join(capsys.readouterr().out.split())
