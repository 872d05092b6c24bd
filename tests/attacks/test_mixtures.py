"""Mixtures of photos: coefficients are read off the head, and over rounds the photo comes out."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fedaudit.attacks.adapting import adapt_to
from fedaudit.attacks.adaptive import how_adaptive
from fedaudit.attacks.evidence import gather
from fedaudit.attacks.labels.gradient import read_head
from fedaudit.attacks.labels.mixed import mixed_label
from fedaudit.attacks.mixtures import is_mixture, photo_behind
from fedaudit.models.facenet import FaceNet, criterion_of
from fedaudit.models.soft_labels import loss_on
from fedaudit.models.zoo import build
from fedaudit.registry import create
from fedaudit.scoring.image_metrics import SSIM
from fedaudit.types import Capture, ModelSpec

Intercept = Callable[..., Capture]


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "settings", "mixture"),
    [
        ("mixup", {}, True),
        ("mixup", {"parts": 4, "alpha": 0.3}, True),
        ("instahide", {}, False),  # a mixture, but half of its values are turned over
        ("ats", {}, False),
        ("oasis", {}, False),
    ],
)
def test_what_mixes_shows_when_it_is_tried(
    name: str, settings: dict[str, float], mixture: bool
) -> None:
    acts = create("defenses", name, settings).replay(1).images
    assert is_mixture(acts, (3, 8, 8)) == mixture


def test_a_sum_with_other_weights_than_its_labels_is_no_mixture() -> None:
    def halved(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        mixed, soft = create("defenses", "mixup", {}).replay(1).images[0](images, labels, generator)
        return mixed / 2, soft

    assert not is_mixture((halved,), (3, 8, 8))


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
    found = read_head(model, target, 1)
    assert found is not None
    read = mixed_label(found, 7.0 * place)  # its length is not known
    assert read is not None
    torch.testing.assert_close(read, label, atol=1e-3, rtol=0)


def test_plain_scores_without_bias_do_not_show_the_length() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False))
    head = read_head(model, {"1.weight": torch.ones(4, 12)}, 1)
    assert head is not None
    assert mixed_label(head, torch.ones(12)) is None


def test_the_photo_behind_is_the_likeliest() -> None:
    """Against weighted least squares, the mean face as one more equation."""
    mixed = 0.3 + 0.4 * torch.rand(3, 1, 4, 4, generator=drawn(1))
    labels = torch.tensor([[0.5, 0.5, 0, 0], [0.2, 0, 0.5, 0.3], [0.7, 0, 0.3, 0]])
    mean = torch.full((1, 4, 4), 0.5)
    found, label = photo_behind(mixed, labels, mean)
    assert label == 0  # who is in all of them
    own = labels[:, 0]
    deviations = labels[:, 1:].norm(dim=1)
    system = torch.cat([own / deviations, torch.ones(1)])[:, None]
    sums = (mixed - mean).flatten(1) / deviations[:, None]
    wanted = torch.cat([sums, torch.zeros(1, 16)])
    solved = torch.linalg.lstsq(system, wanted).solution.view(1, 4, 4) + mean
    torch.testing.assert_close(found, solved)


def test_of_one_mixture_the_largest_part_is_reported() -> None:
    labels = torch.tensor([[0.1, 0.9]])
    image, label = photo_behind(torch.full((1, 1, 2, 2), 0.4), labels, torch.full((1, 2, 2), 0.5))
    assert label == 1
    assert 0.38 < float(image.mean()) < 0.4  # further from the mean face than the mixture


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


def test_where_mixtures_are_not_taken_apart(intercept: Intercept) -> None:
    """Several at once; and attacks that only rebuild the mixed image."""
    seen = intercept(defense="mixup", batch=2).seen
    assert adapt_to(seen).missed == ("mixup",)
    assert how_adaptive(seen, mixed=True) == "no"
    seen = intercept(defense="mixup").seen
    assert gather(seen).mixed
    assert how_adaptive(seen) == how_adaptive(seen, exact=True) == "no"
    assert how_adaptive(seen, mixed=True) == "known"
