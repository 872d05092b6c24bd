"""Claims of differential privacy in NVFlare's job files."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from fedaudit.captures.claims.protection_catalog import judge
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism
from fedaudit.core.errors import ConfigError
from fedaudit.study.read_claims import read_claims

sys.path.insert(0, str(Path(__file__).parent))
from claim_files import only, write_job


def test_svt_privacy_as_shipped_is_contradicted_by_its_own_arithmetic(tmp_path: Path) -> None:
    job = write_job(tmp_path, ("svt_privacy.SVTPrivacy", {"data_kinds": ["WEIGHT_DIFF"]}))
    verdict = only(job, parameters=7_033_290)
    assert verdict.standing == "contradicted"
    assert verdict.claimed == 0.1
    assert verdict.a_round[0].epsilon == pytest.approx(70_333.0, abs=0.1)
    assert verdict.over_rounds[0].epsilon == pytest.approx(3 * 70_333.0, abs=0.5)
    assert any("cosine" in reason and "0.011" in reason for reason in verdict.reasons)
    assert verdict.grave


@pytest.mark.slow
def test_what_svt_privacy_spends_and_leaves_is_what_nvflare_says() -> None:
    """The filter itself, on an update of heavy tails."""
    svt = pytest.importorskip("nvflare.app_common.filters.svt_privacy")
    from nvflare.apis.dxo import DXO, DataKind
    from nvflare.apis.fl_context import FLContext
    from nvflare.apis.shareable import Shareable

    np.random.seed(0)  # which NVFlare draws from
    update = {"w": np.random.standard_t(2, 40_000) * 1e-3, "b": np.random.standard_t(2, 17) * 1e-3}
    before = np.concatenate([update["w"], update["b"]])
    filtered = svt.SVTPrivacy().process_dxo(
        DXO(DataKind.WEIGHT_DIFF, data=dict(update)), Shareable(), FLContext()
    )
    ledger = filtered.get_meta_prop("svt_privacy_budget")
    verdict = judge(StatedMechanism(name="SVTPrivacy", place=""), RunSize(parameters=40_017))
    assert verdict.a_round[0].epsilon == pytest.approx(ledger["epsilon_total"], rel=1e-12)
    after = np.concatenate([filtered.data["w"], filtered.data["b"]])
    cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
    assert abs(cosine) < 0.011 + 3 / math.sqrt(len(before))


def test_percentile_privacy_labeled_dp_is_none(tmp_path: Path) -> None:
    (tmp_path / "config_fed_client.conf").write_text(
        """
        format_version = 2
        task_result_filters = [
          {
            # Apply differential privacy via percentile clipping
            tasks = ["train"]
            filters = [
              { path = "nvflare.app_common.filters.percentile_privacy.PercentilePrivacy"
                args { percentile = 10, gamma = 0.01 } }
            ]
          }
        ]
        """
    )
    verdict = only(tmp_path)
    assert verdict.standing == "heuristic"
    assert verdict.grave
    assert "labeled 'differential privacy', and it is none" in verdict.reasons[0]
    assert not verdict.a_round


def test_without_the_label_it_is_a_heuristic_and_nothing_grave(tmp_path: Path) -> None:
    verdict = only(write_job(tmp_path, ("percentile_privacy.PercentilePrivacy", {"gamma": 0.02})))
    assert verdict.standing == "heuristic"
    assert not verdict.grave
    assert "cut at ±0.02" in verdict.reasons[0]


def test_encryption_and_left_out_layers_are_heuristics(tmp_path: Path) -> None:
    job = write_job(
        tmp_path,
        ("exclude_vars.ExcludeVars", {"exclude_vars": ["fc2.weight"]}),
        ("../app_opt.he.model_encryptor.HEModelEncryptor", {"encrypt_layers": ["fc1.weight"]}),
    )
    left_out, encrypted = read_claims(job, RunSize()).verdicts
    assert left_out.standing == encrypted.standing == "heuristic"
    assert "fc2.weight stay on the device" in left_out.reasons[0]
    assert encrypted.outside[0].what == "update"
    assert encrypted.changes[0] == "encrypt all layers"


def test_an_unknown_filter_is_not_tested(tmp_path: Path) -> None:
    verdict = only(write_job(tmp_path, ("mine.SecretSauce", {})))
    assert verdict.standing == "no claim"
    assert "not tested" in verdict.reasons[0]


def test_svt_without_the_size_of_the_model_says_what_a_million_costs(tmp_path: Path) -> None:
    verdict = only(write_job(tmp_path, ("svt_privacy.SVTPrivacy", {})))
    assert verdict.standing == "contradicted"
    assert "10,000 a round for each million parameters" in verdict.reasons[0]
    assert verdict.missing[0] == "number of parameters (--parameters)"


def test_svt_with_a_stated_release_is_counted_with_it(tmp_path: Path) -> None:
    settings = {"epsilon": 1.0, "epsilon_release": 2.0}
    verdict = only(write_job(tmp_path, ("svt_privacy.SVTPrivacy", settings)), parameters=1000)
    assert verdict.a_round[0].epsilon == pytest.approx(3.0)
    assert verdict.over_rounds[0].epsilon == pytest.approx(9.0)


def test_a_job_of_another_version_is_refused(tmp_path: Path) -> None:
    job = write_job(tmp_path, ("svt_privacy.SVTPrivacy", {}), version=1)
    with pytest.raises(ConfigError, match="format_version is 1, and only 2"):
        read_claims(job, RunSize())
