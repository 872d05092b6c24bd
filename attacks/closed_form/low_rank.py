"""The first layer's gradient as a product of two thin factors, and directions that make zeros."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.closed_form.first_layer import FirstLayer

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
        """Of a batch of `count`; None where noise leaves no rank, or neurons are too few."""
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
        chosen = keys.topk(rank - 1, dim=1).indices.to(self.left.device)
        border = torch.randn(bundle, 1, rank, generator=generator, dtype=torch.float64)
        square = torch.cat([self.left[chosen], border.to(self.left)], 1)
        right = square.new_zeros(bundle, rank)
        right[:, -1] = 1
        return _unit(torch.linalg.solve_ex(square, right[:, :, None])[0][:, :, 0])

    def descend(self, bundle: int, generator: torch.Generator) -> Tensor:
        """Unit directions `[≤ bundle, r]`, each with as many zeros as a descent finds."""
        rows, rank = self.left.shape
        mixed = torch.randint(rows, (bundle, 2), generator=generator).to(self.left.device)
        shares = torch.randn(bundle, 2, 1, generator=generator, dtype=torch.float64)
        q = _unit((self.left[mixed] * shares.to(self.left)).sum(1))
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
        repeated = ((q @ q.T).abs() > SAME).tril(-1).any(1)
        return q[~repeated][: KEPT * self.rank]

    def inputs(self, q: Tensor) -> Tensor | None:
        """The layer's inputs `[r, F]` for r directions; None where they are not independent."""
        inverse, singular = torch.linalg.inv_ex(q.T)
        if int(singular) or float(torch.linalg.cond(q)) > 1 / ROUNDING:
            return None
        both = inverse @ self.right
        # Each image's bias input is 1: that sets the scale.
        scaled: Tensor = both[:, :-1] / both[:, -1:]
        return scaled


def choose(
    layer: FirstLayer, low_rank: Factors, directions: Tensor, *, exchange: bool
) -> tuple[Tensor | None, float]:
    """The r of `directions` (most zeros first) with the least mismatch: those with most zeros.

    With `exchange`, then any other set with less mismatch that differs in one direction at a time.

    Returns:
        Inputs `[r, F]` (None where there are fewer than r independent directions), and 1 − λ.
    """
    chosen = _independent(directions, low_rank.rank)
    inputs = low_rank.inputs(directions[chosen]) if len(chosen) == low_rank.rank else None
    if inputs is None:
        return None, 1.0
    best = mismatch(layer, inputs)
    improved = exchange and best > 0
    while improved:
        improved = False
        for place in range(len(chosen)):
            for other in set(range(len(directions))) - set(chosen):
                dummy = [*chosen[:place], other, *chosen[place + 1 :]]
                exchanged = low_rank.inputs(directions[dummy])
                if exchanged is not None and (value := mismatch(layer, exchanged)) < best:
                    best, inputs, chosen, improved = value, exchanged, dummy, True
    return inputs, best


def mismatch(layer: FirstLayer, inputs: Tensor) -> float:
    """1 − λ: the share of (neuron, image) whose gradient is zero and output positive, or reverse.

    λ is the sparsity matching coefficient of Dimitrov et al. (NeurIPS 2024, definition 4.1), over
    the neurons that any image activates.

    Args:
        layer: The first layer and its gradient.
        inputs: `[N, F]`.
    """
    upstream = layer.upstream(inputs)
    active = inputs @ layer.weight.T + layer.bias > 0
    size = upstream.abs()
    used = layer.bias_gradient.abs() + layer.weight_gradient.norm(dim=1) > 0
    flows = size > 1e-4 * size.amax(1, keepdim=True)
    return float((active != flows)[:, used].double().mean())


def _independent(directions: Tensor, rank: int) -> list[int]:
    """Indices of the first `rank` directions that are linearly independent, in order."""
    chosen: list[int] = []
    basis = directions.new_zeros(0, directions.shape[1])
    for index, row in enumerate(directions):
        left = row - basis.T @ (basis @ row)
        if float(left.norm()) > 1e-3:
            chosen.append(index)
            basis = torch.cat([basis, (left / left.norm())[None]])
        if len(chosen) == rank:
            break
    return chosen


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1, without those that a singular system made infinite."""
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows[rows.isfinite().all(1)]
