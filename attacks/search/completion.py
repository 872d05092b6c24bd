"""The gradients behind a step of Adam, layer by layer: those that follow, from the deepest up.

Late layers have few positions: their gradients follow from the numbers that are known
(`adam_magnitudes`) and noise. What these span shows the images coarsely, as faces of a few pixels,
and what such images send to the layers before is near enough to complete their gradients, too
(`completed_gradients`). With these the images are searched for as if the gradient had been sent.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.attacks.evidence.completed_gradients import (
    Completed,
    complete,
    known_per_unknown,
)
from fedaudit.attacks.evidence.layer_inputs import Use
from fedaudit.attacks.gathering.gather import Evidence
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.models.batch_norm import batch_norm_layers

# One step of Adam on eight photos of p01 and p02, a trained ResNet-18 in training mode: four layers
# of the last stage, with 17 to 51, follow from noise; three of the third, with 4 to 5, from images
# of SSIM 0.45, and not its first, with 1.2, from the true ones.
FROM_NOISE, FROM_IMAGES = 15.0, 2.0
"""Known numbers an unknown from which on a layer's gradient is looked for from noise, and from
images that are coarsely right."""
ENOUGH = 1.5
"""Numbers an unknown pixel that the inputs of completed layers must have: with fewer, signs of all
layers say more. One photo in evaluation mode, which the network takes for another's, has 1.2, and
ends at SSIM 0.35 by these, at 0.67 by signs."""


def complete_evidence(
    evidence: Evidence, show: Callable[[Evidence], Reconstruction], steps: int
) -> Evidence | None:
    """The same with the gradients that follow from what is known; None where they are too few.

    Args:
        evidence: Of one step of Adam.
        show: What a short search by an evidence leads to.
        steps: Of Gauss–Newton, a layer, at most.
    """
    if not evidence.known or evidence.private:
        return None
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(evidence.count, *evidence.shape, generator=generator).to(evidence.like)
    uses = _uses(evidence, noise)
    shares = {n: known_per_unknown(evidence.known[n], *use) for n, use in uses.items()}
    if (
        _numbers(uses, [n for n, s in shares.items() if s >= FROM_IMAGES])
        < ENOUGH * evidence.pixels
    ):
        return None
    drawn = {
        name: (layer, torch.rand(inputs.shape, generator=generator).to(inputs))
        for name, (layer, inputs) in uses.items()
        if shares[name] >= FROM_NOISE
    }
    first = _completed(evidence, drawn, steps)
    if not first:
        return None
    seen = _uses(evidence, show(_with(evidence, first)).images.to(evidence.like))
    left = [n for n, share in shares.items() if share >= FROM_IMAGES and n not in first]
    sent = {name: seen[name] for name in left}
    then = {**first, **_completed(evidence, sent, steps)}
    enough = _numbers(uses, list(then)) >= ENOUGH * evidence.pixels
    return _with(evidence, then) if enough else None


def _uses(evidence: Evidence, images: Tensor) -> dict[str, Use]:
    """Each layer that is used once, with what images send there."""
    names = [n for n in evidence.reader.positions() if n in evidence.known]
    with torch.no_grad():
        heard = evidence.reader.inputs(names, images)
    return {name: used[0] for name, used in heard.items() if len(used) == 1}


def _numbers(uses: Mapping[str, Use], names: list[str]) -> float:
    """Numbers of an image that enter these layers."""
    return sum(uses[name][1][0].numel() for name in names)


def _completed(evidence: Evidence, uses: Mapping[str, Use], steps: int) -> dict[str, Completed]:
    """The gradients that follow, by weight."""
    positions = evidence.reader.positions()
    coupled = any(layer.training for layer in batch_norm_layers(evidence.model).values())
    found = {}
    for name, (layer, inputs) in uses.items():
        # Behind batch norm in training mode upstream gradients sum to zero.
        rank = evidence.count * positions[name].positions - coupled
        generator = torch.Generator().manual_seed(0)
        whole = complete(
            evidence.known[name], layer, inputs, rank=rank, steps=steps, generator=generator
        )
        if whole is not None:
            found[name] = whole
    return found


def _with(evidence: Evidence, found: Mapping[str, Completed]) -> Evidence:
    """The evidence by these gradients alone; the others stay signs, of which no span is taken."""
    own = {name: one.gradient.to(evidence.target[name]) for name, one in found.items()}
    target = {**evidence.target, **own}
    return replace(evidence, target=target, signs=False, completed=frozenset(own))
