"""Which regions of the faces came back, and which of them carry the identity match.

Two views that need not agree. The local SSIM map says where the reconstruction looks like the
original. Grad-CAM of the cosine to the person's gallery template, as the judge "dlib" sees it, says
which places of the reconstruction make it a match; painting a region over says what the match
loses without it, for the study's first judge. Regions are boxes in parts of an aligned face crop,
read off the mean faces of ORL and LFW: approximate for any one face, and wrong for pictures that
are not aligned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor

from fedaudit.core.errors import AttackError
from fedaudit.core.measures import Estimate
from fedaudit.reports.explanation import BOXES, OUTLINE, SIDES, Region, Regions
from fedaudit.scoring.embedder import load_embedder, prepare
from fedaudit.scoring.identity import Embed, Gallery
from fedaudit.scoring.image_metrics import WANG
from fedaudit.why.explained_scenario import Measurement, Subject
from fedaudit.why.gradcam import deepest_map, grad_cam
from fedaudit.why.leaks import estimate

SIDE = 16
"""Places a side of the maps that are kept."""


@dataclass(frozen=True)
class RegionScores:
    """One target's scores by region and its maps, means over its images."""

    people: str
    recovered: dict[str, float]
    prior: dict[str, float]
    heat: dict[str, float]
    heat_original: dict[str, float]
    drop: dict[str, float]
    agreement: float
    layer: str
    recovered_map: tuple[float, ...]
    heat_map: tuple[float, ...]
    heat_original_map: tuple[float, ...]


def masks(height: int, width: int) -> dict[str, Tensor]:
    """`[H, W]` bool by region; every place is in exactly one."""
    y = (torch.arange(height) + 0.5)[:, None] / height
    x = (torch.arange(width) + 0.5)[None] / width
    middle = (x > SIDES[0]) & (x < SIDES[1])
    regions = {name: (y >= top) & (y < bottom) & middle for name, (top, bottom) in BOXES.items()}
    regions[OUTLINE] = ~torch.stack(list(regions.values())).any(0)
    return regions


def ssim_map(original: Tensor, other: Tensor) -> Tensor:
    """Local SSIM `[N, H, W]` in [-1, 1], in the setting of the metric (Wang et al. 2004).

    Its mean over all places but a border of half a window is what `SSIM` reports.
    """
    maps = [
        structural_similarity(
            a.permute(1, 2, 0).numpy(), b.permute(1, 2, 0).numpy(), **WANG, full=True
        )[1]
        for a, b in zip(original, other, strict=True)
    ]
    return torch.stack([torch.from_numpy(m).mean(2) for m in maps]).float()


def match_heat(images: Tensor, people: tuple[str, ...], gallery: Gallery) -> tuple[Tensor, str]:
    """Grad-CAM `[N, H, W]` of each image's cosine to its person's template, and the layer's name.

    The score is the one of re-identification: embedding of the image and of its mirror image,
    centered as the gallery is. The heat is the mean over both, mirrored back.
    """
    network = load_embedder().network
    both = prepare(torch.cat([images, images.flip(3)]))
    layer = deepest_map(network, both)
    rows = torch.stack([gallery.templates[gallery.people.index(p)] for p in people])

    def cosine(features: Tensor) -> Tensor:
        first, second = F.normalize(features, dim=1).chunk(2)
        unit = F.normalize(first + second, dim=1)
        return (F.normalize(unit - gallery.center, dim=1) * rows).sum(1)

    heat = grad_cam(network, layer, both, cosine)
    straight, mirror_image = heat.chunk(2)
    total = (straight + mirror_image.flip(2)) / 2
    name = next(n for n, module in network.named_modules() if module is layer)
    return F.interpolate(total[:, None], images.shape[-2:], mode="area")[:, 0], name


def measurements(subject: Subject, *, keep_faces: bool = False) -> list[Measurement[RegionScores]]:
    """One job a target: attack everything that is shared; its pictures may be kept."""
    return [_of_target(subject, target, keep_faces) for target in range(subject.targets)]


def explain(subject: Subject, *, keep_faces: bool = False) -> Regions:
    """Mean over targets of what came back in each region."""
    rows = [subject.get(row) for row in measurements(subject, keep_faces=keep_faces)]
    people = [row.people for row in rows]
    has_heat = all(row.heat for row in rows)

    def mean(values: Callable[[RegionScores], dict[str, float]], region: str) -> Estimate:
        return estimate([values(row)[region] for row in rows], people)

    size = subject.study.size
    areas = {name: float(mask.float().mean()) for name, mask in masks(size, size).items()}
    return Regions(
        regions=tuple(
            Region(
                name=name,
                area=area,
                recovered=mean(lambda row: row.recovered, name),
                prior=mean(lambda row: row.prior, name),
                heat=mean(lambda row: row.heat, name) if has_heat else None,
                heat_original=mean(lambda row: row.heat_original, name) if has_heat else None,
                drop=mean(lambda row: row.drop, name) if has_heat else None,
            )
            for name, area in areas.items()
        ),
        side=SIDE,
        recovered=_mean_map([row.recovered_map for row in rows]),
        heat=_mean_map([row.heat_map for row in rows]) if has_heat else (),
        heat_original=_mean_map([row.heat_original_map for row in rows]) if has_heat else (),
        agreement=estimate([row.agreement for row in rows], people) if has_heat else None,
        layer=rows[0].layer,
    )


def faces(subject: Subject) -> list[dict[str, Tensor]]:
    """The pictures that were kept, a target each: original, reconstruction and maybe heat."""
    albums = (subject.folder.evidence(_album(subject), t) for t in range(subject.targets))
    return [pictures for pictures in albums if pictures is not None]


def _album(subject: Subject) -> str:
    """Whose evidence the pictures are, as the run folder names it."""
    return f"{subject.scenario.name}--why-s{subject.seed}"


def _of_target(subject: Subject, target: int, keep: bool) -> Measurement[RegionScores]:
    name = f"regions/invented/r{subject.scenario.round}/t{target}"
    if keep or subject.folder.evidence(_album(subject), target):
        name += "/faces"  # numbers whose pictures were not kept are measured again with them
    return subject.measurement(name, RegionScores, partial(_scores, target=target, keep=keep))


def _scores(subject: Subject, target: int, keep: bool) -> RegionScores:
    capture = subject.captured(target)
    assert capture.secret is not None  # simulated captures always know it
    pair = subject.reconstructions(target)
    if pair is None or len(pair[0]) != len(capture.secret.images):
        raise AttackError("no attack of the scenario makes photos of what is shared")
    originals, people = capture.secret.images, capture.secret.people
    images, control = pair
    similar, by_chance = ssim_map(originals, images), ssim_map(originals, control)
    pictures = {"original": originals, "reconstruction": images}
    heat = original_heat = torch.zeros(0)
    layer, drop, agreement = "", {}, 0.0
    if subject.gallery and subject.embed and subject.layered:
        heat, layer = match_heat(images, people, subject.layered)
        original_heat, _ = match_heat(originals, people, subject.layered)
        drop = _drops(subject.gallery, subject.embed, images, people)
        pictures["heat"] = heat
        agreement = _correlation(heat, original_heat)
    if keep:
        subject.folder.save_evidence(_album(subject), target, pictures)
    return RegionScores(
        people=" ".join(sorted(set(people))),
        recovered=_within(similar),
        prior=_within(by_chance),
        heat=_shares(heat),
        heat_original=_shares(original_heat),
        drop=drop,
        agreement=agreement,
        layer=layer,
        recovered_map=_small(similar),
        heat_map=_small(_even(heat)),
        heat_original_map=_small(_even(original_heat)),
    )


def _within(maps: Tensor) -> dict[str, float]:
    """Mean of `[N, H, W]` within each region."""
    places = masks(maps.shape[1], maps.shape[2])
    return {name: float(maps[:, mask].mean()) for name, mask in places.items()}


def _even(heat: Tensor) -> Tensor:
    """`[N, H, W]` as a multiple of an even spread; zeros where there is no heat at all."""
    return heat / heat.mean((1, 2), keepdim=True).clamp_min(1e-12) if heat.numel() else heat


def _shares(heat: Tensor) -> dict[str, float]:
    """Share of each image's heat in each region, mean over images; {} without an embedder."""
    if not heat.numel():
        return {}
    places = masks(heat.shape[1], heat.shape[2])
    sizes = {name: float(mask.float().mean()) for name, mask in places.items()}
    return {name: value * sizes[name] for name, value in _within(_even(heat)).items()}


def _drops(
    gallery: Gallery, embed: Embed, images: Tensor, people: tuple[str, ...]
) -> dict[str, float]:
    """Cosine that the match loses when a region gets the mean color of its image."""

    def cosine(variant: Tensor) -> float:
        features = embed(variant)
        own = [gallery.compare(features[k : k + 1], p)[0] for k, p in enumerate(people)]
        return float(torch.cat(own).mean())

    whole, plain = cosine(images), images.mean((2, 3), keepdim=True)
    places = masks(images.shape[2], images.shape[3])
    return {name: whole - cosine(torch.where(mask, plain, images)) for name, mask in places.items()}


def _correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's, mean over images; 0 where a map has no heat."""
    pairs = zip(one.flatten(1), other.flatten(1), strict=True)
    coefficients = [torch.corrcoef(torch.stack(pair))[0, 1].nan_to_num() for pair in pairs]
    return float(torch.stack(coefficients).mean())


def _small(maps: Tensor) -> tuple[float, ...]:
    """`[N, H, W]` → mean over images at `SIDE` × `SIDE` places, row by row."""
    if not maps.numel():
        return ()
    small = F.adaptive_avg_pool2d(maps.mean(0, keepdim=True), SIDE)
    return tuple(round(value, 6) for value in small.flatten().tolist())


def _mean_map(maps: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(torch.tensor(maps).mean(0).tolist())
