"""Copy detection: the false match rate is what it states, and originals are found in noise."""

from functools import cache

import pytest
import torch
from torch import Tensor

from fedaudit.core.scenario import Federation
from fedaudit.data.face_set import FaceSet, class_of
from fedaudit.data.picture_set import mnist_5k
from fedaudit.data.splits import split
from fedaudit.scoring.copy_judge import CopyJudge, add_noise, copies, embed_pictures
from fedaudit.scoring.identity import Embed, Gallery, gallery_of_packed


@cache
def digits() -> FaceSet:
    return mnist_5k(images=1000)


@cache
def judged() -> tuple[Gallery, Embed, FaceSet, tuple[str, ...]]:
    """A gallery of the first half of the digits that train; the second half is new to it."""
    faces = digits()
    dealt = split(faces, Federation(clients=1))
    new = dealt.people[::2]
    known = [k for k, name in enumerate(faces.people) if name not in set(new)]
    some = FaceSet(
        name="digits",
        images=faces.images[known],
        people=tuple(faces.people[k] for k in known),
        sources=(),
        terms="",
        has_identities=False,
        classes=tuple(faces.classes[k] for k in known),
    )
    kept = embed_pictures(some, dealt, copies())
    embed = CopyJudge().within(kept["frame"].float())
    return gallery_of_packed(kept, fmr=1e-3), embed, faces, new


def pairs_of(images: Tensor, names: tuple[str, ...]) -> Tensor:
    """Cosines of each image to all references of its class."""
    gallery, embed, _, _ = judged()
    scores = torch.nn.functional.normalize(embed(images) - gallery.center, dim=1)
    scores = scores @ gallery.templates.T
    same = [[class_of(a) == class_of(b) for b in gallery.people] for a in names]
    return scores[torch.tensor(same)]


@pytest.mark.parametrize("decibels", [None, 20.0, 10.0])
def test_new_images_match_as_rarely_as_is_stated(decibels: float | None) -> None:
    gallery, _, faces, new = judged()
    images = torch.stack([faces.images[faces.people.index(name)] for name in new])
    if decibels:
        noisy = [add_noise(x, decibels, n) for x, n in zip(images, new, strict=True)]
        images = torch.stack(noisy)
    scores = pairs_of(images, new)
    assert gallery.fmr == 1e-3
    assert gallery.threshold is not None
    assert len(scores) > 6000
    assert int((scores > gallery.threshold).sum()) <= 2e-3 * len(scores)


def test_originals_are_found_in_noise_and_no_noise_is() -> None:
    gallery, embed, faces, _ = judged()
    assert gallery.threshold is not None
    hits = 0
    for name in gallery.people:
        image = faces.images[faces.people.index(name)]
        cosine, rank = gallery.compare(embed(add_noise(image, 20, f"other {name}")[None]), name)
        hits += int(float(cosine) > gallery.threshold and int(rank) == 1)
    assert hits >= 0.95 * len(gallery.people)
    noise = torch.rand(500, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    assert not bool((pairs_of(noise, gallery.people[:1] * 500) > gallery.threshold).any())


def test_pairs_are_of_one_class() -> None:
    gallery, _, _, _ = judged()
    counts = [sum(class_of(p) == str(k) for p in gallery.people) for k in range(10)]
    assert gallery.impostor_pairs == sum(2 * n * (n - 1) for n in counts)  # plain and noisy
    assert gallery.rates is not None
    assert gallery.rates.false_matches.value <= gallery.fmr


@pytest.mark.parametrize("side", [8, 28, 64])
def test_brightness_and_contrast_do_not_count(side: int) -> None:
    images = torch.rand(20, 3, side, side, generator=torch.Generator().manual_seed(1))
    judge = CopyJudge()
    embed = judge.within(judge.frame(images[:10]))
    dim = 0.2 + 0.3 * images
    assert torch.allclose(embed(images), embed(dim), atol=1e-3)
    assert bool(torch.isfinite(embed(torch.zeros(1, 3, side, side))).all())
