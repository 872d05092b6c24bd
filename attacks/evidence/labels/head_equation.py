"""The head's gradient as a sum over images, solved for one image at a time.

For scores = A x + b the weight gradient is P = Σ_i e_i x_iᵀ, where e_i = ∂loss/∂scores of image i.
So each e_i lies in the column space of P, each x_i in its row space. Both are functions of one
unknown: x_i has N coordinates in the row space, and e(x, c), for a class c, must leave no part
outside the column space. These are K equations in N unknowns for every image on its own, which a
few Gauss–Newton starts solve. A solution names the class, and is checked: e_iᵀ P⁺ᵀ x_j is 1 for
i = j and 0 otherwise, whatever the images are.

Heads on unit vectors (CosFace, ArcFace) come to the same form once the part of each row along its
own class center, which the normalization removes from the gradient, is put back.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jacfwd, vmap

ARRIVED, STUCK = 1e-8, 1e3
"""Length outside at which a start has arrived, and damping at which it has nowhere to go."""
RANK_TOLERANCE = 1e-6
"""Singular values of a single-precision gradient below this share of the first are rounding."""


@dataclass(frozen=True)
class HeadEquation:
    """P = Σ_i e_i x_iᵀ in its singular vectors, in double precision.

    Attributes:
        columns: `[K, r]`, orthonormal: the space of the e_i.
        sizes: `[r]`.
        rows: `[r, D]`, orthonormal: the space of the x_i.
        weight: `[K, r]`, A in the coordinates of the row space: D of them would cost every step.
        bias: `[K]`, b (zeros where there is none).
        unit: x is a unit vector.
        criterion: `(scores [n, K], labels [n]) → mean loss`.
    """

    columns: Tensor
    sizes: Tensor
    rows: Tensor
    weight: Tensor
    bias: Tensor
    unit: bool
    criterion: Callable[[Tensor, Tensor], Tensor]

    @classmethod
    def of(
        cls,
        product: Tensor,
        count: int,
        weight: Tensor,
        bias: Tensor | None,
        criterion: Callable[[Tensor, Tensor], Tensor],
        *,
        unit: bool,
    ) -> "HeadEquation":
        """Take P `[K, D]` of `count` images apart."""
        columns, sizes, rows = torch.linalg.svd(product.double(), full_matrices=False)
        rank = min(count, int((sizes > RANK_TOLERANCE * sizes[0]).sum()))
        weight = weight.double()
        return cls(
            columns[:, :rank],
            sizes[:rank],
            rows[:rank],
            weight @ rows[:rank].T,
            weight.new_zeros(len(weight)) if bias is None else bias.double(),
            unit,
            criterion,
        )

    def upstream(self, coordinates: Tensor, label: Tensor) -> Tensor:
        """e(x, c) `[K]` for x given by its coordinates `[r]` in the row space."""
        place = coordinates / coordinates.norm() if self.unit else coordinates
        scores = self.weight @ place + self.bias

        def loss(given: Tensor) -> Tensor:
            return self.criterion(given[None], label[None])

        upstream: Tensor = grad(loss)(scores)
        return upstream

    def outside(self, coordinates: Tensor, label: Tensor) -> Tensor:
        """The part of e(x, c), scaled to length 1, outside the column space, `[K]`."""
        e = self.upstream(coordinates, label)
        e = e / (e.norm() + 1e-30)
        outside: Tensor = e - self.columns @ (self.columns.T @ e)
        return outside

    def solve(self, starts: Tensor, labels: Tensor, steps: int = 30) -> tuple[Tensor, Tensor]:
        """Levenberg–Marquardt from `starts [n, r]` with `labels [n]`: places and what is outside.

        Returns:
            `[n, r]` and `[n]` in [0, 1].
        """
        evaluate = vmap(self.outside)
        slope = vmap(jacfwd(self.outside))
        place, left = starts.clone(), evaluate(starts, labels)
        damping = place.new_full((len(place),), 1e-2)
        eye = torch.eye(place.shape[1]).to(place)
        for _ in range(steps):
            # Those that have arrived, or are stuck, cost nothing more.
            moving = ((left.norm(dim=1) > ARRIVED) & (damping < STUCK)).nonzero()[:, 0]
            if not len(moving):
                break
            here, out = place[moving], left[moving]
            J = slope(here, labels[moving])
            square = J.mT @ J
            scale = square.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)
            square = square + (damping[moving] * scale)[:, None, None] * eye
            move = torch.linalg.solve_ex(square, -(J.mT @ out[:, :, None]))[0][:, :, 0]
            dummy = here + move.nan_to_num(0)
            moved = evaluate(dummy, labels[moving]).nan_to_num(1e3)
            better = moved.norm(dim=1) < out.norm(dim=1)
            place[moving] = torch.where(better[:, None], dummy, here)
            left[moving] = torch.where(better[:, None], moved, out)
            eased = torch.where(better, damping[moving] * 0.3, damping[moving] * 4)
            damping[moving] = eased.clamp_min(1e-9)
        return (F.normalize(place, dim=1) if self.unit else place), left.norm(dim=1)

    def pairs(self, places: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The e `[n, K]` of solutions, and how each pairs with each, e_iᵀ P⁺ᵀ x_j, `[n, n]`."""
        e = vmap(self.upstream)(places, labels)
        return e, (e @ self.columns / self.sizes) @ places.T
