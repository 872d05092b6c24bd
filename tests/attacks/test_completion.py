"""Gradients behind a step of Adam, from the deepest layer up."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.gathering.gather import gather, gather_inputs
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.attacks.search import completion, matching_attack
from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.attacks.search.completion import complete_evidence
from fedaudit.attacks.search.search_run import SearchRun
from fedaudit.core.observation import DefenseFacts, LocalTraining, ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.models.build_network import build
from fedaudit.scoring.image_metrics import PSNR

SIDE = 16
ADAM = LocalTraining(lr=1e-3, batch_size=2, optimizer="adam")


def small_network(*, classes: int, image_size: int, widths: tuple[int, int]) -> nn.Module:
    """Maps of few places, and many channels."""
    del image_size
    inner, outer = widths
    head = nn.Linear(outer, classes)
    nn.init.normal_(head.weight, std=0.15)  # gradients large enough that Adam hides some
    return nn.Sequential(
        nn.Conv2d(3, 48, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(48, inner, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(inner, outer, 3, 1, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        head,
    )


class StoppedError(Exception):
    """What ends an attack in a test."""


SPEC = ModelSpec(
    f"{__name__}:small_network", {"classes": 8, "image_size": SIDE, "widths": (192, 320)}
)
NARROW = replace(SPEC, arguments={**SPEC.arguments, "widths": (96, 192)})
"""Enough where the numbers that were kept are known as they are, of one photo."""


@pytest.fixture(scope="module")
def photos(faces: FaceSet) -> Tensor:
    """Two people's, in tints of their own."""
    tints = torch.tensor([[0.9, 0.6, 0.5], [0.5, 0.7, 0.8]])[:, :, None, None]
    return F.interpolate(faces.images[[0, 100]], size=SIDE, mode="area") * tints


def stepped(photos: Tensor) -> Observation:
    """One step of Adam on some photos."""
    model = build(SPEC, seed=0).train()
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), ADAM.lr)
    labels, count = torch.tensor([3, 5])[: len(photos)], len(photos)
    F.cross_entropy(model(photos), labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    delta = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    shape = (3, SIDE, SIDE)
    training = replace(ADAM, batch_size=count)
    update = (Update("delta", delta, count),)
    return Observation(SPEC, before, update, shape, count, 8, training=training)


@pytest.fixture(scope="module")
def seen(photos: Tensor) -> Observation:
    """Of both."""
    return stepped(photos)


def shown(images: Tensor) -> Reconstruction:
    """Images of four pixels a side."""
    blurred = F.interpolate(F.avg_pool2d(images, 4), size=SIDE, mode="bilinear")
    return Reconstruction(blurred, torch.zeros(len(images), dtype=torch.int64))


def test_gradients_follow_from_the_deepest_layer_up(seen: Observation, photos: Tensor) -> None:
    evidence = gather_inputs(seen)
    assert evidence.signs
    assert evidence.known
    asked: list[Evidence] = []

    def show(one: Evidence) -> Reconstruction:
        asked.append(one)
        return shown(photos)

    whole = complete_evidence(evidence, show, 12)
    assert whole is not None
    assert not whole.signs
    assert "4.weight" in asked[0].completed  # with twenty known numbers an unknown
    assert {"2.weight", "4.weight"} <= whole.completed

    def explained(images: Tensor) -> float:
        """Share of the gradient that followed, within the span of what images send there."""
        with torch.no_grad():
            rows = whole.reader.rows(["4.weight"], images)["4.weight"][0].double()
        told = whole.target["4.weight"].flatten(1).double() @ torch.linalg.qr(rows.T).Q
        return float(told.square().sum() / whole.target["4.weight"].double().square().sum())

    right, wrong = (1 - explained(images) for images in (photos, photos.flip(3)))
    assert right < 0.001
    assert wrong > 4 * right


def test_nothing_is_completed_of_other_steps(seen: Observation) -> None:
    def show(_: Evidence) -> Reconstruction:
        raise AssertionError("there is nothing to show")

    plain = replace(seen, training=LocalTraining(lr=1e-3, batch_size=2), defense=())
    assert not gather_inputs(plain).known
    assert complete_evidence(gather_inputs(plain), show, 30) is None
    few = replace(gather_inputs(seen), known={})
    assert complete_evidence(few, show, 30) is None


@pytest.mark.slow  # three searches more
def test_a_search_goes_by_completed_gradients(
    seen: Observation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching_attack, "SEEN", 1.0)  # ten steps lead nowhere near
    attack = subspace_matching(steps=10, polish=0, mends=0)
    found = attack(seen, generator=torch.Generator().manual_seed(0))
    assert found.searched_by == "completed spans"
    for left in (replace(attack, complete_steps=0), replace(attack, seconds=60.0)):
        again = left(seen, generator=torch.Generator().manual_seed(0))
        assert again.searched_by == "signs"


def test_a_search_that_completed_gradients_lead_astray_goes_by_signs(
    seen: Observation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one would that had completed none; after an interruption, too."""
    attack = subspace_matching(steps=2, polish=0, mends=0, complete_steps=2)
    monkeypatch.setattr(completion, "PREDICTED", 1.0)
    monkeypatch.setattr(completion, "ENOUGH", 0.1)
    searched: list[bool] = []
    begin = SearchRun.search

    def search(run: SearchRun) -> None:
        searched.append(run.scene.evidence.signs)
        begin(run)

    monkeypatch.setattr(SearchRun, "search", search)
    kept = Checkpoint(tmp_path / "unfinished" / "cell.safetensors", every=0)

    def stop(step: int, steps: int, value: float) -> None:
        if searched and searched[-1] and kept.path.exists():
            raise StoppedError

    whole = attack(seen, generator=torch.Generator().manual_seed(0))
    assert searched == [False, False, True]  # to show images, by what was completed, by signs
    assert whole.searched_by == "signs"
    with pytest.raises(StoppedError):
        attack(seen, generator=torch.Generator().manual_seed(0), progress=stop, checkpoint=kept)
    searched.clear()
    found = attack(seen, generator=torch.Generator().manual_seed(0), checkpoint=kept)
    assert searched == [True]
    assert torch.equal(found.images, whole.images)
    assert not list(kept.path.parent.iterdir())


def test_one_photo_goes_by_signs(photos: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object) -> None:
        raise AssertionError("completed")

    monkeypatch.setattr(matching_attack, "complete_once", again)
    attack = subspace_matching(steps=2, polish=0, mends=0)
    found = attack(stepped(photos[:1]), generator=torch.Generator().manual_seed(0))
    assert found.searched_by == "signs"
    with pytest.raises(AssertionError, match="completed"):
        attack(stepped(photos), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def gradient(photos: Tensor) -> dict[str, Tensor]:
    """Of one photo."""
    model = build(NARROW, seed=0)
    loss = F.cross_entropy(model(photos[:1]), torch.tensor([3]))
    found = torch.autograd.grad(loss, list(model.parameters()))
    return dict(zip(dict(model.named_parameters()), found, strict=True))


def pruned(gradient: dict[str, Tensor], share: float) -> Observation:
    """What a client sends that leaves out so many numbers at random."""
    model, drawn = build(NARROW, seed=0), torch.Generator().manual_seed(0)
    kept = {
        n: g * (torch.rand(g.shape, generator=drawn) >= share).to(g) for n, g in gradient.items()
    }
    facts = (DefenseFacts("random_pruning", {"pruned": share}),)
    shape = (3, SIDE, SIDE)
    return Observation(
        NARROW, model.state_dict(), (Update("gradient", kept, 1),), shape, 1, 8, defense=facts
    )


def test_pruned_gradients_follow_from_what_was_kept(
    gradient: dict[str, Tensor], photos: Tensor
) -> None:
    evidence = gather_inputs(pruned(gradient, 0.7))
    told: list[tuple[int, int, float]] = []
    whole = complete_evidence(
        evidence, lambda _: shown(photos[:1]), 30, lambda *step: told.append(step)
    )
    assert whole is not None
    assert "4.weight" in whole.completed
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert all(0 < done <= planned for done, planned, _ in told)
    for name in whole.completed:
        found, true = whole.target[name].flatten(), gradient[name].flatten()
        assert float(F.cosine_similarity(found, true, 0)) > 0.99
        sent = evidence.target[name].flatten()
        assert float(F.cosine_similarity(sent, true, 0)) < 0.6  # what is left of it


def test_a_pruned_search_goes_by_completed_gradients(
    gradient: dict[str, Tensor], photos: Tensor
) -> None:
    attack = subspace_matching(steps=15, polish=0, mends=0)
    found = attack(pruned(gradient, 0.7), generator=torch.Generator().manual_seed(0))
    assert (found.searched_by, found.adaptive) == ("completed spans", "known")
    assert float(PSNR()(photos[:1], found.images)) > 28  # its mirror image has 25


def test_what_was_left_out_is_not_taken_for_weight_decay(gradient: dict[str, Tensor]) -> None:
    lr, decay = 0.01, 5e-4
    seen = pruned(gradient, 0.7)
    sent = seen.update
    assert sent is not None
    steps = {
        n: -lr * (g + decay * seen.before[n]) * (sent.tensors[n] != 0) for n, g in gradient.items()
    }
    decayed = replace(
        seen,
        shared=(Update("delta", steps, 1),),
        training=LocalTraining(lr=lr, batch_size=1, weight_decay=decay),
    )
    for read in (gather, gather_inputs):
        target = read(decayed).target
        assert torch.equal(target["4.weight"] != 0, steps["4.weight"] != 0)
        assert torch.allclose(target["4.weight"], sent.tensors["4.weight"], atol=1e-6)
    known = gather_inputs(decayed).known["4.weight"].known
    assert torch.equal(known, steps["4.weight"] != 0)


def test_nothing_follows_where_channels_keep_next_to_nothing(gradient: dict[str, Tensor]) -> None:
    def show(_: Evidence) -> Reconstruction:
        raise AssertionError("there is nothing to show")

    thin = dict(gradient)
    thin["4.weight"] = gradient["4.weight"].clone()
    kept = torch.rand(192, 64, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.005
    thin["4.weight"][:, :64] *= kept  # some 9 numbers of each of these channels, of 16 places
    evidence = gather_inputs(pruned(thin, 0.3))
    assert evidence.known
    assert complete_evidence(evidence, show, 30) is None


def test_too_little_is_left_to_follow_from(gradient: dict[str, Tensor]) -> None:
    def show(_: Evidence) -> Reconstruction:
        raise AssertionError("there is nothing to show")

    assert complete_evidence(gather_inputs(pruned(gradient, 0.99)), show, 30) is None


def test_steps_are_no_fewer_than_none() -> None:
    with pytest.raises(ValueError, match="complete_steps must be at least 0"):
        subspace_matching(complete_steps=-1)


@pytest.mark.slow  # two searches each
@pytest.mark.parametrize("enough", [True, False], ids=["followed", "not"])
def test_what_was_completed_is_not_completed_again(
    gradient: dict[str, Tensor], enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted attack goes on with the gradients that it had, and ends as it would have."""
    if not enough:  # all that follows from noise is not believed
        monkeypatch.setattr(completion, "LAST_PREDICTED", 0.0)
    seen = pruned(gradient, 0.7)
    attack = subspace_matching(steps=15, polish=0, mends=0)
    whole = attack(seen, generator=torch.Generator().manual_seed(0))
    assert (whole.searched_by == "completed spans") == enough
    kept = Checkpoint(tmp_path / "unfinished" / "cell.safetensors", every=0)

    def stop(step: int, steps: int, value: float) -> None:
        if kept.path.exists():
            raise StoppedError

    with pytest.raises(StoppedError):
        attack(seen, generator=torch.Generator().manual_seed(0), progress=stop, checkpoint=kept)
    assert {file.name for file in kept.path.parent.iterdir()} == {
        "cell.safetensors",
        "cell.evidence.safetensors",
    }

    def again(*_: object) -> None:
        raise AssertionError("completed again")

    monkeypatch.setattr(completion, "complete", again)
    found = attack(seen, generator=torch.Generator().manual_seed(0), checkpoint=kept)
    assert torch.equal(found.images, whole.images)
    assert found.searched_by == whole.searched_by
    assert not list(kept.path.parent.iterdir())
