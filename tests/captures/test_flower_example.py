"""The example of Flower, tapped: what its clients give away, under secure sums and noise too."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("flwr", reason="pip install 'fedaudit[flower]'")

from flwr.app import RecordDict

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observations

sys.path.insert(0, str(Path(__file__).parent))
import nodes

EXAMPLE = Path(__file__).parents[2] / "examples" / "flower"
SHORT: dict[str, Any] = {
    "candidates": 32,
    "latent_steps": 5,
    "stage_steps": 10,
    "pixel_steps": 100,
}
"""A search of a third of the default's time, which finds these faces to an SSIM of 0.98."""


@pytest.fixture(autouse=True)
def inside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages ask which run they belong to."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "capture"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLE))  # of Ray's workers
    yield
    for name in [n for n in sys.modules if n.startswith("faces_app")]:
        del sys.modules[name]


@pytest.mark.slow  # test_flower has what is recorded, without Ray
def test_the_example_is_simulated_captured_and_attacked(
    folder: Path, example: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's own simulation on real faces; one update gives the face away."""
    import runpy

    from fedaudit.attacks.presets.gan_inversion import gan_inversion
    from fedaudit.attacks.presets.subspace_matching import subspace_matching
    from fedaudit.scoring.image_metrics import SSIM

    arguments = ["simulate.py", str(folder), "--clients", "2", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(EXAMPLE / "simulate.py"), run_name="__main__")
    from faces_app.task import load_data

    captured = list(observations(StoredCapture(folder), model="faces_app.task:Net"))
    assert len(captured) == 2
    theirs = torch.cat([load_data(client, 2)[0][:1] for client in range(2)])
    for attack in (gan_inversion(), subspace_matching()):  # as they are, without any setting
        found = attack(captured[0].seen, generator=torch.Generator().manual_seed(0)).images
        assert max(SSIM()(theirs, found.expand_as(theirs)).tolist()) > 0.9


@pytest.mark.slow  # test_flower_protections has sums under SecAgg, of smaller networks
def test_the_example_under_secagg_gives_away_everybody(folder: Path, example: None) -> None:
    """The example's own clients and server, without Ray: a sum of three faces is three faces."""
    from faces_app.protected import secret_app, serve_secretly
    from faces_app.server_app import facts_of
    from faces_app.task import load_data
    from flwr.app import Context

    from fedaudit.attacks.presets.gan_inversion import gan_inversion
    from fedaudit.scoring.image_metrics import SSIM

    settings = {
        "clients": 3,
        "num-server-rounds": 1,
        "local-steps": 1,
        "batch-size": 1,
        "lr": 0.1,
        "capture": str(folder),
    }
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    serve_secretly(nodes.Nodes(secret_app, 3), context, settings, facts_of(settings))
    (captured,) = observations(StoredCapture(folder), model="faces_app.task:Net")
    assert captured.seen.client == "aggregate of 3 clients"
    assert captured.seen.batch_size == 3
    made = gan_inversion(**SHORT)(captured.seen, generator=torch.Generator().manual_seed(0))
    assert made.adaptive == "estimated"
    theirs = torch.cat([load_data(client, 3)[0][:1] for client in range(3)])
    for face in theirs:
        assert max(SSIM()(face.expand_as(made.images), made.images).tolist()) > 0.9


def test_the_example_under_local_dp_says_what_attacks_adapt_to(folder: Path, example: None) -> None:
    from faces_app.protected import claim, private_app
    from faces_app.server_app import facts_of, serve

    settings = {
        "num-server-rounds": 1,
        "local-steps": 1,
        "batch-size": 1,
        "lr": 0.1,
        "capture": str(folder),
        "model": "",
    }
    grid = nodes.Nodes(private_app(50.0), 3)
    serve(grid, settings, {**facts_of(settings), "dp": claim(50.0)})
    captured = list(observations(StoredCapture(folder), model="faces_app.task:Net"))
    assert len(captured) == 3
    for capture in captured:
        assert capture.seen.defense is not None
        assert [d.name for d in capture.seen.defense] == ["clipping", "gaussian_noise"]
        assert how_adaptive(capture.seen) == "known"
        # The noise that is claimed is the noise that Flower added.
        update = capture.seen.update
        assert update is not None
        sent = torch.cat([v.flatten() for v in update.tensors.values()])
        assert float(sent.std()) == pytest.approx(capture.seen.defense[1].settings["std"], rel=0.02)


def test_noise_that_nobody_states_and_that_drowns_nothing_is_named(
    folder: Path, example: None
) -> None:
    """A sham ε leaves the update in sight; what noise there is shows in its feature maps."""
    from faces_app.protected import private_app
    from faces_app.server_app import facts_of, serve

    from fedaudit.captures.audit.audit_request import Request
    from fedaudit.captures.audit.capture_study import study_of

    settings = {"num-server-rounds": 1, "local-steps": 1, "batch-size": 1, "lr": 0.1, "model": ""}
    settings |= {"capture": str(folder)}
    serve(nodes.Nodes(private_app(5000.0), 3), settings, facts_of(settings))
    study = study_of(Request(path=folder, model="faces_app.task:Net")).study
    (seen,) = (one for one in study.data.settings["seen"] if one["name"] == "noise")
    assert seen["value"] == pytest.approx(9.6896e-4, rel=0.02)  # √(2 ln(1.25 / 1e-5)) / 5000
    # Flower draws the noise anew in each run, so that the last digit differs.
    assert f"standard deviation of about {seen['value']:.3g}" in seen["evidence"]
