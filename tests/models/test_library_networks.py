"""Networks of torchvision and timm: by name, from numbers and words, and nothing is fetched."""

import socket
import sys
from typing import Any

import pytest
import torch

from fedaudit.core.errors import ConfigError, UsageError
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build
from fedaudit.models.library_networks import FACTORY, from_library, is_library_name


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **settings: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket.socket, "connect", refused)


def test_names() -> None:
    assert is_library_name("torchvision:resnet18")
    assert is_library_name("timm:resnet18")
    assert not is_library_name("torchvision.models:resnet18")  # a factory, which is code
    assert not is_library_name("timm")


def test_the_same_seed_builds_the_same_network() -> None:
    spec = ModelSpec(
        FACTORY, {"name": "torchvision:squeezenet1_1", "arguments": {"num_classes": 3}}
    )
    one, other = (build(spec, seed=4).state_dict() for _ in range(2))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet19", "did you mean resnet1"),
        ("torchvision:deeplabv3_resnet50", "no classification network"),  # it would fetch
        ("timm:resnet_18", "did you mean resnet18"),
        ("timm:hf-hub:somebody/net", "no classification network"),
        ("timm:local-dir:/tmp", "no classification network"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(UsageError, match=message):
        from_library(name=name)


@pytest.mark.parametrize(
    "arguments",
    [
        {"weights": "DEFAULT"},
        {"weights_backbone": "DEFAULT"},
        {"pretrained": True},
        {"pretrained_cfg": {"file": "/etc/passwd"}},
        {"checkpoint_path": "/etc/passwd"},
        {"norm_layer": {"a": 1}},
        {"layers": [[1]]},
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any]) -> None:
    for library in ("torchvision", "timm"):
        with pytest.raises(UsageError, match="is refused"):
            from_library(name=f"{library}:resnet18", arguments=arguments)


def test_arguments_that_the_network_does_not_know() -> None:
    with pytest.raises(ConfigError, match=r"refused its arguments \['colors'\]"):
        from_library(name="torchvision:resnet18", arguments={"colors": 3})


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'fedaudit\[timm\]'"):
        from_library(name="timm:resnet18")
