"""How well the independent embedder knows the original ORL photos: the ceiling of any attack.

A perfect reconstruction cannot be re-identified more often than the original itself. Each photo,
at the size that a study uses, is compared with the person's other photos at full size.

    python benchmarks/identity_ceiling.py crops    # today's crop for dlib's network: half a minute
    python benchmarks/identity_ceiling.py judges   # both judges by size and crop: three minutes

The second calibrates as a study does: five gallery photos a person at full size, five probes at the
study's, 7,800 impostor pairs, FMR 1e-3.
"""

import sys
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from fedaudit.core.scenario import Choice, Federation
from fedaudit.data.crop import to_tensor
from fedaudit.data.orl import BOX, PEOPLE, PHOTOS, orl
from fedaudit.data.splits import split
from fedaudit.files import asset_store
from fedaudit.scoring.aligned_judge import load_judge
from fedaudit.scoring.embedder import load_embedder
from fedaudit.scoring.identity import GALLERY_SIZE, calibrate, embed_split

FMR = 1e-3
CROPS = {
    "rows 20:112, all columns": (0, 20, 92, 112),
    "rows 24:112, columns 2:90": (2, 24, 90, 112),
    "rows 28:112, columns 4:88 (ours)": BOX,
    "rows 32:112, columns 6:86": (6, 32, 86, 112),
    "rows 24:108, columns 4:88": (4, 24, 88, 108),
    "rows 30:102, columns 10:82": (10, 30, 82, 102),
}
SIZES = (16, 24, 32, 48, 64, 92)


@dataclass(frozen=True)
class Ceiling:
    """Rates in [0, 1]; `pairs`, `nearest` and `mean` differ in what a probe is compared with."""

    rank1: float
    auc: float
    pairs: float
    nearest: float
    mean: float

    def __str__(self) -> str:
        shown = (self.rank1, self.auc, self.pairs, self.nearest, self.mean)
        return "".join(f"{value:10.4f}" for value in shown)


def measure(probes: Tensor, gallery: Tensor) -> Ceiling:
    """Leave one photo out, for each photo.

    Args:
        probes: `[400, D]` unit vectors, PHOTOS a person in order.
        gallery: `[400, D]` unit vectors of the same photos at full size.
    """
    n = PEOPLE * PHOTOS
    person = torch.arange(n) // PHOTOS
    itself = torch.eye(n, dtype=torch.bool)
    alike = probes @ gallery.T
    same = person[:, None] == person
    own = person[:, None] == torch.arange(PEOPLE)

    nearest = alike.masked_fill(itself, -1).view(n, PEOPLE, PHOTOS).amax(2)
    sums = gallery.view(PEOPLE, PHOTOS, -1).sum(1)
    templates = sums - gallery[:, None] * own[:, :, None]  # the probe's own photo is left out
    mean = (normalize(templates, dim=2) * probes[:, None]).sum(2)
    return Ceiling(
        rank1=float((nearest.argmax(1) == person).float().mean()),
        auc=_auc(alike[same & ~itself], alike[~same]),
        pairs=_rate(alike[same & ~itself], alike[~same]),
        nearest=_rate(nearest[own], nearest[~own]),
        mean=_rate(mean[own], mean[~own]),
    )


def _rate(genuine: Tensor, impostor: Tensor) -> float:
    return float((genuine > impostor.quantile(1 - FMR)).float().mean())


def _auc(genuine: Tensor, impostor: Tensor) -> float:
    ranks = torch.cat([genuine, impostor]).argsort().argsort()[: len(genuine)].double() + 1
    n, m = len(genuine), len(impostor)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def judges() -> None:
    """Originals that each judge re-identifies, of 200, by size, in our crop and aligned."""
    torch.set_num_threads(1)
    print(f"{'judge':8}{'photos':10}{'size':>6}{'re-identified':>15}{'first':>8}{'aligned':>10}")
    for align in (False, True):
        full = orl(size=GALLERY_SIZE, align=align)
        held = split(full, Federation(photos=5))
        for name in ("sface", "dlib"):
            judge = load_judge(Choice(name))
            embed = judge.within(judge.frame(full.images))
            for size in (32, 64, 112):
                faces = orl(size=size, align=align)
                found = calibrate(*embed_split(full, faces, held, embed), fmr=FMR, photos=200)
                print(
                    f"{name:8}{'aligned' if align else 'our crop':10}{size:6}"
                    f"{found.ceiling_hits:8} of {found.ceiling_n}{found.ceiling_first:8}"
                    f"{f'{len(full.images)} of 400' if align else '—':>12}",
                    flush=True,
                )


def crops() -> None:
    """Print both tables of crops."""
    torch.set_num_threads(1)
    embedder = load_embedder()
    folder = asset_store.path("orl")
    files = [folder / f"s{p}/{i}.pgm" for p in range(1, PEOPLE + 1) for i in range(1, PHOTOS + 1)]
    photos = [Image.open(file).copy() for file in files]

    def vectors(box: tuple[int, int, int, int], size: int) -> Tensor:
        return embedder.embed(to_tensor([photo.crop(box) for photo in photos], size))

    columns = ("rank-1", "AUC", "pairs", "nearest", "mean")
    head = "".join(f"{name:>10}" for name in columns)
    note = f"re-identified at FMR {FMR:g} against"
    print(f"{'':34}{'':20}  {note}")
    print(f"{'crop, at its own size':34}{head}")
    for name, box in CROPS.items():
        full = vectors(box, box[2] - box[0])
        print(f"{name:34}{measure(full, full)}")
    gallery = vectors(BOX, BOX[2] - BOX[0])
    print(f"\n{'our crop, probe size in pixels':34}{head}")
    for size in SIZES:
        print(f"{size:<34}{measure(vectors(BOX, size), gallery)}", flush=True)


if __name__ == "__main__":
    {"crops": crops, "judges": judges}[sys.argv[1] if len(sys.argv) > 1 else "judges"]()
