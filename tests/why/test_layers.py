"""Layers, explained on a leak that was planted in known ones."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaudit.captures.simulate.exposed_things import expose
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.seeds import generator_for
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.image_metrics import LPIPS, SSIM
from fedaudit.why import layers
from fedaudit.why.map_only import MapOnly

sys.path.insert(0, str(Path(__file__).parent))
from planted_leak import NEEDED, Planted, Rigged, rigged

Federate = Callable[..., Simulation]


@pytest.fixture
def subject(federate: Federate, tmp_path: Path) -> Callable[..., Rigged]:
    """Ready to be explained, with a planted attack."""
    return partial(rigged, federate, tmp_path)


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes most of the scorer's time, and nothing here looks at it."""
    monkeypatch.setattr(LPIPS, "__call__", lambda _, a, b: torch.zeros(len(a)))


def test_layers_sum_to_the_update(intercept: Callable[..., Capture]) -> None:
    """Every number is in one layer, and a layer with all the others is everything."""
    seen = intercept(network="face", method="fedavg").seen
    assert seen.update is not None
    tensors = seen.update.tensors
    found = layers.layers_of(tensors)
    assert list(found) == ["body.1", "body.4", "body.5", "body.6", "embedding", "head"]
    owners = {n: [layer for layer, ps in found.items() if n.startswith(ps)] for n in tensors}
    assert all(len(mine) == 1 for mine in owners.values())
    whole, parts = layers.cuts_of(seen)
    for alone, without in parts.values():
        assert without is not None
        one, rest = (expose(seen, e.only or ()).update for e in (alone, without))
        assert one is not None
        assert rest is not None
        assert not one.tensors.keys() & rest.tensors.keys()
        assert one.tensors.keys() | rest.tensors.keys() == tensors.keys()
    everything = expose(seen, whole.only or ()).update
    assert everything is not None
    assert everything.tensors.keys() == tensors.keys()


def test_layers_are_told_apart(subject: Callable[..., Rigged]) -> None:
    found = layers.explain(subject())
    assert found.all.ssim.value == pytest.approx(1.0)
    assert found.all.prior.value < 0.3
    assert found.all.excess.low > 0
    by_name = {layer.name: layer for layer in found.layers}
    for name, layer in by_name.items():
        assert layer.alone is not None
        assert layer.without is not None
        assert layer.lost is not None
        assert layer.alone.ssim.value < 0.3  # it takes two
        needed = f"{name}.weight" in NEEDED
        assert (layer.without.ssim.value < 0.3) == needed
        assert (layer.lost.value > 0.7) == needed


def test_a_cut_that_no_attack_reads_is_not_tested(
    subject: Callable[..., Rigged], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Reconstruction:
        raise AttackError("no map")

    monkeypatch.setattr(MapOnly, "__call__", refuse)

    class Refuses(Planted):
        def __call__(
            self, seen: Observation, *, generator: torch.Generator, progress: Any = None
        ) -> Reconstruction:
            if seen.update is not None and "body.1.weight" not in seen.update.tensors:
                raise AttackError("nothing to match")
            return super().__call__(seen, generator=generator)

    ready = subject()
    ready.attacks["planted"] = Refuses(ready.simulation.faces.images)
    by_name = {layer.name: layer for layer in layers.explain(ready).layers}
    assert by_name["head"].alone is None  # not a leakage of zero
    assert by_name["body.1"].alone is not None
    assert by_name["body.1"].without is None


def test_the_embedding_alone_is_attacked(intercept: Callable[..., Capture]) -> None:
    """Nothing of the body is shared, which engines that match gradients cannot use."""
    captured = intercept(network="face", method="fedavg")
    assert captured.secret is not None
    seen = expose(captured.seen, ["update:embedding."])
    made, noise = (
        MapOnly(steps=60)(cut, generator=generator_for(0))
        for cut in (seen, without_update(seen, generator_for(1)))
    )
    ours, by_chance = (float(SSIM()(captured.secret.images, r.images)) for r in (made, noise))
    assert ours > by_chance + 0.15
    assert made.objective < noise.objective
    with pytest.raises(AttackError, match="not shared"):
        MapOnly()(expose(captured.seen, ["update:head."]), generator=generator_for(0))
