"""More photos behind every update."""

from dataclasses import dataclass, replace

from fedaudit.core.errors import DataError
from fedaudit.core.observation import LocalTraining
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split
from fedaudit.defenses.settings import pass_on, public_settings, require


@dataclass(frozen=True, kw_only=True)
class LargerBatch:
    """Let every local step take at least `images` photos, and every update stand for as many.

    Measured as a defense by Geiping et al. (NeurIPS 2020, arXiv 2003.14053, section 6) and Huang et
    al. (NeurIPS 2021, arXiv 2112.00059), recalled. The federation trains so, too: with fewer,
    larger steps an epoch. A batch only averages: a malicious server can single out one photo of
    many (Fowl et al., ICLR 2022, arXiv 2110.13057; Wen et al., ICML 2022, arXiv 2202.00580), and
    fully connected layers give small batches away exactly (Dimitrov et al., NeurIPS 2024, arXiv
    2403.03945). Guarantee: none, it is a heuristic.

    In a study the audited photos are those of the undefended row, and the only ones scored; the
    others are further photos of the same client.

    Args:
        images: Fewest photos of a step and behind an audited update; ≥ 1. Where the study asks for
            more, nothing changes.
    """

    images: int = 8

    def __post_init__(self) -> None:
        require(self.images >= 1, "images must be ≥ 1", self.images)

    __call__ = pass_on  # the federation hands it more photos
    keeps_claims = True
    facts = public_settings("larger_batch")

    def check(self, faces: FaceSet, split: Split) -> None:
        """Refuse a split in which a client has fewer photos than `images`."""
        for client, photos in enumerate(split.photos):
            if len(photos) < self.images:
                raise DataError(
                    f"larger_batch wants {self.images} photos behind an update, and client "
                    f"{client} trains on {len(photos)} of {faces.name}. Lower images, or raise "
                    "[federation] photos, or lower clients."
                )

    def photos(self, batch_size: int) -> int:
        """Photos behind an update: the audited ones, and others of the same client."""
        return max(batch_size, self.images)

    def local(self, training: LocalTraining) -> LocalTraining:
        """The same local training with at least `images` photos in each step."""
        return replace(training, batch_size=max(training.batch_size, self.images))
