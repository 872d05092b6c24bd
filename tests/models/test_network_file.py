"""Networks from TorchScript and torch.export files: the same function, in torch's own layers."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.core.errors import UsageError
from fedaudit.models.batch_norm import batch_norm_layers
from fedaudit.models.derivatives import check_differentiable
from fedaudit.models.foreign_network import ForeignFaceNet, adopt
from fedaudit.models.network_file import digest_of, from_file

sys.path.insert(0, str(Path(__file__).parent))
from networks_in_files import SHAPE, exported, scripted, small, traced

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
SAVES = {"script.pt": scripted, "trace.ts": traced, "export.pt2": exported}


@pytest.fixture(scope="module", params=SAVES)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / request.param
    save: Callable[[nn.Module, Path], Path] = SAVES[request.param]
    return save(small(), path)


def test_the_same_network_comes_back(file: Path) -> None:
    own, made = small(), from_file(path=str(file), image_shape=SHAPE)
    assert [n for n, _ in made.named_parameters()] == [n for n, _ in own.named_parameters()]
    assert made.state_dict().keys() == own.state_dict().keys()
    images = torch.rand(5, *SHAPE)
    for training in (False, True):  # batch norm changes its mode, whatever it was saved in
        own.train(training)
        made.train(training)
        assert torch.allclose(made(images), own(images), atol=1e-6)
    assert all(
        torch.allclose(a, b)
        for a, b in zip(made.state_dict().values(), own.state_dict().values(), strict=True)
    )


def test_attacks_find_its_layers(file: Path) -> None:
    made = from_file(path=str(file), image_shape=SHAPE)
    assert list(batch_norm_layers(made)) == ["stem.1"]
    assert isinstance(made.get_submodule("fc2"), nn.Linear)
    assert sum(isinstance(m, nn.ReLU | nn.MaxPool2d) for m in made.modules()) == 3
    cut = adopt(made, SHAPE)
    assert isinstance(cut, ForeignFaceNet)
    assert cut.first_fc_name == "fc1.weight"
    assert cut.features(torch.rand(2, *SHAPE)).shape == (2, 128)


def test_second_derivatives_are_those_of_the_class(file: Path) -> None:
    def slope(network: nn.Module) -> Tensor:
        network.eval()
        images = torch.linspace(0, 1, 768).view(1, *SHAPE).requires_grad_()
        parameters = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
        scores = torch.func.functional_call(network, parameters, (images,))
        loss = F.cross_entropy(scores, torch.tensor([3]))
        found = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        size = torch.stack([g.square().sum() for g in found]).sum()
        return torch.autograd.grad(size, images)[0]

    made = from_file(path=str(file), image_shape=SHAPE)
    check_differentiable(made, SHAPE)
    assert torch.allclose(slope(made), slope(small()), atol=1e-6)


def test_two_networks_of_one_file_share_nothing(file: Path) -> None:
    one, other = (from_file(path=str(file), image_shape=SHAPE) for _ in range(2))
    with torch.no_grad():
        one.get_parameter("fc1.weight").zero_()
    assert other.get_parameter("fc1.weight").any()


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    path = traced(small(), tmp_path / "net.pt")
    digest = digest_of(str(path))
    from_file(path=str(path), image_shape=SHAPE, sha256=digest)
    traced(small(seed=1), path)
    with pytest.raises(UsageError, match="has changed since"):
        from_file(path=str(path), image_shape=SHAPE, sha256=digest)


class Waits(nn.Module):
    """Decides by its images."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        if bool(x.sum() > 0):
            x = -x
        scores: Tensor = self.fc(x)
        return scores


class Pairs(nn.Module):
    """Gives two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.fc(x.mean((2, 3)))
        return scores, scores


class Fixed(nn.Module):
    """Takes as many images as it was saved with."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(768, 2)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(x.reshape(int(x.shape[0]), 768))
        return scores


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with pytest.raises(UsageError, match="no model file"):
        from_file(path=str(path), image_shape=SHAPE)
    torch.save(small().state_dict(), path)
    with pytest.raises(UsageError, match="bare state dict") as told:
        from_file(path=str(path), image_shape=SHAPE)
    assert "torch.save wrote it, and it holds no program" in str(told.value)
    assert "constants.pkl" not in str(told.value)
    scripted(small(), path)
    with pytest.raises(UsageError, match="state image_shape"):
        from_file(path=str(path))
    with pytest.raises(UsageError, match=r"\[3, 20, 20\]"):
        from_file(path=str(path), image_shape=(3, 20, 20))
    torch.jit.save(torch.jit.freeze(torch.jit.script(small())), path)
    with pytest.raises(UsageError, match="no parameters by name"):
        from_file(path=str(path), image_shape=SHAPE)
    scripted(Waits(), path)
    with pytest.raises(UsageError, match="cannot be followed"):
        from_file(path=str(path), image_shape=SHAPE)
    scripted(Pairs(), path)
    with pytest.raises(UsageError, match=r"cannot be followed"):
        from_file(path=str(path), image_shape=SHAPE)
    fixed = exported(Fixed(), tmp_path / "net.pt2", count=1, free=False)
    with pytest.raises(UsageError, match="free number of images"):
        from_file(path=str(fixed))


def test_no_pickle_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path(tmp_path / "sprung").touch, ())

    for name in ("net.pt", "net.ts", "net.pt2"):
        torch.save({"model": Trap()}, tmp_path / name)
        with pytest.raises(UsageError):
            from_file(path=str(tmp_path / name), image_shape=SHAPE)
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(UsageError):
            from_file(path=str(tmp_path / name), image_shape=SHAPE)
    assert not (tmp_path / "sprung").exists()
