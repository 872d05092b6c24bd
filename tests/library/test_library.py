"""The library: one update attacked, one study audited, one run read, all from Python."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fedaudit
from fedaudit.attacks.closed_form.analytic import Analytic
from fedaudit.core.errors import (
    ConfigError,
    RunFolderError,
    UnknownNameError,
    UsageError,
)
from fedaudit.core.observation import LocalTraining
from fedaudit.core.scenario import Choice, Federation, Scenario, Study
from fedaudit.defenses.dpsgd import DPSGD
from fedaudit.study.scheduler import Event

sys.path.insert(0, str(Path(__file__).parent))
from plain_networks import LABELS, SHAPE, cnn, drawn, gradient, mlp

# --- an update ------------------------------------------------------------------------------------


def test_a_search_brings_the_image_of_a_plain_cnn_back() -> None:
    model = cnn()
    photo = drawn(model)
    settings = {"steps": 40, "restarts": 5}  # one start may end elsewhere, by the machine
    rebuilt = fedaudit.attack(
        model, gradient(model, photo, LABELS), "idlg", image_shape=SHAPE, settings=settings
    )
    assert (rebuilt.images - photo).square().mean() < 5e-3  # 0.08 is a guess
    assert rebuilt.images.shape == photo.shape
    assert rebuilt.labels.tolist() == [3]


@pytest.mark.parametrize("kind", ["gradient", "delta"])
def test_closed_forms_are_exact_and_the_model_is_left_alone(kind: Any) -> None:
    model = mlp().eval()
    photo = drawn(model)
    update = gradient(model, photo, LABELS)
    training = None
    if kind == "delta":
        training = LocalTraining(lr=0.5)
        update = {name: -0.5 * value for name, value in update.items()}
    model[1].weight.requires_grad_(True).grad = torch.ones_like(model[1].weight)  # type: ignore[index]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sent = {name: value.clone() for name, value in update.items()}
    rebuilt = fedaudit.attack(
        model, update, "analytic", image_shape=SHAPE, kind=kind, training=training, defense=()
    )
    torch.testing.assert_close(rebuilt.images, photo, atol=1e-4, rtol=0)
    assert rebuilt.adaptive == "none needed"
    assert not model.training
    assert (model[1].weight.grad == 1).all()  # type: ignore[index]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, sent[name]) for name, value in update.items())


@pytest.mark.parametrize("of_model", [torch.float32, torch.float64])
@pytest.mark.parametrize("of_update", [torch.float32, torch.float64])
def test_updates_and_models_in_double_precision_are_taken(
    of_model: torch.dtype, of_update: torch.dtype
) -> None:
    model = mlp()
    photo = drawn(model).to(of_model)
    update = gradient(model.to(of_model), photo, LABELS)
    sent = {name: value.to(of_update) for name, value in update.items()}
    rebuilt = fedaudit.attack(model, sent, "analytic", image_shape=SHAPE)
    torch.testing.assert_close(rebuilt.images, photo.float(), atol=1e-4, rtol=0)


def test_photos_come_back_as_they_were_before_normalization() -> None:
    model = mlp()
    photo = drawn(model)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    scale = torch.tensor(std).view(3, 1, 1)
    update = gradient(model, (photo - torch.tensor(mean).view(3, 1, 1)) / scale, LABELS)
    rebuilt = fedaudit.attack(model, update, "analytic", image_shape=SHAPE, mean=mean, std=std)
    torch.testing.assert_close(rebuilt.images, photo, atol=1e-3, rtol=0)


def test_the_seed_decides_and_an_attack_may_be_an_object() -> None:
    from fedaudit.attacks import inverting_gradients

    model = mlp()
    update = gradient(model, drawn(model), LABELS)
    first, second, other, drawn_here = (
        fedaudit.attack(model, update, inverting_gradients(steps=2), image_shape=SHAPE, **how)
        for how in (
            {"seed": 1},
            {"seed": 1},
            {"seed": 2},
            {"generator": torch.Generator().manual_seed(1)},
        )
    )
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.images, drawn_here.images)


def test_a_model_in_half_precision_and_a_frozen_layer() -> None:
    model = mlp()
    photo = drawn(model)
    model[3].requires_grad_(False)  # type: ignore[index]
    loss = nn.functional.cross_entropy(model(photo), LABELS)
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    update = dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))
    halves = {name: value.double() for name, value in update.items()}
    rebuilt = fedaudit.attack(model.half(), halves, "analytic", image_shape=SHAPE)
    assert (rebuilt.images - photo).square().mean() < 1e-4


def test_a_head_that_stays_on_the_device_is_not_told_to_the_attack() -> None:
    model = cnn()
    photo = drawn(model)
    update = gradient(model, photo, LABELS)
    head = ("5.weight", "5.bias")
    for name in head:
        update.pop(name)
    results = []
    for value in (0.0, 5.0):
        with torch.no_grad():
            model[5].weight.fill_(value)  # type: ignore[index]
        settings = {"steps": 2, "unknown": "guessed"}
        results.append(
            fedaudit.attack(
                model,
                update,
                "inverting_gradients",
                image_shape=SHAPE,
                unshared=head,
                settings=settings,
            )
        )
    assert torch.equal(results[0].images, results[1].images)


def test_a_defense_is_said_by_an_object() -> None:
    model = mlp()
    update = gradient(model, drawn(model), LABELS)
    settings = {"steps": 2}
    told = fedaudit.attack(
        model,
        update,
        "inverting_gradients",
        image_shape=SHAPE,
        defense=DPSGD(noise_multiplier=0.1),
        settings=settings,
    )
    assert told.adaptive == "known"


class Guess:
    """Ignores what it saw, and does not say whether it adapted."""

    needs = frozenset[Any]()
    reads = Analytic.reads

    def __call__(self, seen: Any, *, generator: Any, progress: Any = None) -> Any:
        return fedaudit.Reconstruction(torch.zeros(1, *seen.image_shape), torch.tensor([-1]))


def test_an_attack_of_ones_own_that_says_nothing_has_not_adapted() -> None:
    model = mlp()
    update = gradient(model, drawn(model), LABELS)
    assert fedaudit.attack(model, update, Guess(), image_shape=SHAPE).adaptive == "no"


@pytest.mark.parametrize("end", ["log_softmax", "half", "view", "clamp"])
def test_what_follows_the_only_linear_layer_does_not_matter(end: str) -> None:
    """As in PyTorch's own examples, which end in log_softmax."""

    class Ending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 8, 3, stride=2)
            self.head = nn.Linear(72, 10)

        def forward(self, images: Tensor) -> Tensor:
            scores: Tensor = self.head(torch.sigmoid(self.body(images)).flatten(1))
            if end == "log_softmax":
                return nn.functional.log_softmax(scores, 1)
            return {"half": scores / 2, "view": scores.view(-1, 10), "clamp": scores.clamp(-9, 9)}[
                end
            ]

    model = Ending()
    update = gradient(model, drawn(model), LABELS)
    settings = {"steps": 3, "restarts": 1}
    for attack in ("inverting_gradients", "idlg", "gion"):
        rebuilt = fedaudit.attack(model, update, attack, image_shape=SHAPE, settings=settings)
        assert rebuilt.labels.tolist() == [3]


# --- a study and a run ----------------------------------------------------------------------------

STUDY = Study(
    name="tiny",
    scenarios=(
        Scenario("fresh", targets=2, attacks=(Choice("inverting_gradients", {"steps": 2}),)),
    ),
    size=32,
    federation=Federation(clients=3, rounds=1),
    utility=False,
)


@pytest.mark.slow
def test_a_study_is_audited_and_its_run_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[Event] = []
    run = fedaudit.audit(STUDY, output=tmp_path / "run", workers=1, on_event=events.append)
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "run" / "report.html").exists()
    assert run.failed == {}
    assert len(events) > 4
    assert [row["defense"] for row in run.rows] == ["none"]
    assert {"reid.value", "ssim.value", "n_targets", "verdict.kind"} <= set(run.rows[0])
    audited = [one for one in run.trials if one["role"] == "audit"]
    assert len(audited) == 2
    assert all(0 <= one["ssim"] <= 1 and one["person"] for one in audited)
    assert len({frozenset(one) for one in run.trials}) == 1
    again = fedaudit.load(str(tmp_path / "run"))
    assert (again.rows, again.trials) == (run.rows, run.trials)
    assert again.results.headline == run.results.headline


def test_studies_and_runs_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        fedaudit.load(tmp_path)
    with pytest.raises(ConfigError):
        fedaudit.audit(tmp_path / "study.toml", output=tmp_path / "run")
    wrong = replace(STUDY, scenarios=(Scenario("fresh", attacks=(Choice("idlgg"),)),))
    with pytest.raises(UnknownNameError, match="did you mean 'idlg'"):
        fedaudit.audit(wrong, output=tmp_path / "run")
    with pytest.raises(UsageError, match="torch cannot compute on 'nowhere'"):
        fedaudit.audit(STUDY, output=tmp_path / "run", device="nowhere")


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fedaudit.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(fedaudit, name)
    assert name in dir(fedaudit)
    assert isinstance(value, str) or (value.__doc__ or "").strip()


def test_a_name_that_is_not_there_names_the_closest() -> None:
    with pytest.raises(AttributeError, match="Did you mean 'attack'"):
        _ = fedaudit.atack


@pytest.mark.parametrize("statement", ["import fedaudit", "import fedaudit.cli"])
def test_nothing_heavy_is_imported_before_it_is_used(statement: str) -> None:
    heavy = "{'torch', 'numpy', 'pydantic', 'scipy', 'rich'} & set(sys.modules)"
    probe = f"import sys; {statement}; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
