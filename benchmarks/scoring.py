"""What the quality benchmarks share: the gallery, and a line of the table."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from fedaudit.core.capture import Capture
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.scenario import Choice, Federation
from fedaudit.core.trial import ImageScore
from fedaudit.data.face_set import FaceSet
from fedaudit.data.orl import orl
from fedaudit.data.splits import Split, split
from fedaudit.scoring.aligned_judge import load_judge
from fedaudit.scoring.embedder import load_embedder
from fedaudit.scoring.identity import Embed, Gallery, average_with_mirror, calibrate, embed_split
from fedaudit.scoring.score import score


@dataclass(frozen=True)
class Judge:
    """An independent embedder with a calibrated gallery."""

    gallery: Gallery
    embed: Embed

    @classmethod
    def of(cls, faces: FaceSet, parts: Split) -> "Judge":
        """Calibrated at an FMR of 1e-3 on ORL's photos at full size."""
        embed = average_with_mirror(load_embedder().embed)
        references, probes = embed_split(orl(size=112), faces, parts, embed)
        return cls(calibrate(references, probes, fmr=1e-3, photos=200), embed)

    def score(self, capture: Capture, found: Reconstruction) -> tuple[ImageScore, ...]:
        """One score an image."""
        assert capture.secret is not None
        return score(capture.secret, found, gallery=self.gallery, embed=self.embed)[0]

    @property
    def ceiling(self) -> str:
        """What the originals themselves reach."""
        hits, first, n = (
            self.gallery.ceiling_hits, self.gallery.ceiling_first, self.gallery.ceiling_n
        )  # fmt: skip
        return f"ceiling: {hits}/{n} originals re-identified, {first}/{n} rank-1"


def sface_judge(faces: FaceSet) -> Judge:
    """SFace, calibrated as `Judge.of` calibrates the other network."""
    full, network = orl(size=112), load_judge(Choice("sface"))
    embed = network.within(network.frame(full.images))
    parts = split(faces, Federation(clients=5))
    return Judge(calibrate(*embed_split(full, faces, parts, embed), fmr=1e-3, photos=200), embed)


HEAD = (f"{'SSIM':>6} {'least':>6} {'dB':>6} {'LPIPS':>6} {'rank-1':>7} {'re-id':>7} "
        f"{'s/update':>8}")  # fmt: skip
"""Of the columns that `shown` fills."""


def summary(scores: Sequence[ImageScore], seconds: Sequence[float]) -> dict[str, Any]:
    """Means over images, median CPU seconds of an update."""
    return {
        "ssim": mean(s.metrics["ssim"] for s in scores),
        "least": min(s.metrics["ssim"] for s in scores),
        "psnr": mean(s.metrics["psnr"] for s in scores),
        "lpips": mean(s.metrics.get("lpips", 0.0) for s in scores),
        "rank1": f"{sum(s.rank == 1 for s in scores)}/{len(scores)}",
        "reid": f"{sum(bool(s.reidentified) for s in scores)}/{len(scores)}",
        "seconds": median(seconds),
    }


def shown(row: dict[str, Any]) -> str:
    """A summary as columns."""
    return (f"{row['ssim']:6.3f} {row['least']:6.3f} {row['psnr']:6.1f} {row['lpips']:6.3f} "
            f"{row['rank1']:>7} {row['reid']:>7} {row['seconds']:8.1f}")  # fmt: skip
