"""The matching engine: shares add up, and the truth explains everything, a training's too."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaudit.attacks.adaptive.per_example import total
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.search.distances import cosine_distance
from fedaudit.attacks.search.image_priors import total_variation
from fedaudit.attacks.search.local_steps import dummy_update_of
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.span_matching import SpanMatching, is_left_to_spans
from fedaudit.core.capture import Capture
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.data.face_set import FaceSet

sys.path.insert(0, str(Path(__file__).parent))
from matching_engine import engine, flat

Intercept = Callable[..., Capture]


def comparison(seen: Observation, *, use_first_fc: bool) -> Matching | SpanMatching:
    """The one that an attack takes."""
    evidence = gather(seen)
    if is_left_to_spans(evidence, (), use_first_fc=use_first_fc):
        return SpanMatching(evidence, angle=True)
    return engine(seen, use_first_fc=use_first_fc)


def in_order(captured: Capture) -> Tensor:
    """The secret images as the attack numbers them: by ascending label."""
    assert captured.secret is not None
    return captured.secret.images[captured.secret.labels.argsort(stable=True)]


KINDS: dict[str, dict[str, Any]] = {
    "labels": {"use_first_fc": False},
    "upstream": {},
    "free": {"defense": "private_projector", "network": "small_cnn"},
    "free, head alone withheld": {"defense": "dplc", "use_first_fc": False, "network": "small_cnn"},
    "pooled": {"network": "face_pooled"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_shares_add_up(kind: str, intercept: Intercept) -> None:
    options = dict(KINDS[kind])
    use_first_fc = options.pop("use_first_fc", True)
    captured = intercept(batch=4, **options)
    matching = engine(captured.seen, use_first_fc=use_first_fc)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert matching.separable
    assert bool(matching.free) == kind.startswith("free")
    whole = flat(matching.gradients(images, range(4))[0])
    halves = [matching.gradients(images[rows], rows)[0] for rows in ([0, 2], [1, 3])]
    torch.testing.assert_close(
        flat(total(halves)), whole, rtol=1e-3, atol=1e-5 * float(whole.norm())
    )


def test_where_shares_do_not_add_up_it_says_so(intercept: Intercept) -> None:
    """A withheld head at batch 4: only of all images together is known what they span."""
    matching = comparison(intercept(batch=4, defense="dplc").seen, use_first_fc=True)
    assert isinstance(matching, SpanMatching)
    assert not matching.separable


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    ("options", "use_first_fc"),
    [
        ({}, True),
        ({}, False),
        ({"defense": "dplc"}, True),
        ({"defense": "private_projector", "settings": {"private": ("head.",)}}, True),
        ({"network": "face_pooled"}, True),
        ({"network": "mobilefacenet", "arguments": {"norm": "group"}}, True),
    ],
    ids=["none", "none, gradient alone", "dplc", "local head", "pooled", "mobile"],
)
def test_the_truth_explains_everything(
    options: dict[str, Any], use_first_fc: bool, batch: int, intercept: Intercept, faces: FaceSet
) -> None:
    captured = intercept(batch=batch, **options)
    matching = comparison(captured.seen, use_first_fc=use_first_fc)
    others = faces.images[[30 * k + 5 for k in range(6)]]
    matching.calibrate(others)
    truth = matching.objective(*matching.gradients(in_order(captured), range(batch)))
    wrong = matching.objective(*matching.gradients(others[:batch], range(batch)))
    assert float(truth.detach()) < 0.01
    assert float(wrong.detach()) > 0.4


def test_calibration_puts_generic_faces_at_one(intercept: Intercept, faces: FaceSet) -> None:
    matching = engine(intercept().seen)
    generic = faces.images[[11, 52, 93, 134, 175, 216, 257]]
    matching.calibrate(generic)
    terms = [matching.gradients(image[None], [0]) for image in generic]
    gradient = [float(cosine_distance(g, matching.target).detach()) for g, _ in terms]
    feature = [float(d.detach()) for _, d in terms]
    assert matching.scales == pytest.approx((sorted(gradient)[3], sorted(feature)[3]), rel=1e-5)


def test_free_variables_are_drawn_from_the_generator(intercept: Intercept) -> None:
    seen = intercept(batch=2, network="small_cnn", defense="private_projector").seen
    one, two = engine(seen), engine(seen)
    assert len(one.free) == 2
    assert all(torch.equal(a, b) for a, b in zip(one.free, two.free, strict=True))
    assert not torch.equal(one.free[0], one.free[1])
    assert set(one.names) == set(seen.before)


def test_unknown_labels_need_a_face_network(intercept: Intercept) -> None:
    evidence = gather(intercept().seen)
    from dataclasses import replace

    plain = replace(evidence, model=torch.nn.Linear(2, 2), labels=None, first_fc=None)
    with pytest.raises(AttackError, match='grant = \\["labels"\\]'):
        Matching(plain)


def test_objectives_against_their_formulas() -> None:
    noise = torch.Generator().manual_seed(0)
    a, b = ([torch.randn(3, generator=noise), torch.randn(2, 2, generator=noise)] for _ in range(2))
    joined = torch.cosine_similarity(flat(tuple(a)), flat(tuple(b)), dim=0)
    assert float(cosine_distance(a, b)) == pytest.approx(1 - float(joined), rel=1e-5)
    assert float(cosine_distance(a, [3 * t for t in a])) == pytest.approx(0, abs=1e-6)
    assert float(cosine_distance(a, [-t for t in a])) == pytest.approx(2, rel=1e-6)
    image = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    assert float(total_variation(image)) == pytest.approx((0.5 + 0.5) / 2 + (1.0 + 0.0) / 2)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_replay_explains_what_one_gradient_does_not(batch: int, intercept: Intercept) -> None:
    """Four steps with momentum: the true images give the delta that the client shared."""
    training = LocalTraining(lr=0.05, steps=4, batch_size=batch, momentum=0.5)
    captured = intercept(batch=batch, network="small_cnn", method="fedavg", training=training)
    evidence = gather(captured.seen)
    generator = torch.Generator().manual_seed(0)
    left = {}
    for mode in ("start", "path", "replay"):
        dummy = dummy_update_of(captured.seen, evidence, mode, generator)
        assert (dummy is None) == (mode == "start")
        matching = Matching(evidence, use_first_fc=False, angle=False, dummy=dummy)
        assert matching.separable == (mode == "start")
        found = matching.gradients(in_order(captured), range(batch))
        left[mode] = float(matching.objective(*found).detach())
    assert left["replay"] < 1e-4
    assert left["path"] < left["start"]
    assert left["start"] > 10 * left["replay"]


@pytest.mark.slow
def test_unknown_training_is_guessed(intercept: Intercept) -> None:
    training = LocalTraining(lr=0.1, steps=4)
    seen = intercept(network="small_cnn", method="fedavg", training=training, threat="B").seen
    assert seen.training is None
    dummy = dummy_update_of(seen, gather(seen), "replay", torch.Generator().manual_seed(0))
    assert dummy is not None
    assert dummy.training.steps * dummy.training.lr == pytest.approx(0.4, rel=0.7)
