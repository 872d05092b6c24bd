"""The equation that ties each image of a batch to the gradient of the head, and its solution.

The gradient with respect to the head's weight A is P = Σ_i e_i x_iᵀ: x_i is what enters the head of
image i, and e_i = e(x_i, c_i) the gradient of its loss with respect to the scores A x_i + b, which
x_i and the label c_i decide. So e(x_i, c_i) lies in the column space of P, and hardly any other
e(x, c) of an x in the row space does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.attacks.evidence.labels.head_gradient import upstream_of
from fedaudit.attacks.evidence.labels.leading_svd import leading_svd

ARRIVED, STUCK = 1e-8, 1e3
"""Length outside at which a start has arrived, and damping at which it has nowhere to go."""
RANK_TOLERANCE = 1e-6
"""Singular values of a single-precision gradient below this share of the first are rounding."""
MEMORY = 4_000_000
"""Entries of a Jacobian that are held at once: a few hundred megabytes with all that it takes."""


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
        columns, sizes, rows = leading_svd(product.double(), count)
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

    def upstream(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        """e(x, c) `[n, K]` for x `[n, r]` given by their coordinates in the row space."""
        places = F.normalize(coordinates, dim=1) if self.unit else coordinates
        return upstream_of(self.criterion, places @ self.weight.T + self.bias, labels)

    def outside(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        """The part of each e(x, c), scaled to length 1, outside the column space, `[n, K]`."""
        e = self.upstream(coordinates, labels)
        e = e / (e.norm(dim=1, keepdim=True) + 1e-30)
        outside: Tensor = e - (e @ self.columns) @ self.columns.T
        return outside

    def normal(self, coordinates: Tensor, labels: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """JᵀJ `[n, r, r]` and Jᵀ·out `[n, r]` of `outside`, a few of the n at a time."""
        count, rank = coordinates.shape
        square, slope = out.new_empty(count, rank, rank), out.new_empty(count, rank)
        for rows in torch.arange(count).split(max(1, MEMORY // (out.shape[1] * rank))):  # type: ignore[no-untyped-call]
            J = self._slopes(coordinates[rows], labels[rows])
            square[rows] = J @ J.mT
            slope[rows] = (J @ out[rows, :, None])[:, :, 0]
        return square, slope

    def _slopes(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        """The slopes of `outside` along each coordinate, `[n, r, K]`.

        Those of e along the scores are second slopes of a loss, and so symmetric: one backward
        pass through e gives what a forward pass would.
        """
        length = coordinates.norm(dim=1, keepdim=True)
        places = coordinates / length if self.unit else coordinates
        moved = torch.eye(places.shape[1]).to(places).expand(len(places), -1, -1)
        if self.unit:
            moved = (moved - places[:, :, None] * places[:, None]) / length[:, :, None]
        scores = (places @ self.weight.T + self.bias).requires_grad_()
        e = upstream_of(self.criterion, scores, labels, differentiable=True)
        (slopes,) = torch.autograd.grad(
            e, scores, (moved @ self.weight.T).transpose(0, 1), is_grads_batched=True
        )
        e, slopes = e.detach(), slopes.transpose(0, 1)
        size = e.norm(dim=1)[:, None, None] + 1e-30
        unit = e[:, None] / size
        slopes = (slopes - unit * (slopes * unit).sum(2, keepdim=True)) / size
        outside: Tensor = slopes - (slopes @ self.columns) @ self.columns.T
        return outside

    def solve(
        self, starts: Tensor, labels: Tensor, steps: int = 30, work: float = math.inf
    ) -> tuple[Tensor, Tensor, float]:
        """Levenberg–Marquardt from `starts [n, r]`: places `[n, r]`, how much is outside, `[n]`.

        Also what is left of `work`, the entries of Jacobians that may be computed.
        """
        place, left = starts.clone(), self.outside(starts, labels)
        damping = place.new_full((len(place),), 1e-2)
        eye = torch.eye(place.shape[1]).to(place)
        for _ in range(steps):
            # Those that have arrived, or are stuck, cost nothing more.
            moving = ((left.norm(dim=1) > ARRIVED) & (damping < STUCK)).nonzero()[:, 0]
            work -= len(moving) * left.shape[1] * starts.shape[1]
            if not len(moving) or work < 0:
                break
            here, out = place[moving], left[moving]
            square, slope = self.normal(here, labels[moving], out)
            scale = square.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)
            square = square + (damping[moving] * scale)[:, None, None] * eye
            move = torch.linalg.solve_ex(square, -slope[:, :, None])[0][:, :, 0]
            dummy = here + move.nan_to_num(0)
            residual = self.outside(dummy, labels[moving]).nan_to_num(1e3)
            better = residual.norm(dim=1) < out.norm(dim=1)
            place[moving] = torch.where(better[:, None], dummy, here)
            left[moving] = torch.where(better[:, None], residual, out)
            step = torch.where(better, damping[moving] * 0.3, damping[moving] * 4)
            damping[moving] = step.clamp_min(1e-9)
        places = F.normalize(place, dim=1) if self.unit else place
        return places, left.norm(dim=1), work

    def pairs(self, places: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The e `[n, K]` of solutions, and how each pairs with each, e_iᵀ P⁺ᵀ x_j, `[n, n]`."""
        e = self.upstream(places, labels)
        return e, (e @ self.columns / self.sizes) @ places.T
