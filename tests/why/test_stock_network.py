"""A network of a library, in color: its layers are named and told apart by `fedaudit why`."""

from pathlib import Path

import pytest

from fedaudit.study.study_file import load_study
from fedaudit.why.parts import Options, explain

STUDY = """
name = "why a stock network leaks"
data = "openpeople"
size = 64
utility = false
[federation]
clients = 3
rounds = 1
held_out = 4
[[scenario]]
name = "fresh"
network = "torchvision:resnet18"
method = "fedavg"
batch_size = 1
threat_model = "D"
attacks = [{ name = "subspace_matching", steps = 20, polish = 1, mends = 0 }]
"""
BLOCKS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]


@pytest.mark.slow
def test_the_blocks_that_give_the_photo_away_are_told_from_those_that_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedaudit.why.prepare_subject.judge_of", lambda *_: (None, None))
    (tmp_path / "study.toml").write_text(STUDY)
    study = load_study(tmp_path / "study.toml")
    found = explain(study, None, tmp_path / "out", Options(parts=("layers",), targets=2))
    assert found.layers is not None
    layers = {layer.name: layer for layer in found.layers.layers}
    assert list(layers) == ["conv1", *BLOCKS, "fc"]
    assert sum(layer.values for layer in layers.values()) > 11_000_000
    assert found.layers.all.ssim.value > 0.1

    # Few positions and wide inputs: what the second stage sends shows a photo without any other.
    # The last stage has a map of 2 × 2 and one row of labels: alone it shows nothing.
    alone = {
        name: layer.alone.ssim.value for name, layer in layers.items() if layer.alone is not None
    }
    second = max(alone["layer2.0"], alone["layer2.1"])
    assert second > 0.15
    assert second > 2 * max(alone["layer4.0"], alone["layer4.1"], alone["fc"])

    lost = {name: layer.lost.value for name, layer in layers.items() if layer.lost is not None}
    assert max(lost["layer2.0"], lost["layer2.1"]) > lost["layer4.1"] + 0.05
