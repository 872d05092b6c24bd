"""Local training, augmentation and protections as they are stated with a capture."""

import sys
from pathlib import Path
from typing import Literal

import pytest
import torch

import fedaudit
from fedaudit.captures.format.capture_facts import DpClaim, Facts
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.message_header import Message
from fedaudit.captures.format.observations import observations
from fedaudit.captures.format.stated_training import local_training
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.registry import create
from fedaudit.models.build_network import build

sys.path.insert(0, str(Path(__file__).parent))
from mlp_capture import SHAPE, mlp, photos, record_mlp, trained


def test_protections_are_told_as_they_are_stated(tmp_path: Path) -> None:
    network = mlp()
    after = trained(network, *photos(1))[0]
    claim = DpClaim(clip=1.0, noise=0.5, unit="example")
    for name, protections, dp in (("none", (), None), ("dp", None, claim)):
        record = fedaudit.recording(
            tmp_path / name, model="mlp", arguments={"hidden": 32}, classes=5, image_shape=SHAPE,
            protections=protections, dp=dp,
        )  # fmt: skip
        record.broadcast(1, network.state_dict())
        record.update(1, "c", after, kind="weights")
    (undefended,) = observations(StoredCapture(tmp_path / "none"))
    assert undefended.seen.defense == ()
    (defended,) = observations(StoredCapture(tmp_path / "dp"))
    assert defended.seen.defense is not None
    assert defended.seen.defense[0].name == "dpsgd"
    assert defended.seen.defense[0].settings == {"noise_multiplier": 0.5, "max_grad_norm": 1.0}


FULL = Facts(lr=0.1, local_steps=2, batch_size=4, momentum=0.9, optimizer="SGD", weight_decay=0.0)


@pytest.mark.parametrize(
    ("facts", "examples", "settings", "images"),
    [
        (FULL, 40, LocalTraining(0.1, 2, 4, 0.9), 8),  # two steps of four
        (FULL, 5, LocalTraining(0.1, 2, 4, 0.9), 5),  # it has no more than five
        (Facts(lr=0.1, local_epochs=3, batch_size=4), 10, LocalTraining(0.1, 9, 4), 10),
        (Facts(local_steps=1, batch_size=4), None, None, 4),  # the learning rate is not known
        (Facts(lr=0.1, optimizer="lion", local_steps=1, batch_size=4), 4, None, 4),
        (Facts(), None, None, None),
    ],
)
def test_local_training_is_known_as_far_as_it_is_stated(
    facts: Facts, examples: int | None, settings: LocalTraining | None, images: int | None
) -> None:
    message = Message(what="update", round=1, client="c", kind="weights", examples=examples)
    found = local_training(facts, message)
    assert (found.settings, found.images) == (settings, images)
    assert bool(found.missing) == (settings is None or images is None)


@pytest.mark.parametrize(("stated", "decay"), [(None, 0.01), (0.0, 0.0), (0.05, 0.05)])
def test_adamw_decays_as_torchs_does_where_nothing_else_is_stated(
    stated: float | None, decay: float
) -> None:
    facts = Facts(lr=1e-3, local_steps=1, batch_size=4, optimizer="AdamW", weight_decay=stated)
    message = Message(what="update", round=1, client="c", kind="weights", examples=4)
    found = local_training(facts, message)
    assert found.settings == LocalTraining(1e-3, 1, 4, optimizer="adamw", weight_decay=decay)
    assert ("weight_decay = 0.01" in found.assumed) == (stated is None)


def test_a_gradient_knows_no_optimizer_and_none_of_its_decay() -> None:
    message = Message(what="update", round=1, client="c", kind="gradient", examples=4)
    found = local_training(Facts(optimizer="AdamW"), message)
    assert found.settings == LocalTraining(1.0, 1, 4)


def test_the_mode_of_batch_norm_counts_where_the_rest_is_not_known(tmp_path: Path) -> None:
    """What spans say needs no learning rate, but the mode in which the network trained."""
    network = build(ModelSpec("convnet", {"classes": 5, "width": 4, "image_size": 16}))
    modes: tuple[Literal["train", "eval"] | None, ...] = ("eval", "train", None)
    for stated in modes:
        record = fedaudit.recording(
            tmp_path / str(stated),
            model="convnet",
            arguments={"width": 4},
            classes=5,
            batch_norm=stated,
        )
        record.broadcast(1, network.state_dict())
        moved = {n: p + 0.1 for n, p in network.named_parameters()}
        record.update(1, "c", moved, kind="weights", examples=2)
        stored = StoredCapture(tmp_path / str(stated))
        (capture,) = observations(stored)
        assert capture.seen.training is None  # no learning rate, no steps
        mode = capture.seen.mode
        assert (mode.batch_norm if mode else None) == stated
        found = local_training(
            stored.facts, next(m for m in stored.messages(1) if m.message.client).message
        )
        assert ("batch_norm = train" in found.assumed) == (stated is None)


def test_augmentation_in_words_is_told_to_the_attack(tmp_path: Path) -> None:
    """Steps are not followed by photos that no step saw, and the result says what it shows."""
    images, labels = photos(2)
    network = mlp()
    weights, _ = trained(network, images, labels)
    kinds_of: dict[str | None, tuple[str, ...]] = {
        None: (),
        "": (),
        "random horizontal flips, color jitter": ("flip", "jitter"),
        "AugMix": ("flip", "crop", "jitter"),
    }
    for words, kinds in kinds_of.items():
        record = record_mlp(tmp_path / f"of {words}", augmentation=words)
        record.broadcast(1, network.state_dict())
        record.update(1, "c", weights, kind="weights", examples=2)
        stored = StoredCapture(tmp_path / f"of {words}")
        message = next(m for m in stored.messages(1) if m.message.client).message
        found = local_training(stored.facts, message)
        assert ("no augmentation" in found.assumed) == (words is None)
        assert ("augmentation = flip, crop, jitter" in found.assumed) == (words == "AugMix")
        (capture,) = observations(stored)
        assert capture.seen.training is not None
        assert capture.seen.training.augmentation == kinds
        rebuilt = create("attacks", "inverting_gradients", {"steps": 2, "polish": 0})(
            capture.seen, generator=torch.Generator().manual_seed(0)
        )
        assert any("what the network saw" in part for part in rebuilt.unused) == bool(kinds)
