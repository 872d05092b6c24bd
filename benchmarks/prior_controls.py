"""Does a face prior match people by itself? What it draws, knowing nothing, before both judges.

    python benchmarks/prior_controls.py                              # face_gan: about 5 CPU minutes
    python benchmarks/prior_controls.py --priors face_gan mine.safetensors --sizes 64 112

Faces from random latents, gray as ORL's photos, are compared with all of its 40 people, at the
threshold that a study calibrates (five gallery photos a person, 7,800 impostor pairs, FMR 1e-3). A
prior that is nobody's matches as often as strangers do. `by chance` is the prior-only control of a
study: each face is meant to be one person, dealt in turn. `most` is the person who is matched most.
"""

import argparse
from collections import Counter

import torch
from torch import Tensor

from fedaudit.attacks.generators.face_generator import FaceGenerator
from fedaudit.core.scenario import Choice, Federation
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.scoring.aligned_judge import load_judge
from fedaudit.scoring.identity import GALLERY_SIZE, Gallery, calibrate, embed_split
from fedaudit.stats.intervals import clopper_pearson

FMR, PHOTOS = 1e-3, 5


def main() -> None:
    """Print a row for each prior, size and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--priors", nargs="+", default=["face_gan"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 64, 112])
    parser.add_argument("--judges", nargs="+", default=["sface", "dlib"])
    parser.add_argument("--faces", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    heads = ("prior", "px", "judge", "pairs", "FMR on strangers", "matches", "most")
    print(f"| {' | '.join((*heads, 'by chance (95 %)'))} |\n|{'---|' * (len(heads) + 1)}")
    full = orl(size=GALLERY_SIZE)
    held = split(full, Federation(photos=PHOTOS))
    for name in options.judges:
        judge = load_judge(Choice(name))
        embed = judge.within(judge.frame(full.images))
        for size in options.sizes:
            known = embed_split(full, orl(size=size), held, embed)
            gallery = calibrate(*known, fmr=FMR, photos=len(full.images) // 2)
            for prior in options.priors:
                faces = FaceGenerator(source=prior).load((3, size, size), grayscale=True)
                drawn = faces.draw(options.faces, torch.Generator().manual_seed(size))
                vectors = torch.cat([embed(part) for part in torch.split(drawn, 50)])
                row = compared(vectors, gallery)
                print(f"| {prior} | {size} | {name} | {' | '.join(row)} |", flush=True)


def compared(vectors: Tensor, gallery: Gallery) -> list[str]:
    """What a gallery says of the embeddings `[n, D]` of faces that are nobody's."""
    assert gallery.threshold is not None
    assert gallery.rates is not None
    matches = torch.stack([gallery.compare(vectors, person)[0] for person in gallery.people], 1)
    hits = matches > gallery.threshold
    dealt = torch.arange(len(hits)) % len(gallery.people)
    lucky = int(hits[torch.arange(len(hits)), dealt].sum())
    low, high = clopper_pearson(lucky, len(hits))
    most = Counter(hits.nonzero()[:, 1].tolist()).most_common(1)
    return [
        f"{hits.numel():,}",
        f"{gallery.rates.false_matches.value:.4f}",
        f"{int(hits.sum())} ({float(hits.float().mean()):.4f})",
        str(most[0][1] if most else 0),
        f"{lucky} of {len(hits)} ({low:.1%} to {high:.1%})".replace("%", " %"),
    ]


if __name__ == "__main__":
    main()
