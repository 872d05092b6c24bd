"""Re-identification: is the reconstruction the person, to a network that was not audited?

Embeddings of faces share a large common part, and a smaller image shifts it. Both sides are
centered, gallery photos and probes each by the mean over their own photos, which raises the ceiling
of re-identification that every report prints (`benchmarks/attack_quality.py` prints it for ORL at
32 px). The centers are constants of the data set: they do not depend on
any reconstruction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, with_config
from torch import Tensor

from fedaudit.core.measures import Rate
from fedaudit.data.face_set import FaceSet, class_of
from fedaudit.data.splits import Split
from fedaudit.scoring.copies import NO_CALIBRATION, CopyCalibration, calibrate_copies
from fedaudit.scoring.framing import Frame
from fedaudit.stats.clustered_rates import rate_by_person, rate_of_pairs

PAIRS_PER_FALSE_MATCH = 3
"""Impostor pairs needed for each expected false match: 3,000 at an FMR of 1e-3."""
GALLERY_SIZE = 112
"""Pixels of gallery photos, whatever the study's size: an adversary's photos are not small."""


Embed = Callable[[Tensor], Tensor]
"""Images `[N, C, H, W]` in [0, 1] → unit vectors `[N, D]`."""


def rgb(images: Tensor) -> Tensor:
    """`[N, C, H, W]` with three channels, as the embedder takes them."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


@dataclass(frozen=True)
class JudgeRates:
    """What the judge does on originals, with intervals that count people, not photos or pairs.

    Attributes:
        false_matches: Of impostor pairs, at the threshold: the FMR that was calibrated.
        reidentified, first: Of originals, as `Gallery.ceiling_hits` and `ceiling_first`.
        strangers: Of originals, as `Gallery.strangers`.
    """

    false_matches: Rate
    reidentified: Rate
    first: Rate
    strangers: Rate


@with_config(ConfigDict(arbitrary_types_allowed=True))
@dataclass(frozen=True)
class Gallery:
    """Everybody's reference photos, and the threshold that they calibrate.

    Attributes:
        people: `[P]`.
        templates: `[P, D]`, mean centered embedding of each person's gallery photos, unit length.
        center: `[D]`, mean embedding of photos at the study's size, taken from every probe.
        photos: Number of gallery photos in all.
        threshold: Identity cosine above which two faces count as one person; None where there are
            too few impostor pairs to calibrate it.
        fmr: The false match rate that it is calibrated at; 1e-2 in place of a stricter one that
            the number of pairs does not support.
        impostor_pairs: What it was calibrated on.
        ceiling_hits, ceiling_first, ceiling_n: Originals at the study's size that are
            re-identified, that come first of all people, and how many were tried.
        strangers: Of those, how many match somebody *else*: what a search of the whole gallery
            finds by chance.
        copies: What counts as a copy of a photo.
        alike: People who may be one person under two names: their templates are nearer than a
            quarter of the photos are to their own person's. They spoil calibration and rates.
        rates: The same counts with their intervals; None without a threshold.
    """

    people: tuple[str, ...]
    templates: Tensor
    center: Tensor
    photos: int
    threshold: float | None
    fmr: float
    impostor_pairs: int
    ceiling_hits: int
    ceiling_first: int
    ceiling_n: int
    strangers: int = 0
    copies: CopyCalibration = NO_CALIBRATION
    rates: JudgeRates | None = None
    alike: tuple[tuple[str, str], ...] = ()

    @property
    def ceiling(self) -> float | None:
        """Share of the originals that are re-identified; None where there is no threshold."""
        has_ceiling = self.threshold is not None and self.ceiling_n
        return self.ceiling_hits / self.ceiling_n if has_ceiling else None

    @property
    def candidates(self) -> int:
        """Among how many an original is to come first: people, or images of a class on average."""
        return round(len(self.people) / max(1, len({*map(class_of, self.people)})))

    def compare(self, embeddings: Tensor, person: str) -> tuple[Tensor, Tensor]:
        """Cosine `[n]` to `person`'s template, and rank `[n]` (1: closest of all people).

        Of a picture that is no face, rank among the images of its class.
        """
        scores = F.normalize(embeddings - self.center, dim=1) @ self.templates.T
        own = scores[:, self.people.index(person)]
        rivals = [k for k, name in enumerate(self.people) if class_of(name) == class_of(person)]
        return own, 1 + (scores[:, rivals] > own[:, None]).sum(1)


def average_with_mirror(embed: Embed) -> Embed:
    """The mean over an image and its mirror image: steadier at low resolution, twice the cost."""
    return lambda images: F.normalize(embed(images) + embed(images.flip(3)), dim=1)


def calibrate(
    references: Mapping[str, Tensor],
    probes: Mapping[str, Tensor],
    *,
    fmr: float,
    photos: int,
    nearest: Mapping[str, float] | None = None,
) -> Gallery:
    """Build the gallery and its threshold.

    Args:
        references: By person, embeddings `[n, D]` of gallery photos, full size.
        probes: By person, embeddings `[n, D]` of *other* photos at the study's size. Each is
            compared with its own person (the ceiling) and with everybody else (impostors).
        fmr: Wanted false match rate, in (0, 0.5].
        photos: Number of gallery photos, to be reported.
        nearest: Of each person, PSNR of the nearest two photos (`fedaudit.scoring.copies`).
    """
    # Sorted, because sums in another order give other bits, and files keep no order.
    people = tuple(sorted(references))
    middle = torch.cat([references[p] for p in people]).mean(0)
    means = [F.normalize(references[p] - middle, dim=1).mean(0) for p in people]
    templates = F.normalize(torch.stack(means), dim=1)
    originals = torch.cat([probes[p] for p in people if p in probes])
    center = originals.mean(0)
    scores = F.normalize(originals - center, dim=1) @ templates.T
    owner = torch.tensor([k for k, p in enumerate(people) if p in probes for _ in probes[p]])
    mine = torch.arange(len(people))[None] == owner[:, None]
    rivals = _rivals(people)[owner] & ~mine
    genuine, pairs = scores[mine], int(rivals.sum())
    others = scores.masked_fill(~rivals, -2.0).max(1).values
    rate = next((r for r in (fmr, 1e-2) if pairs * r >= PAIRS_PER_FALSE_MATCH), None)
    threshold = None
    if rate is not None:
        kinds, classes = _groups(people, probes)
        groups = [scores[rivals & group[:, None]] for group in (*kinds, *classes)]
        enough = [
            one.sort(descending=True).values
            for k, one in enumerate(groups)
            if k < len(kinds) or len(one) * rate >= PAIRS_PER_FALSE_MATCH
        ]
        threshold = max(float(one[int(rate * len(one))]) for one in enough)
    return Gallery(
        people=people,
        templates=templates,
        center=center,
        photos=photos,
        threshold=threshold,
        fmr=fmr if rate is None else rate,
        impostor_pairs=pairs,
        ceiling_hits=0 if threshold is None else int((genuine > threshold).sum()),
        ceiling_first=int((genuine >= others).sum()),
        ceiling_n=len(genuine),
        strangers=0 if threshold is None else int((others > threshold).sum()),
        copies=calibrate_copies(nearest or {}),
        rates=None if threshold is None else _rates(scores, owner, rivals, threshold),
        alike=tuple(
            (people[int(i)], people[int(j)])
            for i, j in (templates @ templates.T > genuine.quantile(0.25)).triu(1).nonzero()
        ),
    )


def _groups(
    people: Sequence[str], probes: Mapping[str, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Masks `[n]` of probes: kinds, for each of which the FMR is to hold, and the same by class.

    Photos of people are all of one kind. Of pictures that are no faces the first probe is the
    picture itself, and others are it in noise: the threshold must hold for either, and within each
    class that has pairs enough, as images of one class may be more alike than those of others.
    """
    names = [p for p in people for _ in probes.get(p, ())]
    if not class_of(people[0]):
        return [torch.ones(len(names), dtype=torch.bool)], []
    place = torch.cat([torch.arange(len(probes[p])) for p in people if p in probes])
    kinds = [place == k for k in range(int(place.max()) + 1)]
    classes = [class_of(name) for name in names]
    each = [torch.tensor([one == name for one in classes]) for name in dict.fromkeys(classes)]
    return kinds, [kind & one for kind in kinds for one in each]


def _rivals(people: Sequence[str]) -> Tensor:
    """`[P, P]`: who may be taken for whom. Everybody; of pictures the images of one class."""
    classes = [class_of(person) for person in people]
    numbers = torch.tensor([classes.index(name) for name in classes])
    return numbers[:, None] == numbers[None]


def _rates(scores: Tensor, owner: Tensor, rivals: Tensor, threshold: float) -> JudgeRates:
    """Of cosines `[n, P]` of originals to all templates, whose each original is, `[n]`, and whom
    it may be taken for, `[n, P]`.
    """
    people = scores.shape[1]
    mine = torch.arange(people)[None] == owner[:, None]
    whose, own = owner.tolist(), scores[mine]
    matches = torch.zeros(people, people, dtype=torch.double)
    matches.index_add_(0, owner, ((scores > threshold) & rivals).double())
    trials = torch.zeros(people, people, dtype=torch.double)
    trials.index_add_(0, owner, rivals.double())
    others = scores.masked_fill(~rivals, -2.0).max(1).values
    return JudgeRates(
        false_matches=rate_of_pairs(matches.numpy(), trials.numpy()),
        reidentified=rate_by_person((own > threshold).tolist(), whose, "photos"),
        first=rate_by_person((own >= others).tolist(), whose, "photos"),
        strangers=rate_by_person((others > threshold).tolist(), whose, "photos"),
    )


def pack(
    references: Mapping[str, Tensor],
    probes: Mapping[str, Tensor],
    nearest: Mapping[str, float],
    frame: Frame | Tensor,
) -> dict[str, Tensor]:
    """The arguments of `calibrate` and the judge's frame in one mapping, as they are kept on disk.

    `reference/PERSON` and `probe/PERSON` are embeddings `[n, D]`, `nearest/PERSON` is `[1]`, in dB,
    `frame` is `[4]`, or whatever else a judge learned of a set.
    """
    return (
        {f"reference/{p}": e for p, e in references.items()}
        | {f"probe/{p}": e for p, e in probes.items()}
        | {f"nearest/{p}": torch.tensor([value]) for p, value in nearest.items()}
        | {"frame": torch.as_tensor(frame, dtype=torch.float64)}
    )


def gallery_of_packed(kept: Mapping[str, Tensor], *, fmr: float) -> Gallery:
    """The gallery of what `pack` made; of runs older than `nearest`, copies prove nothing."""
    parts: dict[str, dict[str, Tensor]] = {"reference": {}, "probe": {}, "nearest": {}}
    for key, value in sorted(kept.items()):
        kind, _, person = key.partition("/")
        if kind in parts:
            parts[kind][person] = value
    return calibrate(
        parts["reference"],
        parts["probe"],
        fmr=fmr,
        photos=sum(map(len, parts["reference"].values())),
        nearest={person: round(float(value), 2) for person, value in parts["nearest"].items()},
    )


def embed_split(
    full: FaceSet, faces: FaceSet, split: Split, embed: Embed
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """References and probes for `calibrate`.

    Gallery photos of `full`, the set at full size, are the references; all others of `faces`, the
    same set at the study's size, are the probes.
    """
    references = {p: embed(full.images[list(photos)]) for p, photos in split.gallery.items()}
    gallery = {i for photos in split.gallery.values() for i in photos}
    rest: dict[str, list[int]] = {}
    for index, person in enumerate(faces.people):
        if index not in gallery:
            rest.setdefault(person, []).append(index)
    return references, {p: embed(faces.images[photos]) for p, photos in rest.items()}
