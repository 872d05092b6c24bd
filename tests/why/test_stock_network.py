"""A network of torchvision's blocks, in color: `fedaudit why` tells its layers apart."""

from pathlib import Path

import pytest

from fedaudit.study.study_file import load_study
from fedaudit.why.parts import Options, explain

STUDY = """
name = "why a stock network leaks"
data = "openpeople"
size = 32
utility = false
[federation]
clients = 3
rounds = 1
held_out = 4
[[scenario]]
name = "fresh"
network = "short_resnet:short_resnet"
method = "fedavg"
batch_size = 1
batch_norm = "eval"
threat_model = "D"
attacks = [{ name = "subspace_matching", steps = 5, polish = 0, mends = 0 }]
"""
NETWORK = """
from collections import OrderedDict

from torch import nn
from torchvision.models.resnet import BasicBlock

def halving(inputs, outputs):
    skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride=2, downsample=skip)

def short_resnet(classes):
    return nn.Sequential(OrderedDict(
        stem=nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        pool=nn.MaxPool2d(3, 2, 1),
        wide=halving(64, 128),
        shrink=nn.MaxPool2d(4),
        last=halving(128, 256),
        mean=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        head=nn.Linear(256, classes),
    ))
"""


@pytest.mark.slow
def test_the_blocks_that_give_the_photo_away_are_told_from_those_that_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedaudit.why.prepare_subject.judge_of", lambda *_: (None, None))
    (tmp_path / "short_resnet.py").write_text(NETWORK)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    study = load_study(tmp_path / "study.toml")
    found = explain(study, None, tmp_path / "out", Options(parts=("layers",), targets=2))
    assert found.layers is not None
    layers = {layer.name: layer for layer in found.layers.layers}
    assert list(layers) == ["stem.0", "wide", "last", "head"]
    assert sum(layer.values for layer in layers.values()) > 1_100_000
    assert found.layers.all.ssim.value > 0.1

    # Few positions and wide inputs: what the first block sends shows a photo without any other. In
    # these five steps the last block, a map of one place, and the head show next to nothing.
    alone = {
        name: layer.alone.ssim.value for name, layer in layers.items() if layer.alone is not None
    }
    assert alone["wide"] > 0.15
    assert alone["wide"] > 2 * max(alone["last"], alone["head"])

    lost = {name: layer.lost.value for name, layer in layers.items() if layer.lost is not None}
    assert lost["wide"] > lost["last"] + 0.05
