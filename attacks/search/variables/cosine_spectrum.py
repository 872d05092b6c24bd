"""Images as cosine waves whose steps are as large as photos have such waves: coarse before fine.

Where a search varies pixels, a step moves all waves of an image alike. The variation's weight must
then be large, so that nothing fine is drawn first, and where spans leave the finest detail open it
takes contrast and color away: an objective at whose least value no photo lies. Waves in units of
their usual size in photos, whose amplitudes fall as one over the frequency (Field, JOSA A 1987),
are coarse before they are fine by themselves, and need little of it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedaudit.attacks.evidence.photo_statistics import cosines
from fedaudit.attacks.search.block_order import in_nearest_order
from fedaudit.attacks.search.scene import Scene, StageResult, images_of
from fedaudit.attacks.search.variables.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class CosineSpectrum:
    """Coefficients of the discrete cosine transform.

    Images are not held in [0, 1]: a stage has `WithinRange` for that.

    Args:
        power: Units are 1 / (1 + frequency) to that power, scaled so that a step of all of them
            moves pixels by its size: 1 is what photos have, less lets fine waves move sooner.
        start: From "normal" noise around gray, from the best images so far ("previous"), from what
            the stage before ended with ("last"), or from that with its quarters in the order that
            is nearest to what layers' inputs span ("reordered").
    """

    power: float = 1.0
    start: Literal["last", "normal", "previous", "reordered"] = "previous"

    def begin(self, scene: Scene, before: StageResult) -> list[Tensor]:
        """The spectra of the images so far: one `[R, c, H, W]` an image."""
        channels = scene.evidence.free_shape[0]
        goes_on = self.start in ("last", "reordered")
        images = images_of(scene, before) if goes_on else before.images
        if self.start == "reordered":
            spans = scene.leading
            assert spans is not None
            images = torch.stack([in_nearest_order(spans, one) for one in images.clamp(0, 1)])
        if self.start == "normal":
            images = torch.stack(Pixels(start="normal").begin(scene, before), 1).clamp(0, 1)
        waves, units = _basis(images, self.power)
        spectra = waves[0] @ (images[:, :, :channels] - 0.5) @ waves[1].mT / units
        return list(spectra.unbind(1))

    def decode(self, scene: Scene, variable: Tensor) -> Tensor:
        """Spectra `[n, c, H, W]` → images `[n, C, H, W]`."""
        waves, units = _basis(variable, self.power)
        images = waves[0].mT @ (units * variable) @ waves[1] + 0.5
        return images.expand(-1, scene.evidence.shape[0], -1, -1)


def _basis(like: Tensor, power: float) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Waves along each side, `[H, H]` and `[W, W]`, a row each, and the units `[H, W]`."""
    height, width = like.shape[-2:]
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in (height, width))
    units = (1 + torch.hypot(rows[:, None], columns)) ** -power
    units = units / units.square().mean().sqrt()
    return (cosines(rows).to(like), cosines(columns).to(like)), units.to(like)
