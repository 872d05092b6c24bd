"""Claims of differential privacy in job files, apps and scripts: read, never run."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedaudit.captures.claims.claim_verdict import ClaimVerdict
from fedaudit.captures.claims.protection_catalog import CATALOG, judge
from fedaudit.captures.claims.relaxed_json import parse
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism
from fedaudit.core.errors import ConfigError, UsageError
from fedaudit.study.read_claims import read_claims

FILTERS = "nvflare.app_common.filters"
APP = """
from flwr.clientapp.mod import LocalDpMod, {imports}
DELTA = 1e-5

def client(context):
    config = context.run_config
    return ClientApp(mods=[LocalDpMod({arguments}), {mods}])
"""


def write_job(folder: Path, *filters: tuple[str, dict[str, Any]], version: int = 2) -> Path:
    """A job as NVFlare's recipes export it."""
    config = folder / "faces" / "app" / "config"
    config.mkdir(parents=True)
    chain = [{"path": f"{FILTERS}.{path}", "args": arguments} for path, arguments in filters]
    client = {
        "format_version": version,
        "executors": [],
        "task_result_filters": [{"tasks": ["train"], "filters": chain}],
    }
    workflow = {"path": "nvflare.app_common.workflows.fedavg.FedAvg"}
    server = {
        "format_version": 2,
        "workflows": [{**workflow, "args": {"num_clients": 4, "num_rounds": 3}}],
    }
    (config / "config_fed_client.json").write_text(json.dumps(client))
    (config / "config_fed_server.json").write_text(json.dumps(server))
    return folder


def write_app(folder: Path, arguments: str, *, config: str = "", mods: str = "") -> Path:
    """A Flower app; it must never be imported, so that it fails where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "app"\n[tool.flwr.app.config]\nnum-server-rounds = 2\n' + config
    )
    source = APP.format(arguments=arguments, mods=mods, imports=mods or "LocalDpMod")
    (folder / "client_app.py").write_text(f"raise SystemExit('this was run')\n{source}")
    return folder


def only(folder: Path, **size: Any) -> ClaimVerdict:
    (verdict,) = read_claims(folder, RunSize(**size)).verdicts
    return verdict


# --- the public cases -----------------------------------------------------------------------------


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


# --- Flower ---------------------------------------------------------------------------------------


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


# --- NVFlare --------------------------------------------------------------------------------------


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


# --- Opacus ---------------------------------------------------------------------------------------

SIZE = {"images": 640, "batch_size": 64, "epochs": 1, "rounds": 5}


def script(folder: Path, call: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(f"model, optimizer, loader = engine.{call}\n")
    return folder


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


# --- reading --------------------------------------------------------------------------------------


def test_every_entry_of_the_catalog_answers_to_nothing_and_to_anything() -> None:
    for name, entry in CATALOG.items():
        for value in (None, "x", -1.0, 0.0, 1e300, True, ("a",)):
            settings = {} if value is None else dict.fromkeys(entry.positions, value)
            verdict = judge(
                StatedMechanism(name=name, place="", settings=settings), RunSize(rounds=2)
            )
            assert verdict.standing in {"guarantee", "heuristic", "contradicted", "no claim"}
            if value in (None, "x"):
                assert verdict.standing != "guarantee"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = ${HOME}", "refers to something else"),
        ("include url(x)", "refers to something else|has no value|stands where"),
        ("a = [1, 2", "ends in the middle"),
        ("a = {" * 100, "too deeply"),
        ("[" * 100_000, "too deeply"),
        ('a = "x" } b', "stands"),
    ],
)
def test_what_a_job_file_may_not_hold(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"def (", b"x" * 2_000_001, b"\0"])
def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_judged(
    tmp_path: Path, content: bytes
) -> None:
    app = write_app(tmp_path, "1.0, 2.0, 1.0, DELTA")
    (app / "broken.py").write_bytes(content)
    report = read_claims(app, RunSize())
    assert [verdict.mechanism for verdict in report.verdicts] == ["LocalDpMod"]
    assert len(report.problems) == 1
    assert "broken.py" in report.problems[0]


def test_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere = script(tmp_path / "elsewhere", "make_private(noise_multiplier=1.0)")
    app = write_app(tmp_path / "app", "1.0, 2.0, 1.0, DELTA")
    (app / "linked").symlink_to(elsewhere)
    (app / "linked.py").symlink_to(elsewhere / "train.py")
    assert [v.mechanism for v in read_claims(app, RunSize()).verdicts] == ["LocalDpMod"]


def test_a_folder_of_nothing_and_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no capture, no NVFlare job"):
        read_claims(tmp_path, RunSize())
    with pytest.raises(UsageError, match="there is no"):
        read_claims(tmp_path / "absent", RunSize())
    with pytest.raises(UsageError, match="larger than 1/n"):
        read_claims(tmp_path, RunSize(delta=0.5, clients=8))
