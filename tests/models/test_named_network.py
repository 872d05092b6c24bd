"""Networks that a factory of somebody's builds: what it may give, and what is said of the rest."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build
from fedaudit.models.named_network import create_network

MODULE = """
import torch
from torch import nn

def plain(classes): return nn.Sequential(nn.Flatten(), nn.Linear(48, classes))
def parallel(classes): return nn.DataParallel(plain(classes))
def compiled(classes): return nn.DataParallel(torch.compile(plain(classes)))
def scripted(classes): return torch.jit.script(plain(classes))
def lazy(classes): return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))
def half(classes): return plain(classes).bfloat16()
def mixed(classes): return nn.Sequential(nn.Conv2d(3, 4, 1), plain(classes).double())
def exits(classes): raise SystemExit(3)
built = plain(5)
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules to name networks of, on the path."""
    texts = {
        "given_nets": MODULE,
        "given_syntax": "def make(:",
        "given_error": "weights = open('absent.pth')",
        "given_script": "import argparse; raise SystemExit(2)",
        "given_missing": "import not_installed_anywhere",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("factory", ["plain", "parallel", "compiled"])
def test_a_network_comes_out_of_its_wrappers(factory: str) -> None:
    network = create_network(f"given_nets:{factory}", {"classes": 7})
    assert type(network) is nn.Sequential
    assert list(dict(network.named_parameters())) == ["1.weight", "1.bias"]
    assert network(torch.zeros(2, 3, 4, 4)).shape == (2, 7)


@pytest.mark.parametrize(
    ("factory", "precision"), [("half", torch.float32), ("mixed", torch.float64)]
)
def test_a_network_is_built_in_one_precision_single_at_least(
    factory: str, precision: torch.dtype
) -> None:
    """As attacks compute: what was recorded is widened, too."""
    network = build(ModelSpec(f"given_nets:{factory}", {"classes": 7}))
    assert {p.dtype for p in network.parameters()} == {precision}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("given_nets:scripted", "returned TorchScript, .* name the file"),
        ("given_nets:lazy", r"layer '1' \(LazyLinear\) has no weights .* run it once"),
        ("given_nets:built", "built already: name the class or function"),
        ("given_nets:exits", "raised SystemExit: 3"),
        ("given_nets:pline", "given_nets has nothing of that name: did you mean 'plain'"),
        ("given_nets.plain", "named with a colon, given_nets:plain"),
        ("given_syntax:make", "given_syntax raised SyntaxError: invalid syntax"),
        ("given_error:make", "given_error raised FileNotFoundError"),
        ("given_script:make", "given_script raised SystemExit: 2.*__main__"),
        ("given_missing:make", "No module named 'not_installed_anywhere'. .* is installed in"),
    ],
)
def test_what_is_no_factory_of_networks_is_told(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        create_network(name, {"classes": 7})
    assert "\n" not in str(refusal.value)
