"""Updates whose parameters were sent at right angles to their gradients (CENSOR).

A round gives two equations a parameter: how long its gradient is, and a direction that it does not
have. That is some dozens where a face has a thousand pixels, so that a search must stay within the
generator's range, whose latent vectors have a hundred numbers, until enough rounds were seen.

`benchmarks/adaptive_attacks.py` measures the numbers below in attacks, on ORL at 32 px.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.defense_adaptation import DefenseAdaptation, Rounds
from fedaudit.attacks.adaptive.label_by_lengths import label_by_lengths
from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.models.facenet import criterion_of

FACES = 32
"""Generic faces that each class is tried with."""
GRADIENTS = 1600
"""Gradients that the label may cost in all; with many classes, fewer faces are tried."""
FEWEST = 8
"""Faces that are tried however many classes there are."""


def with_every_round(reading: Reading, head: HeadGradient | None, rounds: Rounds) -> Reading:
    """The reading with what was sent of each parameter in every round."""
    del head
    return replace(
        reading, every_round={n: torch.stack([one[n] for one in rounds]) for n in rounds[0]}
    )


def label_of(reading: Reading, faces: Callable[[int], Tensor], scaled: bool) -> Tensor | None:
    """The likeliest label `[1]` of the one photo; None where it is known, or layers are private."""
    if not reading.every_round or reading.labels is not None or reading.private:
        return None
    model, classes = reading.model, reading.classes
    drawn = faces(max(FEWEST, min(FACES, GRADIENTS // classes)))
    named = {n: p for n, p in model.named_parameters() if n in reading.every_round}
    criterion = criterion_of(model)

    def gradients(image: Tensor, label: Tensor) -> Sequence[Tensor]:
        return torch.autograd.grad(criterion(model(image), label), list(named.values()))

    sent = [reading.every_round[name] for name in named]
    label = label_by_lengths(gradients, sent, drawn, classes, scaled=scaled)
    return torch.tensor([label], device=drawn.device)


def equations(every_round: Mapping[str, Tensor]) -> int:
    """Numbers that are known of a gradient: R right angles, as far as they differ, and a length."""
    sizes = [(len(value), value[0].numel()) for value in every_round.values()]
    return sum(min(rounds, size - 1) + 1 for rounds, size in sizes if size > 1)


ORTHOGONALIZED = DefenseAdaptation(
    name="orthogonalized",
    directional=False,
    distance="orthogonalized",
    read=with_every_round,
    label=label_of,
    equations=lambda reading: equations(reading.every_round) if reading.every_round else None,
    handled=lambda _, attacker: attacker.matched,
)
"""Lengths and right angles are what is matched; the label shows in them, too."""
