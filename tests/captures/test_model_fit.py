"""Audits with every kind of model, and of recordings whose names are not the model's."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.gathering.gather import gather
from fedaudit.captures.audit.audit_request import Request
from fedaudit.captures.audit.capture_study import study_of
from fedaudit.captures.format.capture_network import model_of
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.observations import observations
from fedaudit.captures.inspect.model_fit import fit
from fedaudit.cli import cli
from fedaudit.core.errors import ConfigError, RunFolderError, UsageError
from fedaudit.core.observation import Observation
from fedaudit.core.registry import create
from fedaudit.core.scenario import Choice, Study
from fedaudit.models.batch_norm import batch_norm_layers
from fedaudit.models.foreign_network import ForeignFaceNet
from fedaudit.reports.build import build_report
from fedaudit.study.jobs import expand
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.session import open_run
from fedaudit.study.sources import source_of
from fedaudit.study.work import Work

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from networks_in_files import SHAPE, exported, scripted, small, traced

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
OWN = "networks_in_files:Small"
SEARCH = [Choice("inverting_gradients", {"steps": 3})]
BRIEF = [Choice("inverting_gradients", {"steps": 1, "restarts": 1})]


def record(
    folder: Path,
    network: nn.Module,
    rename: Callable[[str], str] = str,
    shape: tuple[int, int, int] = SHAPE,
    **facts: Any,
) -> Path:
    """Two clients, each one step on one image, batch norm in evaluation mode."""
    network.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    known: Any = {"image_shape": shape, "lr": 0.1, "local_steps": 1, "batch_size": 1, **facts}
    with fedaudit.recording(folder, batch_norm="eval", **known) as run:
        run.broadcast(1, {rename(name): value for name, value in before.items()})
        for client in range(2):
            network.load_state_dict(before)
            network.zero_grad()
            image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(client))
            F.cross_entropy(network(image), torch.tensor([client])).backward()  # type: ignore[no-untyped-call]
            torch.optim.SGD(network.parameters(), lr=0.1).step()
            sent = {rename(name): value for name, value in network.state_dict().items()}
            run.update(1, f"c{client}", sent, kind="weights", examples=1)
    network.load_state_dict(before)
    return folder


def requested(path: Path, **more: Any) -> Study:
    return study_of(Request(**{"path": path, "attacks": SEARCH, **more})).study


def first_seen(study: Study) -> Observation:
    jobs: Any = expand(study)
    cell = next(j.cell for j in jobs if j.cell.role == "audit")
    return source_of(study, RunFolder(Path())).capture(cell).seen


def rebuilt(study: Study) -> Tensor:
    (choice,) = study.scenarios[0].attacks
    attack = create("attacks", choice.name, choice.settings)
    images: Tensor = attack(first_seen(study), generator=torch.Generator().manual_seed(0)).images
    return images


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("c") / "c", small(), classes=10)


@pytest.fixture(scope="module")
def own(capture: Path) -> Tensor:
    return rebuilt(requested(capture, model=OWN))


@pytest.mark.parametrize(
    ("save", "name"), [(scripted, "n.pt"), (traced, "n.ts"), (exported, "n.pt2")]
)
def test_a_file_is_as_good_as_the_class(
    capture: Path, own: Tensor, tmp_path: Path, save: Callable[..., Path], name: str
) -> None:
    file = save(small(seed=1), tmp_path / name)  # its weights are not those of the run
    study = requested(capture, model=str(file))
    assert study.scenarios[0].network.label == name
    assert study.data.settings["model"] == str(file)
    assert len(study.data.settings["model_sha256"]) == 64
    evidence = gather(first_seen(study))
    assert isinstance(evidence.model, ForeignFaceNet)
    assert evidence.first_fc is not None  # the hidden layer gives its input away
    assert [m.training for m in batch_norm_layers(evidence.model).values()] == [False]
    assert evidence.labels is not None
    assert evidence.labels.tolist() == [0]
    assert torch.allclose(rebuilt(study), own, atol=1e-4)
    save(small(seed=2), file)
    with pytest.raises(UsageError, match="has changed since this audit began"):
        rebuilt(study)


@pytest.mark.slow  # a long search
def test_networks_of_libraries(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=5)
    path = record(tmp_path / "c", network, shape=(3, 32, 32), classes=5, protections=())
    made = rebuilt(requested(path, model="torchvision:resnet18", attacks=BRIEF))
    assert made.shape == (1, 3, 32, 32)
    assert made.std() > 0
    pytest.importorskip("timm")
    images = torch.rand(2, 3, 32, 32)
    one, other = (
        gather(first_seen(requested(path, model=f"{library}:resnet18"))).model.eval()(images)
        for library in ("torchvision", "timm")
    )
    assert torch.allclose(one, other, atol=1e-5)
    stored = StoredCapture(path)
    (note,) = fit(stored, model_of(stored.facts, "torchvision:resnet34"), [1], []).notes
    assert "'layer1.2.conv1.weight' the first" in note


def test_the_number_of_classes(tmp_path: Path) -> None:
    path = record(tmp_path / "c", small(7))
    with pytest.raises(UsageError, match=r"'fc2.weight' is \[7, 16\]") as told:
        requested(path, model=OWN)
    hint = "State it: fedaudit.recording(CAPTURE, classes=7)."
    assert str(told.value).endswith(hint)
    exec(  # the hint as it stands
        hint.removeprefix("State it: ").removesuffix("."), {"fedaudit": fedaudit, "CAPTURE": path}
    )
    assert requested(path, model=OWN).scenarios
    with pytest.raises(UsageError, match="Save the model with 7 classes"):
        requested(path, model=str(traced(small(10), tmp_path / "n.pt")))
    wrong = record(tmp_path / "wrong", small(7), classes=9)
    with pytest.raises(UsageError, match="says classes = 9: correct it to 7"):
        requested(wrong, model=OWN)


def behind(prefix: str) -> Callable[[str], str]:
    return lambda name: f"{prefix}.{name}"


PARTS = {"stem": "entry", "conv": "middle", "norm": "scale", "fc1": "hidden", "fc2": "head"}


def other_layers(name: str) -> str:
    first, _, rest = name.partition(".")
    return f"{PARTS[first]}.{rest}"


@pytest.mark.parametrize(
    ("rename", "options"),
    [
        (behind("backbone"), ["backbone="]),
        (behind("a.b"), ["auto"]),
        (other_layers, ["auto"]),
        (other_layers, [f"{new}={old}" for old, new in PARTS.items()]),
    ],
)
def test_a_mapped_recording_gives_the_same_bytes(
    capture: Path, tmp_path: Path, rename: Callable[[str], str], options: list[str]
) -> None:
    path = record(tmp_path / "c", small(), rename, classes=10)
    with pytest.raises(UsageError, match="does not fit") as told:
        requested(path, model=OWN)
    assert "--rename auto" in str(told.value)
    plain = first_seen(requested(capture, model=OWN))
    seen = first_seen(requested(path, model=OWN, rename=options))
    same(plain.before, seen.before)
    for one, other in zip(plain.shared, seen.shared, strict=True):
        same(one.tensors, other.tensors)  # type: ignore[attr-defined]


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_update_whose_names_differ_from_the_broadcast(capture: Path, tmp_path: Path) -> None:
    stored = StoredCapture(capture)
    facts: Any = {"image_shape": SHAPE, "classes": 10, "lr": 0.1, "local_steps": 1, "batch_size": 1}
    with fedaudit.recording(tmp_path / "c", batch_norm="eval", **facts) as run:
        run.broadcast(1, stored.broadcast(1))
        sent = next(stored.messages(1)).tensors()
        run.update(1, "c0", {f"net.{n}": v for n, v in sent.items()}, kind="weights", examples=1)
    with pytest.raises(UsageError, match="--rename OLD=NEW"):
        requested(tmp_path / "c", model=OWN)
    seen = first_seen(requested(tmp_path / "c", model=OWN, rename=["net="]))
    same(seen.shared[0].tensors, first_seen(requested(capture, model=OWN)).shared[0].tensors)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_mapping_is_part_of_the_run(capture: Path, tmp_path: Path) -> None:
    path = record(tmp_path / "c", small(), behind("net"), classes=10)
    one = Request(path=path, model=OWN, attacks=SEARCH, rename=["auto"], clients=["c0"])
    plan = study_of(one)
    note = "12 names of the recording were mapped to the model's: net.stem.0.weight → stem.0.weight"
    assert any(text.startswith(note) for text in plan.notes)
    settings = plan.study.data.settings
    assert settings["rename"] == [["net", ""]]
    runs = {}
    for name, study in (
        ("mapped", plan.study),
        ("plain", requested(capture, model=OWN, clients=["c0"])),
    ):
        with open_run(tmp_path / name, study) as opened:
            for job in opened.todo:
                Work(study, opened.folder, opened.manifest.evidence)(job)
        cells = sorted((tmp_path / name / "cells").glob("*.safetensors"))
        runs[name] = {cell.name: load_file(cell) for cell in cells}
    assert runs["plain"]
    assert runs["mapped"].keys() == runs["plain"].keys()
    for cell, plain in runs["plain"].items():
        same(runs["mapped"][cell], plain)
    results = build_report(tmp_path / "mapped", "redacted")
    assert any(text.startswith(note) for text in results.limitations)
    by_hand = requested(path, model=OWN, rename=["net="])
    assert by_hand.data.settings["rename"] == settings["rename"]  # found or said: the same study
    other = requested(path, model=OWN, rename=["net=", "other=one"], clients=["c0"])
    with (
        pytest.raises(RunFolderError, match="holds another study"),
        open_run(tmp_path / "mapped", other),
    ):
        pass


def test_what_is_not_unique_is_refused(tmp_path: Path) -> None:
    path = record(
        tmp_path / "c",
        nn.Sequential(nn.Flatten(), *(nn.Linear(768, 768, bias=False) for _ in range(2))),
    )
    with pytest.raises(UsageError, match=r"beyond doubt: .*have the same shape"):
        requested(path, model=f"{__name__}:twins", rename=["auto"])
    with pytest.raises(ConfigError, match="OLD=NEW"):
        requested(path, model=OWN, rename=["nothing"])


class Twins(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(768, 768, bias=False)
        self.b = nn.Linear(768, 768, bias=False)


def twins() -> nn.Module:
    return Twins()


class Silent(nn.Module):
    """Has no second derivative, and says nothing of it."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.fc = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = Once.apply(self.fc(x.flatten(1)))  # type: ignore[no-untyped-call]
        return scores


class Once(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *slopes: Tensor) -> Tensor:
        slope: Tensor = slopes[0] * context.saved_tensors[0].cos()
        return slope


class Attends(nn.Module):
    """Its fused attention has no second derivative on a CPU; the same of its gate."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.query = nn.Linear(16, 16)
        self.gate = nn.Hardsigmoid()
        self.fc = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = F.scaled_dot_product_attention(self.gate(self.query(x)), x, x).mean((1, 2))
        scores: Tensor = self.fc(rows)
        return scores


def test_what_cannot_be_derived_twice_is_told(tmp_path: Path) -> None:
    path = record(tmp_path / "silent", Silent())
    told = study_of(Request(path=path, model=f"{__name__}:Silent", attacks=SEARCH)).notes
    assert any("second derivatives of the model are not those of its gradient" in n for n in told)


class Refuses(Attends):
    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = super().forward(F.hardsigmoid(self.query(x)))
        return scores


def test_what_torch_cannot_derive_twice(tmp_path: Path) -> None:
    path = record(tmp_path / "attends", Attends())
    plan = study_of(Request(path=path, model=f"{__name__}:Attends", attacks=SEARCH, clients=["c0"]))
    assert not any("derivatives" in note for note in plan.notes)
    with open_run(tmp_path / "run", plan.study) as opened:
        audits: Any = [job for job in opened.todo if "--audit--" in job.key]
        for job in audits:
            Work(plan.study, opened.folder, opened.manifest.evidence)(job)
    assert len(list((tmp_path / "run" / "cells").glob("*--audit--*.safetensors"))) == 1
    path = record(tmp_path / "refuses", Refuses())
    with pytest.raises(UsageError, match="cannot be derived twice, as every search must"):
        requested(path, model=f"{__name__}:Refuses")


@pytest.mark.parametrize("name", ["evil.pt", "evil.pt2", "evil.ts", "evil:make", "torchvision:x"])
def test_a_model_that_only_the_capture_names_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("open('sprung', 'w')\ndef make(): open('sprung', 'w')\n")
    for suffix in (".pt", ".ts", ".pt2"):
        (tmp_path / f"evil{suffix}").touch()

    def opened(*args: object, **settings: object) -> None:
        raise AssertionError(f"{args} was opened")

    for place in ("read_program", "digest_of"):
        monkeypatch.setattr(f"fedaudit.models.network_file.{place}", opened)
    path = record(tmp_path / "c", small(), model=name)
    with pytest.raises(UsageError, match="to build it is to run code that a file chose"):
        requested(path)
    done = CliRunner().invoke(cli, ["audit", str(path), "-o", "run"], standalone_mode=False)
    assert isinstance(done.exception, UsageError)
    if "." in name:
        with pytest.raises(UsageError, match="that a file chose"):
            list(observations(StoredCapture(path), allow_code=True))
    assert not (tmp_path / "sprung").exists()


def test_arguments_of_a_capture_fetch_nothing(tmp_path: Path) -> None:
    for arguments in ({"weights": "DEFAULT"}, {"pretrained": True}, {"checkpoint_path": "/x"}):
        path = record(tmp_path / str(len(list(tmp_path.iterdir()))), small(), arguments=arguments)
        for model in ("torchvision:resnet18", "timm:resnet18"):
            with pytest.raises(UsageError, match="is refused"):
                requested(path, model=model)
