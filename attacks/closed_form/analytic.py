"""Images out of the first fully connected layer by one division."""

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.closed_form.first_layer import FirstLayer, assign_labels, find_first
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update


@dataclass(frozen=True, kw_only=True)
class Analytic:
    """Divide the first layer's weight gradient by its bias gradient, neuron by neuron.

    Phong et al. (IEEE TIFS 2018) and Geiping et al. (NeurIPS 2020): with ∂L/∂W_m = Σ_i a_im x_i
    and ∂L/∂b_m = Σ_i a_im, the quotient is the image itself wherever one image alone activates
    neuron m; at batch 1 that is every active neuron. In a batch, neurons that one image alone
    activates agree to rounding and mixtures do not, so images are the quotients that several
    neurons agree on. Nothing is searched; where neurons do not agree on enough images, the rest are
    the single quotients that look most like images, and the objective says so: the share of the
    gradient that is not explained, plus 1 − the cosine between the gradient that must have arrived
    for each image and the one that the layers above send for it.

    Args:
        tolerance: Largest root mean square difference, in pixel values of [0, 1], of two quotients
            that count as one image.
        neurons: Most neurons that are compared with each other, those with the largest bias
            gradient first; their quotients have the least rounding.
    """

    tolerance: float = 1e-3
    neurons: int = 2048

    needs: ClassVar = frozenset({Knowledge.MODEL, Knowledge.BASIC})
    reads: ClassVar = frozenset({Update})
    category: ClassVar = AttackCategory.CLOSED_FORM

    def __post_init__(self) -> None:
        if self.tolerance <= 0:
            raise ValueError("tolerance must be > 0")
        if self.neurons < 2:
            raise ValueError("neurons must be at least 2")

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """Reconstruct the batch behind one update; draws no random numbers.

        Raises:
            AttackError: The first layer is not fully connected, or has no bias.
        """
        del generator
        start = time.process_time()
        evidence = gather(seen)
        layer = find_first(evidence.model, evidence.target, evidence.shape)
        inputs = recover_inputs(
            layer, evidence.count, tolerance=self.tolerance, neurons=self.neurons
        )
        images = layer.images(inputs)
        labels, disagreement = assign_labels(evidence, layer, images)
        objective = layer.residual(inputs) + disagreement
        if progress:
            progress(1, 1, objective)
        return Reconstruction(
            images=images,
            labels=labels,
            objective=objective,
            gradient_evaluations=evidence.count,
            seconds=time.process_time() - start,
            closed_form=True,
            adaptive=how_adaptive(seen, exact=True),
        )


def recover_inputs(
    layer: FirstLayer, count: int, *, tolerance: float = 1e-3, neurons: int = 2048
) -> Tensor:
    """The layer's inputs that neurons agree on, `[count, F]`, most neurons first."""
    rows, sums = layer.weight_gradient, layer.bias_gradient
    if count == 1:
        return _fit(rows, sums)[None]
    order = sums.abs().argsort(descending=True)[:neurons]
    order = order[sums[order].abs() > 1e-9 * sums.abs().max()]
    if not len(order):
        return layer.offset.expand(count, -1)
    rows, sums = rows[order], sums[order]
    quotients = layer.pixels(rows / sums[:, None])
    near = torch.cdist(quotients, quotients) < tolerance * quotients.shape[1] ** 0.5
    near.fill_diagonal_(True)
    free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    inputs: list[Tensor] = []
    while len(inputs) < count and bool(free.any()):
        votes = (near & free).sum(1) * free
        best = int(votes.argmax())
        if votes[best] < 2:
            break
        members = near[best] & free
        inputs.append(_fit(rows[members], sums[members]))
        free &= ~members
    if len(inputs) < count:
        inputs += _plausible(quotients, rows / sums[:, None], free, count - len(inputs))
    while len(inputs) < count:
        inputs.append(torch.stack(inputs).mean(0) if inputs else layer.offset)
    return torch.stack(inputs)


def _fit(rows: Tensor, sums: Tensor) -> Tensor:
    """The x `[F]` that best explains rows = sums · x: exact without noise, optimal with it."""
    return (sums @ rows) / sums.square().sum().clamp_min(1e-300)


def _plausible(pixels: Tensor, inputs: Tensor, free: Tensor, limit: int) -> list[Tensor]:
    """Quotients that no other neuron shares, those that leave [0, 1] least first."""
    beyond = (pixels - pixels.clamp(0, 1)).square().mean(1)
    beyond = beyond.masked_fill(~free, float("inf"))
    order = beyond.argsort()[:limit]
    return [inputs[i] for i in order if bool(free[i])]
