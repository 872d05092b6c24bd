"""Small batches out of a fully connected first layer with ReLU, exactly."""

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.closed_form.analytic import recover_inputs
from fedaudit.attacks.closed_form.first_layer import FirstLayer, assign_labels, find_first
from fedaudit.attacks.closed_form.low_rank import Factors, choose
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update

DRAWN = 512
"""Directions that are drawn at once."""
EXPLAINED = 1e-3
"""1 − λ at which the batch counts as taken apart; outputs within rounding of zero have no sign."""


@dataclass(frozen=True, kw_only=True)
class Spear:
    """Take a batch apart by the zeros that ReLU leaves in the first layer's gradient.

    Dimitrov et al. (NeurIPS 2024): ∂L/∂W = (∂L/∂Z)ᵀ X has rank b, so that any factorization L R is
    the true one up to a b × b matrix Q: ∂L/∂Z = L Q, X = Q⁻¹ R. ReLU leaves zeros in every column
    of ∂L/∂Z, so each column of Q annihilates many rows of L: it is the kernel of b − 1 rows drawn
    at random, once in a while. Directions with enough zeros are kept, those that fit the signs of
    the layer's outputs best are chosen (the paper's sparsity matching coefficient λ), and the bias
    gradient sets the scales.

    The chance of a draw falls as 2^−b. So by default a direction is not the kernel of drawn rows
    but the end of a descent on Σ log(|L q|² + ε²) with falling ε, by reweighted least squares from
    a random mixture of rows: the same zeros, found some eighty times as often at batch 16.

    Args:
        samples: Most directions that are drawn; the search ends once λ says that all is explained.
        zeros: Least share of the active neurons that a column of ∂L/∂Z must leave at zero.
        descend: Descend to directions with many zeros; False is the published sampling.
    """

    samples: int = 20_000
    zeros: float = 0.1
    descend: bool = True

    needs: ClassVar = frozenset({Knowledge.MODEL, Knowledge.BASIC})
    reads: ClassVar = frozenset({Update})
    category: ClassVar = AttackCategory.CLOSED_FORM

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError("samples must be at least 1")
        if not 0 < self.zeros < 1:
            raise ValueError("zeros must lie in (0, 1)")

    def __call__(
        self,
        seen: Observation,
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
    ) -> Reconstruction:
        """Reconstruct the batch behind one update.

        Raises:
            AttackError: The first layer is not fully connected, or has no bias.
        """
        started = time.process_time()
        evidence = gather(seen)
        layer = find_first(evidence.model, evidence.target, evidence.shape)
        inputs, drawn, history = self._search(layer, evidence.count, generator, progress)
        images = layer.images(inputs)
        labels, disagreement = assign_labels(evidence, layer, images)
        return Reconstruction(
            images=images,
            labels=labels,
            objective=layer.residual(inputs) + disagreement,
            iterations=drawn,
            gradient_evaluations=evidence.count,
            seconds=time.process_time() - started,
            adaptive=how_adaptive(seen, exact=True),
            history=history,
        )

    def _search(
        self,
        layer: FirstLayer,
        count: int,
        generator: torch.Generator,
        progress: Progress | None,
    ) -> tuple[Tensor, int, tuple[tuple[int, float], ...]]:
        """Inputs `[N, F]`, submatrices drawn, and 1 − λ after each bundle of them."""
        low_rank = Factors.of(layer, count)
        if low_rank is None:  # one image, or noise: nothing has zeros
            inputs = recover_inputs(layer, count)
            if progress:
                progress(0, self.samples, layer.residual(inputs))
            return inputs, 0, ()
        best = 1.0
        chosen: Tensor | None = None
        directions = low_rank.left.new_zeros(0, low_rank.rank)
        history: list[tuple[int, float]] = []
        drawn = 0
        while drawn < self.samples and best > EXPLAINED:
            bundle = min(DRAWN, self.samples - drawn)
            draw = low_rank.descend if self.descend else low_rank.kernels
            directions = low_rank.keep(torch.cat([directions, draw(bundle, generator)]), self.zeros)
            drawn += bundle
            last = drawn == self.samples
            candidate, value = choose(layer, low_rank, directions, exchange=last)
            if candidate is not None and value < best:
                best, chosen = value, candidate
            history.append((drawn, best))
            if progress:
                progress(drawn, self.samples, best)
        # Too few directions were found: what single neurons say is better than nothing.
        inputs = recover_inputs(layer, count) if chosen is None else chosen
        return inputs, drawn, tuple(history)
