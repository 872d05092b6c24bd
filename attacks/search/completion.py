"""Whole gradients of layers of which some numbers are known: what Adam's step or pruning left.

Late layers have few positions: their gradients follow from the numbers that are known
(`adam_magnitudes`, `known_entries`) and noise. What these span shows the images coarsely, as faces
of a few pixels, and what such images send to the layers before is near enough to complete their
gradients, too (`completed_gradients`). With these the images are searched for as if the gradient
had been sent.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.completed_gradients import (
    PREDICTED,
    Completed,
    complete,
    known_per_unknown,
)
from fedaudit.attacks.evidence.known_entries import KnownEntries
from fedaudit.attacks.evidence.layer_inputs import Use
from fedaudit.attacks.evidence.layer_unfolding import matrices_of
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.search.search_run import SearchRun
from fedaudit.core.protocols import Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.models.batch_norm import batch_norm_layers

# One step of Adam on eight photos of p01 and p02, a trained ResNet-18 in training mode: four layers
# of the last stage, with 17 to 51, follow from noise; three of the third, with 4 to 5, from images
# of SSIM 0.45, and not its first, with 1.2, from the true ones.
FROM_NOISE, FROM_IMAGES = 15.0, 2.0
"""Known numbers an unknown from which on a layer's gradient is looked for from noise, and from
images that are coarsely right."""
KEPT_FROM_NOISE = 4.0
"""The first where numbers are known as they are. By a photo of p01 through a trained ResNet-18,
nine tenths of whose entries are gone at random, the third stage's gradients, with 6, follow to 1e-7
from noise."""
# The same photo, half of whose entries are gone: of seven layers four follow from noise, to 1e-8
# and less, three miss 3e-3 to 1e-2 and are wrong; from images by the four these miss 2e-7 and less.
# With one layer that is wrong among them a search ends at SSIM 0.74, without at 0.94.
KEPT_PREDICTED, LAST_PREDICTED, EXACT = 1e-3, 1e-4, 1e-5
"""Of numbers that are known as they are, the relative square of what is missed at which a gradient
is believed enough to show images by; at last; and below which it is not looked for again."""
# Where the largest tenth was kept, a photo of p09 and one of p10 come to 0.60 and 0.76 by gradients
# that miss 1e-5 to 3e-4: some channels of a layer's inputs are small, and keep next to nothing.
SPARE = 1.5
"""Known numbers an input that each channel must have, of which any are known."""
ENOUGH = 1.5
"""Numbers an unknown pixel that the inputs of completed layers must have: with fewer, signs of all
layers say more. One photo in evaluation mode, which the network takes for another's, has 1.2, and
ends at SSIM 0.35 by these, at 0.67 by signs."""

RANDOM = "/random"
"""Beside gradients by their parameters' names, none of which has a slash."""


def complete_evidence(
    evidence: Evidence,
    show: Callable[[Evidence], Reconstruction],
    steps: int,
    progress: Progress | None = None,
) -> Evidence | None:
    """The same with the gradients that follow from what is known; None where they are too few.

    Args:
        evidence: Of one step of Adam, or of a pruned gradient.
        show: What a short search by an evidence leads to.
        steps: Of Gauss–Newton, a layer, at most.
        progress: Called after each layer, with the numbers of layers done and to be done, and the
            share of what was held out that its gradient misses; 1 where none is believed.
    """
    if not evidence.known or evidence.private:
        return None
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(evidence.count, *evidence.shape, generator=generator).to(evidence.like)
    uses = _uses(evidence, noise)
    shares = {n: known_per_unknown(evidence.known[n], *use) for n, use in uses.items()}
    likely = [name for name, share in shares.items() if share >= FROM_IMAGES]
    if not evidence.signs:
        likely = [name for name in likely if _reaches_all(evidence.known[name], *uses[name])]
    if _numbers(uses, likely) < ENOUGH * evidence.pixels:
        return None
    from_noise = FROM_NOISE if evidence.signs else KEPT_FROM_NOISE
    drawn = {
        name: (layer, torch.rand(inputs.shape, generator=generator).to(inputs))
        for name, (layer, inputs) in uses.items()
        if name in likely and shares[name] >= from_noise
    }
    tell = _telling(progress, len(likely))
    first = _completed(evidence, drawn, steps, tell)
    if not first:
        return None
    seen = _uses(evidence, show(_with(evidence, first)).images.to(evidence.like))
    # What lies behind layers that are known follows from what enters them.
    before = list(uses)[: list(uses).index(list(first)[-1])]
    done = {n for n, one in first.items() if evidence.signs or one.missed <= EXACT}
    sent = {name: seen[name] for name in before if name in likely and name not in done}
    then = {**first, **_completed(evidence, sent, steps, tell)}
    if not evidence.signs:
        then = {name: one for name, one in then.items() if one.missed <= LAST_PREDICTED}
    enough = _numbers(uses, list(then)) >= ENOUGH * evidence.pixels
    return _with(evidence, then) if enough else None


def complete_once(
    run: SearchRun, show: Callable[[Evidence], Reconstruction], steps: int
) -> Evidence | None:
    """`complete_evidence` of a search that begins, or what it gave before an interruption.

    What follows is kept beside the search's checkpoint, where it has one.

    Args:
        run: The search, by what was sent.
        show: As for `complete_evidence`.
        steps: Of Gauss–Newton, a layer, at most.

    Raises:
        StorageError: The disk is full or may not be written.
    """
    evidence = run.scene.evidence
    if run.checkpoint is None or not evidence.known:
        return complete_evidence(evidence, show, steps, run.trace.progress)
    kept, random, before = run.checkpoint.beside, run.scene.generator, run.fingerprint()
    record = kept.load(before)
    if record is not None:
        random.set_state(record[1].pop(RANDOM))
        return _by(evidence, record[1]) if record[1] else None
    found = complete_evidence(evidence, show, steps, run.trace.progress)
    gradients = {name: found.target[name] for name in found.completed} if found else {}
    kept.save(before, {}, {**gradients, RANDOM: random.get_state()})
    return found


def forget_completed(run: SearchRun) -> None:
    """Go on by what was sent, after an interruption, too: what followed led to no images."""
    if run.checkpoint is not None:
        state = {RANDOM: run.scene.generator.get_state()}
        run.checkpoint.beside.save(run.fingerprint(), {}, state)


def _telling(progress: Progress | None, planned: int) -> Callable[[float], None]:
    """What tells of one more layer of so many, of which gradients miss a share; of some twice."""
    numbers = count(1)

    def tell(missed: float) -> None:
        if progress:
            progress(min(next(numbers), planned), planned, missed)

    return tell


def _uses(evidence: Evidence, images: Tensor) -> dict[str, Use]:
    """Each layer that is used once, with what images send there."""
    reader = evidence.reader
    names = [n for n in reader.positions() if n in evidence.known and not reader.derives(n)]
    with torch.no_grad():
        heard = reader.inputs(names, images)
    return {name: used[0] for name, used in heard.items() if len(used) == 1}


def _numbers(uses: Mapping[str, Use], names: list[str]) -> float:
    """Numbers of an image that enter these layers."""
    return sum(uses[name][1][0].numel() for name in names)


def _reaches_all(known: KnownEntries, layer: nn.Module, inputs: Tensor) -> bool:
    """Whether of every channel that enters a layer enough is known, or nothing, of dead ones."""
    given = matrices_of(layer, (known.known & (known.numbers != 0)).double()).sum(1)
    channels = inputs.shape[1 if known.numbers.dim() > 2 else -1]
    each = given.view(channels, -1).sum(1)
    return not bool(((each > 0) & (each < SPARE * inputs.numel() / channels)).any())


def _completed(
    evidence: Evidence, uses: Mapping[str, Use], steps: int, tell: Callable[[float], None]
) -> dict[str, Completed]:
    """The gradients that follow, by weight; of the earliest layers, as many as are enough."""
    positions = evidence.reader.positions()
    coupled = any(layer.training for layer in batch_norm_layers(evidence.model).values())
    found: dict[str, Completed] = {}
    for name, (layer, inputs) in uses.items():
        if _numbers(uses, list(found)) >= ENOUGH * evidence.pixels:
            break
        # Behind batch norm in training mode upstream gradients sum to zero.
        rank = evidence.count * positions[name].positions - coupled
        generator = torch.Generator().manual_seed(0)
        whole = complete(
            evidence.known[name],
            layer,
            inputs,
            rank=rank,
            steps=steps,
            generator=generator,
            within=PREDICTED if evidence.signs else KEPT_PREDICTED,
        )
        tell(1.0 if whole is None else whole.missed)
        if whole is not None:
            found[name] = whole
    return found


def _with(evidence: Evidence, found: Mapping[str, Completed]) -> Evidence:
    """The evidence by these gradients alone; of the others, as they were sent, no span is taken."""
    return _by(evidence, {name: one.gradient for name, one in found.items()})


def _by(evidence: Evidence, gradients: Mapping[str, Tensor]) -> Evidence:
    """The same as `_with`, of the gradients themselves."""
    own = {name: gradient.to(evidence.target[name]) for name, gradient in gradients.items()}
    target = {**evidence.target, **own}
    return replace(evidence, target=target, signs=False, completed=frozenset(own))
