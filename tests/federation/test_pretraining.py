"""The start from public faces: what it trains, and that it is kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedaudit.core.errors import DataError
from fedaudit.core.observation import ModelSpec
from fedaudit.data.face_set import FaceSet
from fedaudit.federation import pretraining
from fedaudit.federation.pretraining import pretrain
from fedaudit.federation.private_projector_method import PrivateProjectorMethod
from fedaudit.federation.simulation import Simulation
from fedaudit.models.batch_norm import running_statistics
from fedaudit.models.build_network import build, parameters_of

SPEC = ModelSpec("face", {"classes": 30, "image_size": 16, "norm": "batch"})


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, and four public people."""
    noise = torch.Generator().manual_seed(0)
    people = torch.rand(4, 1, 3, 16, 16, generator=noise)
    images = people + 0.05 * torch.rand(4, 3, 3, 16, 16, generator=noise)
    names = tuple(name for name in "abcd" for _ in range(3))
    public = FaceSet("public", images.flatten(0, 1).clamp(0, 1), names, names, "none")
    monkeypatch.setattr(pretraining, "create", lambda *_: public)
    monkeypatch.setattr("fedaudit.files.cache.cache_dir", lambda: tmp_path)
    pretraining._kept.cache_clear()
    return tmp_path / "learned"


def test_it_is_trained_once_a_machine(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = parameters_of(build(SPEC, seed=3))
    first = pretrain(SPEC, server, public="public", steps=3, seed=1)
    (file,) = kept.glob("*.safetensors")
    monkeypatch.setattr(pretraining, "_train", lambda *_: pytest.fail("trained again"))
    pretraining._kept.cache_clear()  # another process
    again = pretrain(SPEC, server, public="public", steps=3, seed=1)
    assert first.keys() == server.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(first["head.weight"], server["head.weight"])
    assert not torch.equal(first["embedding.weight"], server["embedding.weight"])
    # Another seed, number of steps or network is another start.
    for spec, steps, seed in (
        (SPEC, 3, 2),
        (SPEC, 4, 1),
        (ModelSpec("face", {**SPEC.arguments, "dim": 8}), 3, 1),
    ):
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            pretrain(spec, server, public="public", steps=steps, seed=seed)
    assert file.exists()


def test_any_network_takes_its_running_statistics_along(kept: Path) -> None:
    """A library's, whose head has another name, and whose number of classes happens to agree."""
    spec = ModelSpec("torchvision:resnet18", {"classes": 4, "image_size": 16})
    model = build(spec, seed=3)
    server = {**parameters_of(model), **running_statistics(model)}
    first = pretrain(spec, server, public="public", steps=2, seed=1)
    assert first.keys() == server.keys()
    assert torch.equal(first["fc.weight"], server["fc.weight"])
    assert torch.equal(first["fc.bias"], server["fc.bias"])
    for name in ("conv1.weight", "bn1.running_mean", "layer4.1.bn2.running_var"):
        assert not torch.equal(first[name], server[name])
    assert all(bool(value.isfinite().all()) for value in first.values())
    assert list(kept.glob("*.safetensors"))


def test_a_damaged_file_is_replaced(kept: Path) -> None:
    server = parameters_of(build(SPEC, seed=3))
    first = pretrain(SPEC, server, public="public", steps=2, seed=1)
    (file,) = kept.glob("*.safetensors")
    file.write_bytes(b"half of it")
    pretraining._kept.cache_clear()
    again = pretrain(SPEC, server, public="public", steps=2, seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert file.stat().st_size > 1000


def test_no_steps_are_no_training(kept: Path) -> None:
    server = parameters_of(build(SPEC, seed=3))
    assert pretrain(SPEC, server, public="public", steps=0, seed=1) == server
    assert not kept.exists()


@pytest.mark.parametrize("method", ["fedavg", "private_projector"])
def test_audited_photos_under_another_name_are_refused(
    federate: Callable[..., Simulation], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    steps = {"pretrain_steps": 2} if method == "fedavg" else {}
    simulation = federate(method=method, public="public", **steps)
    if method == "private_projector":
        made = PrivateProjectorMethod(public="public", pretrain_steps=2)
        simulation = replace(simulation, method=made)
    audited = simulation.faces
    strangers = replace(audited, name="public", images=(1 - audited.images).clamp(0, 1))
    few = replace(strangers, images=torch.cat([strangers.images[:7], audited.images[5:8]]))
    monkeypatch.setattr(pretraining, "create", lambda *_: few)
    monkeypatch.setattr("fedaudit.federation.simulation.pretrain", lambda _, server, **__: server)
    pretraining._hashes.cache_clear()
    told = f"3 of the {len(audited.images)} audited photos are in 'public'"
    with pytest.raises(DataError, match=told):
        simulation.fresh()
    monkeypatch.setattr(pretraining, "create", lambda *_: strangers)
    monkeypatch.setattr(PrivateProjectorMethod, "start", lambda _, __, server, ___: server)
    pretraining._hashes.cache_clear()
    simulation.fresh()
    pretraining._hashes.cache_clear()
