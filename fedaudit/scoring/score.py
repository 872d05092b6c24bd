"""From a reconstruction and the truth to one row of scores: the only place where both meet."""

from torch import Tensor

from fedaudit.scoring.identity import Embed, Gallery
from fedaudit.scoring.image_metrics import LPIPS, MSE, PSNR, SSIM
from fedaudit.scoring.pairing import labels_recovered, pair
from fedaudit.types import ImageScore, Reconstruction, Secret


def score(
    secret: Secret,
    reconstruction: Reconstruction,
    *,
    gallery: Gallery | None,
    embed: Embed | None,
    wrong_person: str | None = None,
) -> tuple[tuple[ImageScore, ...], float | None, Tensor]:
    """Pair, measure, identify.

    Args:
        secret: The truth.
        reconstruction: What the attack returned; its images are clamped to [0, 1].
        gallery: Reference photos and threshold; None for a set without identities.
        embed: The embedder that made the gallery; None where it is not available.
        wrong_person: Person of another target, for the wrong-client control.

    Returns:
        A score per original, the share of labels recovered, and the images in the originals' order.
    """
    images = reconstruction.images.clamp(0, 1)
    order = pair(secret.images, secret.labels, images, reconstruction.labels)
    images = images[list(order)]
    measured = {m: m(secret.images, images).tolist() for m in (SSIM(), PSNR(), MSE(), LPIPS())}
    ssim, psnr, mse, lpips = measured.values()
    embeddings = embed(images) if embed and gallery else None
    scores = []
    for k, person in enumerate(secret.people):
        cosine, rank, hit, wrong = None, None, None, None
        if gallery and embeddings is not None:
            own, place = gallery.compare(embeddings[k : k + 1], person)
            cosine, rank = float(own), int(place)
            if gallery.threshold is not None:
                hit = cosine > gallery.threshold
                if wrong_person and wrong_person != person:
                    other, _ = gallery.compare(embeddings[k : k + 1], wrong_person)
                    wrong = float(other) > gallery.threshold
        scores.append(
            ImageScore(person, ssim[k], psnr[k], lpips[k], mse[k], cosine, hit, rank, wrong)
        )
    return tuple(scores), labels_recovered(secret.labels, reconstruction.labels), images
