"""An update whose parameters were turned away at right angles (CENSOR): what is left to search by.

A round gives two equations a parameter: how long its gradient is, and a direction that it does not
have. That is some dozens where a face has a thousand pixels, so that a search must stay within the
generator's range, whose latent vectors have a hundred numbers, until enough rounds were seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.label_by_lengths import label_by_lengths
from fedaudit.attacks.gathering.gather import Evidence
from fedaudit.attacks.search.stage import Stage
from fedaudit.attacks.search.variables import Latent
from fedaudit.models.facenet import criterion_of

FACES = 32
"""Generic faces that each class is tried with."""
GRADIENTS = 1600
"""Gradients that the label may cost in all; with many classes, fewer faces are tried."""
FEWEST = 8
"""Faces that are tried however many classes there are."""


def faces_for(evidence: Evidence) -> int:
    """Generic faces that `with_label` asks for; 0 where it has nothing to find."""
    if not evidence.every_round or evidence.labels is not None or evidence.private:
        return 0
    return max(FEWEST, min(FACES, GRADIENTS // _classes(evidence)))


def with_label(evidence: Evidence, faces: Tensor, *, scaled: bool) -> Evidence:
    """The evidence with the likeliest label of its one photo.

    Args:
        evidence: Of parameters that were turned away.
        faces: `[n, C, H, W]` in [0, 1], as many as `faces_for` says.
        scaled: Whether a gradient's units are known.
    """
    model = evidence.model
    named = {n: p for n, p in model.named_parameters() if n in evidence.every_round}
    criterion = criterion_of(model)

    def gradients(image: Tensor, label: Tensor) -> Sequence[Tensor]:
        return torch.autograd.grad(criterion(model(image), label), list(named.values()))

    sent = [evidence.every_round[name] for name in named]
    found = label_by_lengths(gradients, sent, faces, _classes(evidence), scaled=scaled)
    return replace(evidence, labels=torch.tensor([found], device=faces.device))


def within_range(stages: Sequence[Stage], evidence: Evidence) -> tuple[Stage, ...]:
    """The stages that as many equations can lead; the last of them has the steps of all others.

    An attack that has no generator, or never enters its latent space, stays as it is.
    """
    kept = [stage for stage in stages if isinstance(stage.varies, Latent)]
    if not kept or equations(evidence.every_round) >= _pixels(evidence):
        return tuple(stages)
    left = sum(stage.steps for stage in stages) - sum(stage.steps for stage in kept)
    return (*kept[:-1], replace(kept[-1], steps=kept[-1].steps + left))


def equations(turned: Mapping[str, Tensor]) -> int:
    """Numbers that are known of a gradient: R right angles, as far as they differ, and a length."""
    sizes = [(len(value), value[0].numel()) for value in turned.values()]
    return sum(min(rounds, size - 1) + 1 for rounds, size in sizes if size > 1)


def _pixels(evidence: Evidence) -> int:
    channels, height, width = evidence.shape
    return height * width * (1 if evidence.grayscale else channels)


def _classes(evidence: Evidence) -> int:
    like = next(iter(evidence.target.values()))
    with torch.no_grad():
        return int(evidence.model(like.new_zeros(1, *evidence.shape)).shape[1])
