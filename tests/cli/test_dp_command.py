"""`fedaudit dp`: the table, the details, JSON and exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedaudit.cli import cli
from fedaudit.cli.ending import end

SCRIPT = "engine.make_private(noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling={})\n"
SIZE = ("--images", 640, "--batch-size", 64, "--epochs", 1, "--rounds", 2)


def dp(*args: object) -> int:
    return end(cli, ["dp", *map(str, args)])


def test_a_claim_that_holds(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "train.py").write_text(SCRIPT.format(True))
    assert dp(tmp_path, *SIZE) == 0
    out = capsys.readouterr().out
    assert "GUARANTEE: a round gives ε = " in out
    assert "train.py:1" in out


def test_a_contradicted_one_fails_and_says_what_to_change(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "train.py").write_text(SCRIPT.format(False))
    assert dp(tmp_path, *SIZE) == 1
    out = capsys.readouterr().out
    table = next(line for line in out.splitlines() if line.startswith("make_private "))
    assert "contradicted" in table
    assert "leave poisson_sampling on" in table


def test_what_cannot_be_judged_is_inconclusive(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "train.py").write_text(SCRIPT.format(True))
    assert dp(tmp_path) == 3
    assert "missing   number of rounds (--rounds)" in capsys.readouterr().out
    (tmp_path / "train.py").write_text("pass\n")
    assert dp(tmp_path) == 3
    assert "nothing is claimed" in capsys.readouterr().out


def test_json(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "train.py").write_text(SCRIPT.format(False))
    dp(tmp_path, *SIZE, "--json")
    (verdict,) = json.loads(capsys.readouterr().out)["verdicts"]
    assert verdict["standing"] == "contradicted"
    assert verdict["over_rounds"][0]["unit"] == "image"
    assert verdict["over_rounds"][0]["rounds"] == 2


def test_names_of_strangers_steer_no_terminal(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.flwr.app.config]\na = "\\u001b[31m"\n')
    (tmp_path / "app.py").write_text('LocalDpMod(1.0, config["a"], 1.0, 1e-5)\n')
    assert dp(tmp_path) == 3
    assert "\x1b" not in capsys.readouterr().out


def test_a_setting_that_is_no_number(tmp_path: Path, capsys: Any) -> None:
    assert dp(tmp_path, "--set", "epsilon=many") == 2
    assert "write NAME=NUMBER" in capsys.readouterr().err


@pytest.mark.slow
def test_the_defenses_of_a_study(tmp_path: Path, capsys: Any) -> None:
    study = tmp_path / "study.toml"
    study.write_text(
        """
        name = "claims"
        size = 32
        [data]
        name = "synthetic"
        [federation]
        clients = 2
        rounds = 3
        held_out = 2
        local_steps = 1
        [[scenario]]
        name = "s"
        network = "mlp"
        defenses = ["none", { name = "client_dp", noise_multiplier = 2.0 },
                    { name = "dpsgd", noise_multiplier = 1.0 }]
        """
    )
    assert dp(study, "--json") == 0
    verdicts = {v["mechanism"]: v for v in json.loads(capsys.readouterr().out)["verdicts"]}
    assert verdicts["none"]["standing"] == "heuristic"
    client = verdicts["client_dp"]
    assert client["standing"] == "guarantee"
    assert client["over_rounds"][0]["rounds"] == 3
    assert client["over_rounds"][0]["epsilon"] > client["a_round"][0]["epsilon"]
    assert verdicts["dpsgd"]["over_rounds"][0]["unit"] == "image"


STUDY = """
name = "canaries"
size = 32
[federation]
clients = 2
identities = 4
rounds = 3
held_out = 2
batch_size = 1000
local_steps = 1
[[scenario]]
name = "s"
network = "lenet"
method = "fedsgd"
defenses = [{ name = "DEFENSE", epsilon = 2.0, delta = 1e-4 }]
"""


def test_canaries_in_a_right_and_in_a_broken_training(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "study"))
    study = tmp_path / "study.toml"
    study.write_text(STUDY.replace("DEFENSE", "dpsgd"))
    assert dp(study, "--canaries", 200, "--json") == 0
    out = capsys.readouterr()
    assert "200 canaries can show" in out.err
    (right,) = json.loads(out.out)
    assert right["claimed_epsilon"] == pytest.approx(2.0, rel=0.02)
    assert right["verdict"] == "nothing above the claim"
    study.write_text(STUDY.replace("DEFENSE", "faulty_dp:NoNoise"))
    assert dp(study, "--canaries", 200, "--load-code") == 1
    out = capsys.readouterr().out
    assert "CRITICAL, above its claim whatever the mechanism: no noise" in out
    assert "FOUND no noise: canaries that did not train moved by ±0" in out


def test_too_few_canaries_and_what_is_no_study(tmp_path: Path, capsys: Any) -> None:
    study = tmp_path / "study.toml"
    study.write_text(STUDY.replace("DEFENSE", "dpsgd"))
    assert dp(study, "--canaries", 10) == 2
    assert "10 canaries are too few for any statement" in capsys.readouterr().err
    assert dp(study, "--canaries", 100, "--images", 600) == 2
    assert "--images states a claim over other data than the canaries'" in capsys.readouterr().err
    study.write_text(
        STUDY.replace('"DEFENSE", epsilon = 2.0, delta = 1e-4', '"dplc", min_size = 1')
    )
    assert dp(study, "--canaries", 100) == 2
    assert "for one class embedding, and canaries are images" in capsys.readouterr().err
    assert dp(tmp_path, "--canaries", 100) == 2
    assert "canaries are for a study file" in capsys.readouterr().err
