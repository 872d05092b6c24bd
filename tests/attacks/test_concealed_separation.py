"""Images that a defense put beside a photo are found with it, and told from it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from fedaudit.attacks.adaptive.assumptions import assume, how_adaptive
from fedaudit.attacks.adaptive.concealed_separation import is_separable, photo_among
from fedaudit.attacks.adaptive.probing import adapt_to
from fedaudit.attacks.evidence.feature_maps.first_fully_connected import FirstFullyConnected
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.capture import Capture
from fedaudit.core.registry import create
from fedaudit.models.facenet import FaceNet

Intercept = Callable[..., Capture]
CONCEALED = {"defense": "concealed_samples", "settings": {"iterations": 3}}


def test_the_photos_own_map_is_found_exactly(intercept: Intercept) -> None:
    """Against the network's own features of the photo, which the attack has never seen."""
    captured = intercept(**CONCEALED)
    assert captured.secret is not None
    evidence = gather(captured.seen)
    assert is_separable(evidence)
    assert evidence.first_fc is not None
    assert evidence.first_fc.maps is not None
    assert isinstance(evidence.model, FaceNet)
    true = evidence.model.features(captured.secret.images)
    cosines = F.cosine_similarity(evidence.first_fc.maps, true)
    assert cosines[0] > 0.99999  # and the sample, which comes second, is another image
    assert cosines[1] < 0.99


def test_labels_say_which_image_is_the_photo(intercept: Intercept) -> None:
    captured = intercept(**CONCEALED)
    assert captured.secret is not None
    evidence = gather(captured.seen)
    assert evidence.soft is not None
    assert evidence.labels is not None
    own = captured.secret.labels[0]
    assert evidence.labels[0] == own != evidence.labels[1]
    torch.testing.assert_close(evidence.soft.sum(1), torch.ones(2))
    assert evidence.soft[0, own] == 1
    torch.testing.assert_close(evidence.soft[1, own], torch.tensor(0.3))


@pytest.mark.slow
def test_one_image_is_reported_and_is_called_known(intercept: Intercept) -> None:
    captured = intercept(**CONCEALED)
    assert captured.secret is not None
    settings = {"candidates": 8, "latent_steps": 1, "stage_steps": 1, "pixel_steps": 2}
    attack = create("attacks", "gan_inversion", settings)
    made = {
        told: attack(assume(captured.seen, told), generator=torch.Generator().manual_seed(0))
        for told in ("known", "no")
    }
    assert made["known"].adaptive == "known"
    assert made["known"].labels.tolist() == captured.secret.labels.tolist()
    assert len(made["known"].images) == 1
    assert len(made["no"].images) == 2  # which does not know that one is no photo


def test_behind_noise_nothing_is_told(intercept: Intercept) -> None:
    noisy = {"of": [CONCEALED["defense"], {"name": "gaussian_noise", "std": 1.0, "of": "norm"}]}
    captured = intercept(defense="chain", settings=noisy)
    assert [one.name for one in adapt_to(captured.seen).special] == ["concealed"]
    assert not is_separable(gather(captured.seen))
    assert how_adaptive(captured.seen) == "no"


def test_a_batch_is_not_told_apart(intercept: Intercept) -> None:
    """Labels of several photos and their samples have too many orders to try."""
    captured = intercept(batch=2, **CONCEALED)
    assert adapt_to(captured.seen).missed == ("concealed_samples",)


def test_of_one_persons_images_the_one_that_fits_is_the_photo() -> None:
    maps = torch.eye(2, 4)
    first_fc = FirstFullyConnected(torch.zeros(3, 4), torch.zeros(3, 4), maps, maps=maps)
    rebuilt = maps + torch.tensor([[0, 0, 0.3, 0], [0, 0, 0.1, 0]])
    assert photo_among(first_fc, rebuilt, labeled=False) == 1
    assert photo_among(first_fc, rebuilt, labeled=True) == 0
