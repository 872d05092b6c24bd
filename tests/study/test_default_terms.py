"""What nobody asked for by name uses nothing whose terms bar commercial use."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fedaudit
from fedaudit.captures.audit.choose_attacks import DEFAULT_ATTACKS
from fedaudit.core.errors import ConfigError
from fedaudit.core.scenario import Choice, Scenario, Study
from fedaudit.core.source import SourceFacts
from fedaudit.files import asset_store
from fedaudit.files.asset_table import ASSETS
from fedaudit.study import demo_study
from fedaudit.study.deciding_files import judge_assets, needed_assets
from fedaudit.study.study_check import check_study

BARRED = {name for name, asset in ASSETS.items() if not asset.commercial}
RECORDED = Scenario("recorded", attacks=tuple(Choice(name) for name in DEFAULT_ATTACKS))


def used(study: Study) -> set[str]:
    source = SourceFacts(originals=True, gallery=True)
    return {*needed_assets(study, source), *judge_assets(study)}


def test_terms_and_the_mark_agree() -> None:
    assert {name for name, a in ASSETS.items() if "non-commercial" in a.terms} == BARRED != set()


@pytest.mark.parametrize(
    "study",
    [
        demo_study.study(quick=True),
        demo_study.study(quick=False),
        demo_study.color_study(quick=False),
        Study("as it comes", (Scenario("one"),)),
        Study("attacks of `fedaudit audit`", (RECORDED,)),
        Study("fedface", (Scenario("one", method=Choice("fedface")),)),
        Study("private projector", (Scenario("one", method=Choice("private_projector")),)),
    ],
    ids=lambda study: study.name,
)
def test_defaults_need_no_barred_file(study: Study) -> None:
    assert "openpeople" in used(study)
    assert not used(study) & BARRED


@pytest.mark.parametrize(
    "study",
    [
        Study("attack", (Scenario("one", attacks=(Choice("gan_inversion"),)),)),
        Study("data", (Scenario("one"),), data=Choice("synthetic")),
        Study("method", (Scenario("one", method=Choice("fedface", {"public": "synthetic"})),)),
    ],
    ids=lambda study: study.name,
)
def test_what_is_asked_for_is_told(study: Study) -> None:
    assert used(study) & BARRED


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({}, ""),
        ({"data": Choice("synthetic")}, "face_gan"),
        ({"data": Choice("celeba", {"root": "x"})}, "celeba"),
    ],
)
def test_a_stated_use_refuses_what_may_not_serve_it(changed: dict[str, Any], named: str) -> None:
    study = replace(demo_study.study(quick=True), use="commercial", **changed)
    if not named:
        return check_study(study)
    with pytest.raises(ConfigError, match=named):
        check_study(study)
    return check_study(replace(study, use="research"))


def test_an_update_is_attacked_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by what is declared: whatever an attack opens passes here."""

    def refuse(name: str, *rest: Any, **more: Any) -> Path:
        raise AssertionError(f"{name} was opened")

    monkeypatch.setattr(asset_store, "path", refuse)
    model = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(288, 4))
    photo, label = torch.rand(1, 3, 16, 16), torch.tensor([2])
    loss = nn.functional.cross_entropy(model(photo), label)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    update = dict(zip(dict(model.named_parameters()), gradients, strict=True))
    rebuilt = fedaudit.attack(
        model, update, image_shape=(3, 16, 16), settings={"steps": 20, "polish": 1}
    )
    assert rebuilt.images.shape == photo.shape
