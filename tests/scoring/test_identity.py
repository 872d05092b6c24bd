"""On made-up embeddings: people are directions, photos scatter about them, faces share a part."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.core.scenario import Federation
from fedaudit.data.face_set import CLASS_MARK, FaceSet
from fedaudit.data.splits import split
from fedaudit.scoring.identity import Gallery, average_with_mirror, calibrate, embed_split
from fedaudit.stats.intervals import clopper_pearson

DIMENSIONS = 64
SCATTER = 0.7


def _people(count: int, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {f"p{k}": torch.randn(DIMENSIONS, generator=draw) for k in range(count)}


def _photos(
    people: dict[str, Tensor], each: int, seed: int, shift: float = 3.0
) -> dict[str, Tensor]:
    """Unit vectors with a large common part, which depends on the size of the photos."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: F.normalize(
            center + SCATTER * torch.randn((each, DIMENSIONS), generator=draw) + shift, dim=1
        )
        for name, center in people.items()
    }


def _gallery(count: int = 120, fmr: float = 1e-3, probes: int = 3) -> Gallery:
    people = _people(count)
    references = _photos(people, 4, seed=1)
    return calibrate(
        references, _photos(people, probes, seed=2, shift=1.0), fmr=fmr, photos=4 * count
    )


@pytest.mark.parametrize("fmr", [1e-3, 1e-2, 0.1])
def test_fresh_impostors_match_at_the_nominal_rate(fmr: float) -> None:
    gallery = _gallery(fmr=fmr)
    assert gallery.fmr == fmr
    assert gallery.threshold is not None
    fresh = _photos(_people(120), 3, seed=9, shift=1.0)
    matches = tried = 0
    for person, photos in fresh.items():
        scores = F.normalize(photos - gallery.center, dim=1) @ gallery.templates.T
        others = [k for k, name in enumerate(gallery.people) if name != person]
        matches += int((scores[:, others] > gallery.threshold).sum())
        tried += scores[:, others].numel()
    expected = fmr * tried
    # Both the threshold and this count are drawn: four standard deviations of their difference.
    assert abs(matches - expected) < 4 * (2 * expected) ** 0.5


def test_rates_count_people() -> None:
    """The same counts, with intervals over 120 people in place of 42,840 pairs and 360 photos."""
    gallery = _gallery()
    rates = gallery.rates
    assert rates
    assert (rates.reidentified.hits, rates.reidentified.n) == (gallery.ceiling_hits, 360)
    assert (rates.first.hits, rates.strangers.hits) == (gallery.ceiling_first, gallery.strangers)
    assert rates.false_matches.n == gallery.impostor_pairs == 360 * 119
    assert rates.false_matches.value == pytest.approx(gallery.fmr, abs=1 / gallery.impostor_pairs)
    low, high = clopper_pearson(rates.false_matches.hits, rates.false_matches.n)
    assert rates.false_matches.low < low < gallery.fmr < high < rates.false_matches.high
    assert rates.false_matches.high < 5 * gallery.fmr


def test_the_common_part_does_not_count() -> None:
    """Without centering everybody would look like everybody."""
    gallery = _gallery()
    raw = _photos(_people(120), 1, seed=5, shift=1.0)
    strangers = F.cosine_similarity(raw["p0"], raw["p1"])
    assert float(strangers) > 0.3
    own, _ = gallery.compare(raw["p0"], "p0")
    other, _ = gallery.compare(raw["p0"], "p1")
    assert float(own) > 0.6
    assert abs(float(other)) < 0.4
    assert gallery.threshold is not None
    assert float(other) < gallery.threshold < float(own)
    assert torch.allclose(gallery.templates.norm(dim=1), torch.ones(120), atol=1e-5)


def test_the_calibration_never_exceeds_its_rate() -> None:
    """On its own pairs: no more false matches than asked for."""
    people = _people(40)
    references, probes = _photos(people, 3, seed=1), _photos(people, 5, seed=2)
    gallery = calibrate(references, probes, fmr=1e-3, photos=120)
    assert gallery.impostor_pairs == 40 * 5 * 39
    assert gallery.threshold is not None
    matches = 0
    for person, photos in probes.items():
        for other in gallery.people:
            if other != person:
                cosine, _ = gallery.compare(photos, other)
                matches += int((cosine > gallery.threshold).sum())
    assert 0 < matches <= 1e-3 * gallery.impostor_pairs


@pytest.mark.parametrize(
    ("count", "probes", "fmr", "rate"),
    [
        (40, 2, 1e-3, 1e-3),  # 3,120 pairs
        (39, 2, 1e-3, 1e-2),  # 2,964 pairs
        (18, 1, 1e-3, 1e-2),  # 306 pairs
        (17, 1, 1e-3, None),  # 272 pairs
        (18, 1, 0.1, 0.1),
        (6, 1, 0.1, 0.1),  # 30 pairs
        (5, 1, 0.1, None),
    ],
)
def test_too_few_pairs_support_no_strict_rate(
    count: int, probes: int, fmr: float, rate: float | None
) -> None:
    gallery = _gallery(count, fmr, probes)
    assert gallery.impostor_pairs == count * probes * (count - 1)
    assert gallery.photos == 4 * count
    if rate is None:
        assert gallery.threshold is None
        assert gallery.fmr == fmr
        assert gallery.ceiling_hits == 0
    else:
        assert gallery.threshold is not None
        assert gallery.fmr == rate
    assert gallery.ceiling_n == count * probes


def test_the_ceiling_counts_originals() -> None:
    gallery = _gallery(40, probes=2)
    found = _photos(_people(40), 2, seed=2, shift=1.0)
    assert gallery.threshold is not None
    compared = [gallery.compare(photos, person) for person, photos in found.items()]
    cosines, ranks = torch.cat([c for c, _ in compared]), torch.cat([r for _, r in compared])
    assert gallery.ceiling_n == 80
    assert gallery.ceiling_hits == int((cosines > gallery.threshold).sum())
    assert gallery.ceiling_first == int((ranks == 1).sum())
    assert gallery.ceiling_hits > 70


def test_the_order_of_people_does_not_change_a_bit() -> None:
    """Embeddings come from memory or from a file, in other orders; cells must not show that."""
    people = _people(40)
    references, probes = _photos(people, 3, seed=1), _photos(people, 3, seed=2)
    one = calibrate(references, probes, fmr=1e-3, photos=120)
    backward = dict(reversed(references.items())), dict(reversed(probes.items()))
    two = calibrate(*backward, fmr=1e-3, photos=120)
    assert torch.equal(one.center, two.center)
    assert torch.equal(one.templates, two.templates)
    assert (one.people, one.threshold) == (two.people, two.threshold)


def test_noise_has_a_low_ceiling() -> None:
    """Probes that have nothing to do with the references are found at about the FMR."""
    gallery = calibrate(
        _photos(_people(60), 3, seed=1),
        _photos(_people(60, seed=8), 3, seed=2),
        fmr=0.01,
        photos=180,
    )
    assert gallery.ceiling_n == 180
    assert gallery.ceiling_hits <= 8
    assert gallery.ceiling_first <= 12


def test_the_rate_holds_in_a_class_whose_images_are_alike() -> None:
    draw, count = torch.Generator().manual_seed(3), 60
    photos = {
        f"{label}{CLASS_MARK}{k}": F.normalize(common + torch.randn(1, 16, generator=draw), dim=1)
        for label, common in (("a", 0.0), ("b", torch.tensor([1.0] + [-1.0] + [0.0] * 14)))
        for k in range(count)
    }
    gallery = calibrate(photos, photos, fmr=1e-3, photos=2 * count)
    probes = torch.cat(list(photos.values()))
    scores = torch.stack([gallery.compare(probes, name)[0] for name in photos])
    assert gallery.threshold is not None
    for rows in (slice(count), slice(count, 2 * count)):
        impostors = scores[rows, rows][~torch.eye(count, dtype=torch.bool)]
        assert float((impostors > gallery.threshold).double().mean()) <= 1e-3


def test_people_without_probes_are_still_in_the_gallery() -> None:
    people = _people(20)
    probes = _photos(people, 2, seed=2)
    del probes["p3"]
    gallery = calibrate(_photos(people, 3, seed=1), probes, fmr=0.1, photos=60)
    assert "p3" in gallery.people
    assert gallery.impostor_pairs == 19 * 2 * 19
    assert gallery.ceiling_n == 38


def test_ranks_count_who_is_closer() -> None:
    gallery = Gallery(
        people=("a", "b", "c"),
        templates=F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), dim=1),
        center=torch.zeros(2),
        photos=3,
        threshold=0.5,
        fmr=0.1,
        impostor_pairs=30,
        ceiling_hits=0,
        ceiling_first=0,
        ceiling_n=0,
    )
    seen = torch.tensor([[2.0, 0.1], [0.0, 3.0]])  # any length
    ranks = {person: gallery.compare(seen, person)[1].tolist() for person in "abc"}
    assert ranks == {"a": [1, 3], "b": [2, 2], "c": [3, 1]}
    cosine, _ = gallery.compare(seen, "b")
    assert cosine[1] == pytest.approx(0.5**0.5)


def test_probes_are_never_gallery_photos() -> None:
    """Each photo's only pixel value is its index, so that what was embedded can be told."""
    count, each = 12, 4
    n = count * each
    index = torch.arange(n) / n
    names = tuple(f"p{k // each}" for k in range(n))

    def faces(size: int) -> FaceSet:
        images = index[:, None, None, None].expand(n, 3, size, size).clone()
        return FaceSet("made up", images, names, names, "none")

    sizes: set[int] = set()

    def embed(images: Tensor) -> Tensor:
        sizes.add(images.shape[-1])
        return images[:, 0, 0, :1]

    small, full = faces(4), faces(8)
    parts = split(small, Federation(clients=2, held_out=2, photos=3))
    references, probes = embed_split(full, small, parts, embed)
    assert sizes == {4, 8}
    shown = {
        k: {round(float(v) * n) for v in torch.cat(list(d.values()))}
        for k, d in (("gallery", references), ("probe", probes))
    }
    assert shown["gallery"].isdisjoint(shown["probe"])
    assert len(shown["gallery"] | shown["probe"]) == n
    trained = {i for photos in parts.train.values() for i in photos}
    assert trained <= shown["probe"]
    assert set(references) == set(names)
    for kind, embedded in (("gallery", references), ("probe", probes)):
        for person, values in embedded.items():
            for value in values:
                assert names[round(float(value) * n)] == person, kind


def test_mirrored_is_blind_to_mirroring() -> None:
    weights = torch.randn((3 * 4 * 4, 6), generator=torch.Generator().manual_seed(0))

    def embed(images: Tensor) -> Tensor:
        return F.normalize(images.flatten(1) @ weights, dim=1)

    images = torch.rand((5, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    both = average_with_mirror(embed)
    assert not torch.allclose(embed(images), embed(images.flip(3)))
    assert torch.allclose(both(images), both(images.flip(3)), atol=1e-6)
    assert torch.allclose(both(images).norm(dim=1), torch.ones(5))


def test_one_person_under_two_names_is_found() -> None:
    people = _people(40)
    assert (
        calibrate(_photos(people, 4, seed=1), _photos(people, 4, seed=2), fmr=0.1, photos=160).alike
        == ()
    )
    double = people | {"zz": people[min(people)]}
    found = calibrate(_photos(double, 4, seed=1), _photos(double, 4, seed=2), fmr=0.1, photos=164)
    assert found.alike == ((min(people), "zz"),)
