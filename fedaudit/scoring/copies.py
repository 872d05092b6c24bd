"""Copies: a reconstruction that is closer to its photo than any two other photos are.

A copy is proof of a leak by itself, at one target, if chance does not make copies. How close photos
come to each other by chance is measured on the study's own people at its size: by the PSNR of each
photo to the nearest other one, of the same person or of anybody else. The nearest two are always
two photos of one sitting, which resemble each other as no guess does that knows only the person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.core.measures import Rate
from fedaudit.stats.intervals import rate

UNCALIBRATED = 30.0
"""dB from which images count as copies where there are no photos to calibrate it on."""
MARGIN = 1.0
"""dB above the nearest two photos: on ORL and `openpeople` at 32 to 112 px, whose nearest two are
24 to 30 dB apart, it makes no photo of any person left out of the calibration pass."""
ENOUGH = 20
"""People from which a calibration may prove: one more person's photos would pass by chance in at
most one case of 21, below 5 %."""
SAME = 50.0
"""dB from which two files hold one photo: 8 bits a pixel alone make 59 dB."""
_ROWS = 256


@dataclass(frozen=True)
class CopyCalibration:
    """The PSNR threshold of a copy, and how often another photo passes it.

    Attributes:
        psnr: Least PSNR of a copy to the photo, in dB.
        false_copies: Of how many people another photo, theirs or somebody else's, would pass for
            one of theirs, each judged by the threshold that all others give; None where there were
            no photos to try.
    """

    psnr: float = UNCALIBRATED
    false_copies: Rate | None = None

    @property
    def proves(self) -> bool:
        """Whether a copy is proof: on enough people, of whom nobody's other photo passes."""
        false_match = self.false_copies
        return false_match is not None and false_match.n >= ENOUGH and not false_match.hits


NO_CALIBRATION = CopyCalibration()
"""Of no photos at all."""


def nearest_photos(images: Tensor, people: Sequence[str]) -> dict[str, float]:
    """Of each person, the highest PSNR in dB of a photo of theirs to any other photo.

    A photo that is there twice is no other photo.

    Args:
        images: `[N, C, H, W]` in [0, 1], at least two.
        people: `[N]`.
    """
    flat = images.flatten(1)
    nearest: dict[str, float] = {}
    for start in range(0, len(flat), _ROWS):
        some = flat[start : start + _ROWS]
        error = torch.cdist(some, flat).square() / flat.shape[1]
        every = -10 * error.clamp_min(1e-10).log10()
        # Rounded, so that the last bits of a sum do not decide.
        psnr = every.masked_fill(every >= SAME, 0.0).max(1).values.round(decimals=2)
        for value, person in zip(psnr.tolist(), people[start : start + _ROWS], strict=True):
            nearest[person] = max(value, nearest.get(person, value))
    return nearest


def calibrate_copies(nearest: Mapping[str, float]) -> CopyCalibration:
    """The threshold that no photo of these people passes, by `MARGIN`.

    >>> calibrate_copies({"ada": 22.0, "bob": 24.5, "cleo": 24.0}).psnr
    25.5
    """
    if len(nearest) < 2:
        return NO_CALIBRATION
    values = sorted(nearest.values())
    passing = [v >= (values[-2] if v == values[-1] else values[-1]) + MARGIN for v in values]
    return CopyCalibration(values[-1] + MARGIN, rate(passing))
