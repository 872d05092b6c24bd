"""A generator's latents and inner maps as variables of a search by what layers' inputs span."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.gathering.gather import gather_inputs
from fedaudit.attacks.generators.face_generator import LATENT_PRIOR, FaceGenerator
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables.latents import FeatureMaps, Latent
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.models.build_network import build

SPEC = ModelSpec("torchvision:resnet18", {"classes": 10, "image_size": 32})
SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def photo(faces: FaceSet) -> Tensor:
    return faces.images[:1] * torch.tensor([0.9, 0.6, 0.5])[:, None, None]


@pytest.fixture(scope="module")
def seen(photo: Tensor) -> Observation:
    network = build(SPEC, seed=0).eval()
    named = dict(network.named_parameters())
    slopes = torch.autograd.grad(
        F.cross_entropy(network(photo), torch.tensor([3])), list(named.values())
    )
    return Observation(
        SPEC,
        {name: value.detach().clone() for name, value in network.state_dict().items()},
        (Update("gradient", dict(zip(named, slopes, strict=True)), 1),),
        SHAPE,
        1,
        10,
        training=LocalTraining(batch_norm="eval"),
        defense=(),
    )


def drawing(steps: int) -> MatchingAttack:
    """Latents from few candidates, then an inner map; no pixel is free."""
    pixels = subspace_matching()
    latent = Stage(
        varies=Latent(candidates=4),
        steps=steps,
        lr=0.1,
        total_variation=0.0,
        fading=2.0,
        square_norm=LATENT_PRIOR,
        match="spans",
    )
    inner = replace(latent, varies=FeatureMaps(stage=3), lr=0.05, square_norm=0.0)
    return replace(pixels, stages=(latent, inner), prior=FaceGenerator())


def attacked(seen: Observation, steps: int) -> Reconstruction:
    return drawing(steps)(seen, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_what_is_drawn_comes_nearer_to_the_spans(seen: Observation, photo: Tensor) -> None:
    """And with it to the photo: few steps are nearer than one, many than few."""
    spans = SpanMatching(gather_inputs(seen))
    first, later = attacked(seen, 1), attacked(seen, 8)
    assert later.searched_by == first.searched_by == "spans"
    assert spans.distance(later.images) < 0.8 * spans.distance(first.images)
    near, far = ((one.images - photo).square().mean() for one in (later, first))
    assert float(near) < float(far)


def test_generated_images_stay_in_the_range_of_pixels(seen: Observation) -> None:
    images = attacked(seen, 2).images
    assert images.shape == (1, *SHAPE)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
