"""Attacks that search begin by what layers' inputs span."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import VisionTransformer

import fedaudit
from fedaudit.attacks.adaptive.assumptions import as_assumed, assume
from fedaudit.attacks.evidence.labels.of_images import in_order_of_labels
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.presets.grad_inversion import grad_inversion
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.attacks.search.image_priors import usual_variation
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.schedules.span_stages import opening
from fedaudit.attacks.search.stage import adjust
from fedaudit.core.capture import Capture
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.scenario import Adapt
from fedaudit.core.shared import Update
from fedaudit.federation.simulation import Simulation
from fedaudit.scoring.image_metrics import SSIM
from fedaudit.scoring.pairing import pair

sys.path.insert(0, str(Path(__file__).parent))
from client_training import photos, train_client
from small_networks import CLASSES, SHAPE
from stock_networks import NETWORKS, build_seeded

Intercept = Callable[..., Capture]
LABELS = torch.tensor([7, 3, 5])


def seen(count: int) -> Observation:
    """One gradient of torchvision's ResNet-18, evaluating, on `count` photos."""
    network = NETWORKS["resnet18_eval"]
    model = build_seeded(network)
    update = train_client(model, network, None, photos(count), LABELS[:count])
    arguments = {"name": "resnet18_eval", "classes": CLASSES, "image_size": SHAPE[1]}
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return Observation(
        model=ModelSpec("stock_networks:stock_network", arguments),
        before={name: value.detach() for name, value in state.items()},
        shared=(Update("gradient", update, count),),
        image_shape=SHAPE,
        batch_size=count,
        num_classes=CLASSES,
        labels=LABELS[:count],
        training=LocalTraining(batch_size=count, batch_norm="eval"),
    )


def begun(observation: Observation, attack: MatchingAttack | None = None) -> bool:
    """Whether the attack would begin by spans, the default one if it is not given."""
    attack = attack or gan_inversion()
    run = attack._begin(observation, torch.Generator().manual_seed(0), 0.0)
    assert (run.scene.spans is not None) == (run.stages[0].match == "spans")
    return run.scene.spans is not None


def test_it_begins_so_but_where_a_map_is_known_of_a_changed_update(intercept: Intercept) -> None:
    assert begun(seen(1))
    assert begun(intercept().seen)
    assert begun(intercept(defense="clipping", settings={"max_norm": 0.1}).seen)
    assert not begun(intercept(defense="gaussian_noise", settings={"std": 1.0, "of": "norm"}).seen)
    assert not begun(intercept(defense="sign").seen)


def test_a_control_is_found_in_no_fewer_steps_than_what_it_vouches_for(
    intercept: Intercept,
) -> None:
    """Where a defended update is searched by known maps, spans would find the control in a few."""
    few = gan_inversion(latent_steps=1, stage_steps=3, pixel_steps=8)
    assert not begun(intercept().seen, few)
    assert begun(seen(1), few)  # no map is known there, whatever protects it


def test_it_says_by_what_it_searched(intercept: Intercept) -> None:
    """What finds an undefended photo is another way than what a changed update leaves."""
    few = gan_inversion(latent_steps=1, stage_steps=1, pixel_steps=1)
    long = gan_inversion(candidates=2, latent_steps=1, stage_steps=1, pixel_steps=40)
    noise = {"std": 1.0, "of": "norm"}

    def way(captured: Capture, attack: MatchingAttack) -> str:
        return attack(captured.seen, generator=torch.Generator().manual_seed(0)).searched_by

    assert way(intercept(), few) == "maps"
    assert way(intercept(), long) == "spans"
    assert way(intercept(defense="gaussian_noise", settings=noise), few) == "maps"
    without = replace(few, first_fully_connected=False)
    assert way(intercept(), without) == "gradients"
    assert way(intercept(), subspace_matching(steps=2, polish=0, mends=0)) == "spans"


@pytest.mark.slow
def test_a_network_that_was_trained_tells_no_less(
    intercept: Intercept, federate: Callable[..., Simulation]
) -> None:
    """By known maps and gradients alone, four faces come to SSIM 0.77 there."""
    simulation = federate(method="fedavg", lr=0.05)
    state, _ = simulation.train(simulation.fresh(), range(1, 13))
    captured = intercept(simulation=simulation, state=state, batch=4)
    secret, quality = captured.secret, []
    assert secret is not None
    for spans_first in (False, True):
        attack = gan_inversion(spans_first=spans_first)
        found = attack(captured.seen, generator=torch.Generator().manual_seed(0))
        order = pair(secret.images, secret.labels, found.images, found.labels)
        quality.append(float(SSIM()(secret.images, found.images[list(order)]).mean()))
    by_maps, by_spans = quality
    assert by_maps < 0.85, quality
    assert by_spans > 0.95, quality


@pytest.mark.slow
@pytest.mark.parametrize("attack", [gan_inversion, subspace_matching])
def test_what_soteria_leaves_of_a_trained_network_is_enough(
    attack: Callable[[], MatchingAttack],
    intercept: Intercept,
    federate: Callable[..., Simulation],
) -> None:
    """Known or estimated, columns that were not sent are not compared; four photos."""
    plain = federate(method="fedavg", lr=0.05)
    state, _ = plain.train(plain.fresh(), range(1, 13))
    guarded = federate(method="fedavg", lr=0.05, defense="soteria")
    captured, quality = intercept(simulation=guarded, state=state, batch=4), {}
    assert captured.secret is not None
    told: tuple[Adapt, ...] = ("known", "estimated", "no")
    for word in told:
        seen = assume(captured.seen, word)
        made = attack()(seen, generator=torch.Generator().manual_seed(0))
        assert as_assumed(made, captured.seen, word).adaptive == word
        truth = captured.secret
        order = pair(truth.images, truth.labels, made.images, made.labels)
        quality[word] = float(SSIM()(truth.images, made.images[list(order)]).mean())
    assert min(quality["known"], quality["estimated"]) > 0.9, quality
    assert quality["no"] < quality["known"] - 0.1, quality


def test_images_come_in_the_order_of_their_labels() -> None:
    evidence = gather(seen(3))
    shuffled = photos(3)[[2, 0, 1]]
    torch.testing.assert_close(in_order_of_labels(evidence, shuffled), photos(3))
    others = photos(3, seed=1)  # whose they are the head's gradient does not say
    assert in_order_of_labels(evidence, others).shape == others.shape


def test_it_takes_no_more_steps_than_the_attack() -> None:
    stages = gan_inversion(latent_steps=4, stage_steps=6, pixel_steps=20).stages
    assert [stage.steps for stage in opening(stages)] == [15, 15, 2]
    assert [stage.steps for stage in opening(stages[:1])] == [2, 2]


def test_the_variation_grows_with_the_root_of_what_is_unknown(intercept: Intercept) -> None:
    assert usual_variation(32 * 32) == 0.3
    assert usual_variation(4 * 32 * 32) == pytest.approx(0.6)
    evidence = gather(intercept().seen)
    weights = [
        adjust(gan_inversion(total_variation=w).stages, evidence, generated=True)[-1]
        for w in (None, 0.7)
    ]
    assert evidence.pixels == 32 * 32  # ORL is gray, and the update proves it
    assert [stage.total_variation for stage in weights] == [0.3, 0.7]
    (pixels,) = adjust(grad_inversion().stages, evidence, generated=False)
    assert pixels.total_variation == pytest.approx(0.05)


def test_a_vision_transformer_gives_one_photo_away_at_once() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VisionTransformer(SHAPE[1], 8, 1, 2, 64, 64, num_classes=CLASSES)
        torch.nn.init.normal_(model.heads.get_submodule("head").weight, std=0.02)
    image = photos(1)
    update = train_client(model, NETWORKS["vit"], None, image, LABELS[:1])
    found = fedaudit.attack(model, update, image_shape=SHAPE)
    assert float((image - found.images).abs().max()) < 1e-3
    assert found.iterations == 1
    assert (found.closed_form, found.searched_by) == (True, "closed form")


@pytest.mark.slow
def test_a_stock_network_gives_the_image_away() -> None:
    network = NETWORKS["resnet18_eval"]
    model = build_seeded(network)
    image = F.interpolate(photos(1, seed=3), SHAPE[1:], mode="bilinear")
    update = train_client(model, network, None, image, LABELS[:1])
    found = fedaudit.attack(model, update, image_shape=SHAPE)
    assert float(SSIM()(image, found.images)) > 0.8
    assert found.labels.tolist() == LABELS[:1].tolist()
