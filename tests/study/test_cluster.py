"""Clusters on this machine: Ray with two nodes of which one is killed, and an array of Slurm."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_faults import STUDY, content, finish, records, start

from fedaudit.core.errors import AssetError, RunFolderError, UsageError
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.study import execution
from fedaudit.study.executors.choice import Place
from fedaudit.study.executors.node_check import NodeCheck, node_check
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.work import Work

RAY = (sys.executable, "-m", "ray.scripts.scripts")
PORT = 26_437


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that nobody disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "study.toml").write_text(STUDY)
    finish(folder, "--workers", "2", "--tensorboard", "log")
    return folder


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What a run logged for TensorBoard, but for its pace."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = reader.EventAccumulator(str(folder / "log")).Reload()
    names = {*log.Tags()["scalars"]} - {"jobs/a_minute"}
    return {name: sorted((e.step, e.value) for e in log.Scalars(name)) for name in names}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Two nodes of a Ray cluster, each with its temporary folder: the numbers of their raylets."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
    head = ["--head", f"--port={PORT}", "--include-dashboard=false"]
    raylets: dict[str, int] = {}
    try:
        for name, role in (("a", head), ("b", [f"--address=127.0.0.1:{PORT}"])):
            command = [*RAY, "start", *role, *common, f"--temp-dir={short(tmp_path, name)}"]
            subprocess.run(command, check=True, env=environment, capture_output=True, timeout=180)
            new = set(processes("raylet/raylet")) - set(raylets.values())
            raylets[name] = new.pop()
        yield raylets
    finally:
        for pid in raylets.values():
            kill(pid)
        for pid in processes(f"--port={PORT}", str(short(tmp_path, ""))):
            kill(pid)
        for name in "ab":
            shutil.rmtree(short(tmp_path, name), ignore_errors=True)


def short(folder: Path, name: str) -> Path:
    """A folder whose path is short enough for a socket."""
    return Path("/tmp") / f"fedaudit-ray-{os.getpid()}{name}"


def processes(*words: str) -> Iterator[int]:
    """Processes of this user whose command has one of the words."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if any(word in command for word in words) and int(entry.name) != os.getpid():
                yield int(entry.name)


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_study_outlives_a_node_of_a_ray_cluster(
    calm: Path, nodes: dict[str, int], tmp_path: Path
) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    (folder / "study.toml").write_text(STUDY)
    run = start(folder, "--executor", "ray", "--address", f"127.0.0.1:{PORT}")
    deadline = time.monotonic() + 300
    while len(records(folder)) < 4:
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kill(nodes["b"])
    _, err = run.communicate(timeout=600)
    assert run.returncode in {0, 3}, err.decode()
    assert content(folder) == content(calm)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [("--executor", "slurm", "--slurm", "cluster=local", "--workers", "2"), ("--executor", "ray")],
    ids=["slurm", "ray"],
)
def test_all_executors_give_the_same_results(
    calm: Path, tmp_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = short(tmp_path, "c")
    monkeypatch.setenv("RAY_TMPDIR", str(logs))
    (tmp_path / "study.toml").write_text(STUDY)
    finish(tmp_path, *options, "--tensorboard", "log")
    assert content(tmp_path) == content(calm)
    assert curves(tmp_path) == curves(calm)
    assert "objective/fresh/none/inverting_gradients/audit" in curves(calm)
    assert not list(tmp_path.glob("run/.*"))
    assert logs.exists() is ("ray" in options)
    assert not list(logs.glob("ray/session_2*"))
    shutil.rmtree(logs, ignore_errors=True)


def test_an_address_without_a_cluster_is_one_message(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    wrong = r"no Ray cluster answers at '127.0.0.1:1'.*ray start"
    executor = Place("ray", address="127.0.0.1:1").make()
    with pytest.raises(UsageError, match=wrong), executor(print, (), None):
        pass


def test_slurm_without_slurm_is_one_message(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    executor = Place("slurm", slurm={"partition": "x"}).make()
    wrong = "Slurm does not take the array"
    with pytest.raises(UsageError, match=wrong), executor(print, (), tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_node_that_differs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.json").touch()
    node_check(tmp_path, print)()
    with pytest.raises(UsageError, match=r"has fedaudit .* is run by 9.9: .* Install 9.9 there"):
        NodeCheck(tmp_path, version="9.9")()
    with pytest.raises(RunFolderError, match=r"not shared. Put --output on a file system that"):
        node_check(tmp_path / "elsewhere", print)()
    with pytest.raises(RunFolderError, match="in which the command was given"):
        NodeCheck(None, place=tmp_path / "elsewhere")()


def test_a_node_without_assets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario("fresh", attacks=(Choice("gan_inversion"),))
    work = Work(Study("s", (scenario,), judges=(Choice("dlib"),)), RunFolder(tmp_path), "none")
    check = node_check(None, work)
    assert {"face_gan", "orl", "lpips_alex", "openpeople", "face_embedder"} <= {*check.assets}
    check()
    monkeypatch.setenv("FEDAUDIT_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("FEDAUDIT_OFFLINE", "1")
    refused = r"takes no cells; what is finished is kept.*assets fetch.*asset '\w+'.*is not cached"
    with pytest.raises(AssetError, match=refused):
        check()
    assert "face_embedder" not in work.assets  # a judge that is missing here is asked of nobody


def test_a_machine_without_the_judge_of_what_is_finished_does_not_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def path(name: str, say: object = None) -> Path:
        if name == "sface":
            raise AssetError("asset 'sface' is not cached")
        return tmp_path

    monkeypatch.setattr("fedaudit.files.asset_store.path", path)
    study = Study("s", (Scenario("fresh", attacks=(Choice("idlg"),)),), judges=(Choice("sface"),))
    notes: list[str] = []
    folder = RunFolder(tmp_path)
    execution._fetch(study, folder, notes.append)
    assert notes[0].startswith("note: identity will not be tested")
    folder.save_facts({"hashes": {"asset sface": "0" * 64}})
    with pytest.raises(AssetError, match=r"was judged by sface, which is missing here.*is kept"):
        execution._fetch(study, folder, notes.append)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"address": "x:1"}, "--address is of a Ray cluster"),
        ({"slurm": {"partition": "x"}}, "--slurm says how to submit"),
        ({"executor": "in-process", "workers": 2}, "one job at a time"),
    ],
)
def test_options_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Place(**settings).make()
