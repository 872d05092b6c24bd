"""Small batches out of a fully connected first layer with ReLU, exactly."""

import time
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.closed_form.analytic import recover_inputs
from fedaudit.attacks.closed_form.first_layer import FirstLayer, assign_labels, find_first
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update

SHARPENING = (*(3 * 10 ** (-k / 12) for k in range(31)), 1e-3, 1e-4, 1e-5)
"""What counts as near zero in each step of a descent, in units of a row's mean length. The last
steps fix the direction by the rows that vanish alone."""
# Set by hand, untested beyond tests/attacks/test_spear.py.
KEPT = 4
"""Directions that are kept for each image; mixtures of two images have many zeros too."""
SAME = 0.999
"""Cosine at which two directions count as one."""
ROUNDING = 1e-6
"""Relative rounding of a gradient in single precision, with room for its sums."""
DRAWN = 512
"""Directions that are drawn at once."""
EXPLAINED = 1e-3
"""1 − λ at which the batch counts as taken apart; outputs within rounding of zero have no sign."""


@dataclass(frozen=True)
class Factors:
    """[∂L/∂W | ∂L/∂b] = left · right over the neurons that any image activates.

    Attributes:
        left: `[M', r]`, orthonormal columns.
        right: `[r, F + 1]`; the last column belongs to the bias.
        tolerance: Largest |left · q|, for unit q, that rounding alone explains.
    """

    left: Tensor
    right: Tensor
    tolerance: float

    @property
    def rank(self) -> int:
        """Number of images r that can be told apart."""
        return self.right.shape[0]

    @classmethod
    def of(cls, layer: FirstLayer, count: int) -> "Factors | None":
        """Factors of a batch of `count`; None if noise leaves no rank or neurons are too few."""
        both = torch.cat([layer.weight_gradient, layer.bias_gradient[:, None]], 1)
        length = both.norm(dim=1)
        both = both[length > ROUNDING * length.max()]
        if len(both) <= count or count < 2:
            return None
        left, sizes, right = torch.linalg.svd(both, full_matrices=False)
        rank = min(count, int((sizes > ROUNDING * sizes[0]).sum()))
        if rank < count or sizes[rank] > 0.1 * sizes[rank - 1]:
            return None
        tolerance = 3 * float(ROUNDING * sizes[0] / sizes[rank - 1])
        return cls(left[:, :rank], sizes[:rank, None] * right[:rank], max(tolerance, ROUNDING))

    def kernels(self, bundle: int, generator: torch.Generator) -> Tensor:
        """Unit directions `[≤ bundle, r]`, each annihilating r − 1 rows drawn at random."""
        rows, rank = self.left.shape
        keys = torch.rand(bundle, rows, generator=generator)
        choice = keys.topk(rank - 1, dim=1).indices.to(self.left.device)
        border = torch.randn(bundle, 1, rank, generator=generator, dtype=torch.float64)
        square = torch.cat([self.left[choice], border.to(self.left)], 1)
        right = square.new_zeros(bundle, rank)
        right[:, -1] = 1
        return _unit(torch.linalg.solve_ex(square, right[:, :, None])[0][:, :, 0])

    def descend(self, bundle: int, generator: torch.Generator) -> Tensor:
        """Unit directions `[≤ bundle, r]`, each with as many zeros as a descent finds."""
        rows, rank = self.left.shape
        pairs = torch.randint(rows, (bundle, 2), generator=generator).to(self.left.device)
        shares = torch.randn(bundle, 2, 1, generator=generator, dtype=torch.float64)
        q = _unit((self.left[pairs] * shares.to(self.left)).sum(1))
        outer = (self.left[:, :, None] * self.left[:, None, :]).flatten(1)
        for near in SHARPENING:
            weight = 1 / ((q @ self.left.T).square() + near**2 / rows)
            # The minimum of the reweighted squares over all q' with q' · q = 1.
            square = (weight @ outer).reshape(-1, rank, rank)
            q = _unit(torch.linalg.solve_ex(square, q[:, :, None])[0][:, :, 0])
        return q

    def keep(self, q: Tensor, zeros: float) -> Tensor:
        """The directions `[n, r]` with enough zeros, each once, those with most zeros first."""
        vanishing = ((q @ self.left.T).abs() < self.tolerance).sum(1)
        enough = vanishing >= max(self.rank + 1, int(zeros * len(self.left)))
        q, vanishing = q[enough], vanishing[enough]
        q = q[vanishing.argsort(descending=True, stable=True)]
        duplicates = ((q @ q.T).abs() > SAME).tril(-1).any(1)
        return q[~duplicates][: KEPT * self.rank]

    def inputs(self, q: Tensor) -> Tensor | None:
        """The layer's inputs `[r, F]` for r directions; None where they are not independent."""
        inverse, singular = torch.linalg.inv_ex(q.T)
        if int(singular) or float(torch.linalg.cond(q)) > 1 / ROUNDING:
            return None
        both = inverse @ self.right
        # Each image's bias input is 1: that sets the scale.
        result: Tensor = both[:, :-1] / both[:, -1:]
        return result


def choose(
    layer: FirstLayer, low_rank: Factors, directions: Tensor, *, exchange: bool
) -> tuple[Tensor | None, float]:
    """The r of `directions` (most zeros first) with the least mismatch: those with most zeros.

    With `exchange`, then any other set with less mismatch that differs in one direction at a time.

    Returns:
        Inputs `[r, F]` (None where there are fewer than r independent directions), and 1 − λ.
    """
    choice = _independent(directions, low_rank.rank)
    inputs = low_rank.inputs(directions[choice]) if len(choice) == low_rank.rank else None
    if inputs is None:
        return None, 1.0
    best = mismatch(layer, inputs)
    improves = exchange and best > 0
    while improves:
        improves = False
        for place in range(len(choice)):
            for other in set(range(len(directions))) - set(choice):
                dummy = [*choice[:place], other, *choice[place + 1 :]]
                swap = low_rank.inputs(directions[dummy])
                if swap is not None and (value := mismatch(layer, swap)) < best:
                    best, inputs, choice, improves = value, swap, dummy, True
    return inputs, best


def mismatch(layer: FirstLayer, inputs: Tensor) -> float:
    """1 − λ: the share of (neuron, image) whose gradient is zero and output positive, or reverse.

    λ is the sparsity matching coefficient of Dimitrov et al. (NeurIPS 2024, definition 4.1), over
    the neurons that any image activates; `inputs` are `[N, F]`.
    """
    upstream = layer.upstream(inputs)
    active = inputs @ layer.weight.T + layer.bias > 0
    size = upstream.abs()
    alive = layer.bias_gradient.abs() + layer.weight_gradient.norm(dim=1) > 0
    flows = size > 1e-4 * size.amax(1, keepdim=True)
    return float((active != flows)[:, alive].double().mean())


def _independent(directions: Tensor, rank: int) -> list[int]:
    """Indices of the first `rank` directions that are linearly independent, in order."""
    choice: list[int] = []
    basis = directions.new_zeros(0, directions.shape[1])
    for index, row in enumerate(directions):
        left = row - basis.T @ (basis @ row)
        if float(left.norm()) > 1e-3:
            choice.append(index)
            basis = torch.cat([basis, (left / left.norm())[None]])
        if len(choice) == rank:
            break
    return choice


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1, without those that a singular system made infinite."""
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows[rows.isfinite().all(1)]


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

    def halved(self) -> "Spear":
        """The same with half of the draws."""
        return replace(self, samples=-(-self.samples // 2))

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """Reconstruct the batch behind one update.

        Raises:
            AttackError: The first layer is not fully connected, or has no bias.
        """
        start = time.process_time()
        evidence = gather(seen)
        layer = find_first(evidence.model, evidence.target, evidence.shape)
        inputs, draws, history = self._search(layer, evidence.count, generator, progress)
        images = layer.images(inputs)
        labels, disagreement = assign_labels(evidence, layer, images)
        return Reconstruction(
            images=images,
            labels=labels,
            objective=layer.residual(inputs) + disagreement,
            iterations=draws,
            gradient_evaluations=evidence.count,
            seconds=time.process_time() - start,
            closed_form=not draws,
            adaptive=how_adaptive(seen, exact=True),
            history=history,
        )

    def _search(
        self, layer: FirstLayer, count: int, generator: torch.Generator, progress: Progress | None
    ) -> tuple[Tensor, int, tuple[tuple[int, float], ...]]:
        """Inputs `[N, F]`, submatrices drawn, and 1 − λ after each bundle of them."""
        low_rank = Factors.of(layer, count)
        if low_rank is None:  # one image, or noise: nothing has zeros
            inputs = recover_inputs(layer, count)
            if progress:
                progress(0, self.samples, layer.residual(inputs))
            return inputs, 0, ()
        best = 1.0
        best_inputs: Tensor | None = None
        directions = low_rank.left.new_zeros(0, low_rank.rank)
        history: list[tuple[int, float]] = []
        draws = 0
        while draws < self.samples and best > EXPLAINED:
            bundle = min(DRAWN, self.samples - draws)
            draw = low_rank.descend if self.descend else low_rank.kernels
            directions = low_rank.keep(torch.cat([directions, draw(bundle, generator)]), self.zeros)
            draws += bundle
            last = draws == self.samples
            candidate, value = choose(layer, low_rank, directions, exchange=last)
            if candidate is not None and value < best:
                best, best_inputs = value, candidate
            history.append((draws, best))
            if progress:
                progress(draws, self.samples, best)
        # Too few directions were found: what single neurons say is better than nothing.
        inputs = recover_inputs(layer, count) if best_inputs is None else best_inputs
        return inputs, draws, tuple(history)
