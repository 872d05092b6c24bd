"""Mixtures of photos: coefficients are read off the head, and over rounds the photo comes out.

InstaHide's masks are undone first, by what a network learned of the attacker's own faces.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.adaptive.defense_adaptation import Attacker
from fedaudit.attacks.adaptive.mixture_arithmetic import (
    SHIFT,
    Coefficients,
    expect,
    photo_behind,
)
from fedaudit.attacks.adaptive.mixtures import as_mixture
from fedaudit.attacks.adaptive.probing import adapt_to
from fedaudit.attacks.adaptive.unmasking import Unmasking
from fedaudit.attacks.evidence.labels.head_gradient import mixed_label, read_head
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.core.capture import Capture
from fedaudit.core.observation import ModelSpec
from fedaudit.core.registry import create
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet, criterion_of
from fedaudit.models.soft_labels import loss_on
from fedaudit.scoring.image_metrics import SSIM

Intercept = Callable[..., Capture]


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "settings", "masked"),
    [
        ("mixup", {}, False),
        ("mixup", {"parts": 4, "alpha": 0.3}, False),
        ("instahide", {}, True),
        ("instahide", {"parts": 2}, True),
        ("ats", {}, None),
        ("oasis", {}, None),
    ],
)
def test_what_mixes_shows_when_it_is_tried(
    name: str, settings: dict[str, float], masked: bool | None
) -> None:
    transforms = create("defenses", name, settings).replay(1).images
    found = as_mixture(transforms, (3, 8, 8))
    assert (None if found is None else found.masked) == masked


def test_a_sum_with_other_weights_than_its_labels_is_no_mixture() -> None:
    def halved(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        mixed, soft = create("defenses", "mixup", {}).replay(1).images[0](images, labels, generator)
        return mixed / 2, soft

    assert as_mixture((halved,), (3, 8, 8)) is None


@pytest.mark.parametrize(
    ("network", "head"),
    [("face", "cosface"), ("face", "arcface"), ("face_pooled", "linear"), ("lenet", "linear")],
)
def test_coefficients_are_read_exactly(network: str, head: str) -> None:
    """Against a gradient by plain autograd, whose label was chosen here."""
    model = build(ModelSpec(network, {"classes": 9, "head": head}), seed=3)
    assert isinstance(model, FaceNet)
    label = torch.tensor([0, 0.25, 0, 0, 0.15, 0, 0.6, 0, 0])
    image = torch.rand(1, 3, 32, 32, generator=drawn(0))
    loss = loss_on(criterion_of(model), model(image), label[None])
    named = dict(model.named_parameters())
    target = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    place = model.embedding(model.features(image))[0].detach()
    found = read_head(model, target, 1, (3, 32, 32))
    assert found is not None
    read = mixed_label(found, 7.0 * place)  # its length is not known
    assert read is not None
    torch.testing.assert_close(read, label, atol=1e-3, rtol=0)


def test_plain_scores_without_bias_do_not_show_the_length() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False))
    head = read_head(model, {"1.weight": torch.ones(4, 12)}, 1, (3, 2, 2))
    assert head is not None
    assert mixed_label(head, torch.ones(12)) is None


OWN = torch.tensor([0.5, 0.2, 0.7])
LABELS = torch.tensor([[0.5, 0.5, 0, 0], [0.2, 0, 0.5, 0.3], [0.7, 0, 0.3, 0]])
MEAN = torch.full((1, 4, 4), 0.5)


def most_likely(mixed: Tensor, rounds: list[int]) -> tuple[Tensor, Tensor]:
    """The client's mean and its photo about it, by least squares over `rounds`; `[16]` each."""
    deviations = LABELS[rounds, 1:].norm(dim=1)
    seen = torch.stack([torch.ones(len(rounds)), OWN[rounds]], 1) / deviations[:, None]
    before = torch.diag(torch.tensor([SHIFT**-0.5, 1.0]))  # what faces say of the two
    sums = (mixed[rounds] - MEAN).flatten(1) / deviations[:, None]
    wanted = torch.cat([sums, torch.zeros(2, 16)])
    found = torch.linalg.lstsq(torch.cat([seen, before]), wanted).solution
    return found[0], found[1]


def test_the_photo_behind_is_the_likeliest() -> None:
    mixed = 0.3 + 0.4 * torch.rand(3, 1, 4, 4, generator=drawn(1))
    shares = Coefficients.of(LABELS)
    assert shares.label == 0  # who is in all of them
    client, photo = most_likely(mixed, [0, 1, 2])
    wanted = MEAN + (client + photo).view(1, 4, 4)
    torch.testing.assert_close(photo_behind(mixed, shares, MEAN), wanted)


def test_a_mixture_is_expected_by_what_the_others_say() -> None:
    mixed = 0.3 + 0.4 * torch.rand(3, 1, 4, 4, generator=drawn(1))
    shares = Coefficients.of(LABELS)
    found = expect(mixed[None], shares.own[None], shares.rest[None], MEAN)[0]
    for number in range(3):
        client, photo = most_likely(mixed, [k for k in range(3) if k != number])
        wanted = MEAN + (client + OWN[number] * photo).view(1, 4, 4)
        torch.testing.assert_close(found[number], wanted)
    alone = expect(mixed[None, :1], shares.own[None, :1], shares.rest[None, :1], MEAN)
    torch.testing.assert_close(alone[0, 0], MEAN)


def test_of_one_mixture_the_largest_part_is_reported() -> None:
    shares = Coefficients.of(torch.tensor([[0.1, 0.9]]))
    assert shares.label == 1
    image = photo_behind(torch.full((1, 1, 2, 2), 0.4), shares, torch.full((1, 2, 2), 0.5))
    assert 0.38 < float(image.mean()) < 0.4  # further from the mean face than the mixture


@pytest.mark.slow  # a long search
def test_over_rounds_the_photo_comes_out_of_its_mixtures(intercept: Intercept) -> None:
    captured = intercept(defense="mixup", rounds_seen=4, target=0)
    assert captured.secret is not None
    settings = {"candidates": 8, "latent_steps": 1, "stage_steps": 2, "pixel_steps": 15}
    attack = create("attacks", "gan_inversion", settings)
    quality, labels = {}, {}
    for rounds in (1, 4):
        earlier = captured.seen.earlier if rounds == 4 else ()
        made = attack(replace(captured.seen, earlier=earlier), generator=drawn(0))
        assert made.adaptive == "known"
        assert made.images.shape == captured.secret.images.shape
        quality[rounds] = float(SSIM()(captured.secret.images, made.images)[0])
        labels[rounds] = made.labels.tolist()
    assert labels[4] == captured.secret.labels.tolist() != labels[1]
    assert quality[4] > quality[1] + 0.2


@pytest.mark.slow  # a long search
def test_masked_images_are_rebuilt_unmasked_and_said_to_be_known(intercept: Intercept) -> None:
    """The signs are another matter: `test_unmasking`."""
    captured = intercept(defense="instahide", settings={"parts": 2}, rounds_seen=2)
    assert captured.secret is not None
    seen = captured.seen
    evidence = gather(seen)
    (special,) = evidence.adaptation.special
    assert special.looks_like_noise(evidence)
    assert not evidence.grayscale  # each channel has a mask of its own
    settings = {"candidates": 8, "latent_steps": 5, "stage_steps": 10, "pixel_steps": 25}
    plain = create("attacks", "gan_inversion", settings)
    assert isinstance(plain, MatchingAttack)
    little = Unmasking(faces=64, sets=8, steps=2, cache="off")
    attack = replace(plain, unmasking=little)
    made = attack(seen, generator=drawn(0))
    assert made.adaptive == "known"
    assert made.labels.tolist() == captured.secret.labels.tolist()
    image = made.images
    assert image.shape == captured.secret.images.shape
    assert torch.equal(image[:, :1].expand(-1, 3, -1, -1), image)  # sizes agree: a gray photo
    assert how_adaptive(seen) == "no"


def test_where_mixtures_are_not_taken_apart(intercept: Intercept) -> None:
    """Several at once; and attacks that only rebuild the mixed image."""
    seen = intercept(defense="mixup", batch=2).seen
    assert adapt_to(seen).missed == ("mixup",)
    assert how_adaptive(seen, handled=True) == "no"
    seen = intercept(defense="mixup").seen
    evidence = gather(seen)
    (special,) = evidence.adaptation.special
    assert special.handled(evidence, Attacker(source="face_gan"))
    assert not special.handled(evidence, Attacker())
    assert not special.handled(evidence, Attacker(single_step=False, source="face_gan"))
    assert how_adaptive(seen) == how_adaptive(seen, exact=True) == "no"
    assert how_adaptive(seen, handled=True) == "known"
