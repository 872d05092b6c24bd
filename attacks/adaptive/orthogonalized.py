"""Updates whose parameters were sent at right angles to their gradients (CENSOR).

A round gives two equations a parameter: how long its gradient is, and a direction that it does not
have. That is some dozens where a face has a thousand pixels, so that a search must stay within the
generator's range until enough rounds were seen.

`benchmarks/adaptive_attacks.py` measures the numbers below in attacks, on ORL at 32 px.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.adaptive.defense_adaptation import DefenseAdaptation, Rounds
from fedaudit.attacks.evidence.labels.head_gradient import HeadGradient
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.models.facenet import criterion_of

RIDGE = 1e-6
"""Added to the covariance of logarithms, which are at least 1e-4 in every direction."""
SLACK = 0.1
"""Squared sine by which a photo's gradient is further from the mean than generated faces' are."""

Gradients = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""One image `[1, C, H, W]` and its label `[1]` → a tensor a parameter."""
FACES = 32
"""Generic faces that each class is tried with."""
GRADIENTS = 1600
"""Gradients that the label may cost in all; with many classes, fewer faces are tried."""
FEWEST = 8
"""Faces that are tried however many classes there are."""


def label_by_lengths(
    gradients: Gradients, sent: Sequence[Tensor], faces: Tensor, classes: int, *, scaled: bool
) -> int:
    """The likeliest of `classes` labels of the photo behind an update.

    The label decides how long the layers' gradients are beside each other, and which way the last
    ones point. So for each class a Gaussian is fitted to the logarithms of the parameters' lengths
    over generated faces, with a covariance that all classes share (linear discriminant analysis,
    Fisher 1936); and the mean direction of their gradients is held against what was sent, which is
    at right angles to the true one: as nearly as faces of one class agree.

    Args:
        gradients: Of a dummy image and label.
        sent: What was sent of each parameter in every round, `[R, …]`, in a gradient's units.
        faces: `[n, C, H, W]` in [0, 1], n ≥ 2 generic ones; each is tried with every class.
        classes: K.
        scaled: The units are known; else one factor for all parameters is left open.
    """
    usable = [k for k, value in enumerate(sent) if value[0].numel() > 1]
    lengths, directions, agreement = [], [], []
    for label in range(classes):
        own = torch.tensor([label], device=faces.device)
        slopes = [[g.flatten() for g in gradients(face[None], own)] for face in faces]
        sizes = torch.stack([torch.stack([row[k].norm() for k in usable]) for row in slopes])
        means = [
            torch.stack([row[k] / (row[k].norm() + 1e-20) for row in slopes]).mean(0)
            for k in usable
        ]
        lengths.append((sizes + 1e-20).log().double())
        directions.append([F.normalize(mean, dim=0) for mean in means])
        agreement.append(torch.stack([mean.square().sum() for mean in means]))
    # Of each face with the mean of the others, without its own share in the mean.
    count = len(faces)
    sines = 1 - ((torch.stack(agreement).mean(0) * count - 1) / (count - 1)).clamp(0, 1)
    log_lengths = torch.stack([(sent[k][0].norm() + 1e-20).log() for k in usable]).double()
    fits = _length_fits(torch.stack(lengths), log_lengths, has_scale=scaled)
    for label, means in enumerate(directions):
        for k, mean, sine in zip(usable, means, sines, strict=True):
            rows = F.normalize(sent[k].flatten(1), dim=1)
            fits[label] += float((rows @ mean).square().sum() * len(mean) / (sine + SLACK))
    return int(fits.argmin())


def _length_fits(lengths: Tensor, log_lengths: Tensor, *, has_scale: bool) -> Tensor:
    """Squared Mahalanobis distance `[K]` of `measured [P]` to each class, `lengths [K, n, P]`."""
    if not has_scale:
        lengths = lengths - lengths.mean(2, keepdim=True)
        log_lengths = log_lengths - log_lengths.mean()
    means = lengths.mean(1)
    within = (lengths - means[:, None]).flatten(0, 1)
    spread = within.T @ within / len(within)
    spread = spread + RIDGE * torch.eye(len(spread)).to(spread)
    apart = log_lengths - means
    fits: Tensor = (apart * torch.linalg.solve(spread, apart.T).T).sum(1)
    return fits


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
    photos = faces(max(FEWEST, min(FACES, GRADIENTS // classes)))
    parameters = {n: p for n, p in model.named_parameters() if n in reading.every_round}
    criterion = criterion_of(model)

    def gradients(image: Tensor, label: Tensor) -> Sequence[Tensor]:
        return torch.autograd.grad(criterion(model(image), label), list(parameters.values()))

    gradients_sent = [reading.every_round[name] for name in parameters]
    label = label_by_lengths(gradients, gradients_sent, photos, classes, scaled=scaled)
    return torch.tensor([label], device=photos.device)


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
