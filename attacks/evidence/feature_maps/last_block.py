"""The feature map *before* the last residual block, in closed form; averaging does not hide it.

Let u = norm(conv2(…)) + S x be what enters a residual block's last (P)ReLU, S its 1×1 shortcut.
The gradient of S is a sum over positions p of the map, G = Σ_p δ_p x_pᵀ, with x_p the block's input
below position p and δ_p = (gradient upstream at p) · (slope of the activation at p).

* **Flattened map**: both factors of δ_p are known (`first_fully_connected`): G gives x_p by least
  squares, for all images of a small batch at once.
* **Averaged map, one image**: the same upstream gradient a stands at every position, so G =
  diag(a)/P · M X, where each entry of M is one of two known slopes. Its column space is known, and
  a subspace of dimension P holds hardly any vectors of two given values but the columns of M: fix P
  rows, try the 2^P patterns there, and keep those whose other rows have the two values as well. A
  trained network's columns are alike, and then sums such as m₁ + m₂ − m₃ may have two values too:
  the gradient of the normalization's bias, Σ_p δ_p, says which belong together. Positions come out
  unordered.

Then the center tap of the block's 3×3 convolution gives the upstream gradients at its outputs,
these give the inputs under its other taps, which is the whole map, and where taps of neighboring
positions meet at one input, they order the positions. At the end the map is sent through the block:
it must give what is known of its output, so a wrong or noisy answer is noticed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.feature_maps.first_fully_connected import FirstFullyConnected
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.models.bodies import Residual
from fedaudit.models.facenet import FaceNet

MOST_POSITIONS = 16
"""2^P patterns are tried."""
OFF_VALUE = 0.05
"""How far the entries of a column of M may lie from the two slopes."""
MOST_CANDIDATES = 200
"""Among which P columns are searched for by integer programming."""
EXPLAINED = 0.05
"""Largest relative error of the block's recomputed output."""
WEAK = 0.01
"""Channels whose upstream gradient is below this share of the largest are not used to find M."""


@dataclass(frozen=True)
class InvertedBlock:
    """The input maps `[N, C, H, W]` of a network's last block, `body[:depth](images)`.

    Attributes:
        error: Relative error of the block's output when it is computed from the maps.
    """

    maps: Tensor
    depth: int
    error: float


def invert_last_block(reading: Reading) -> InvertedBlock | None:
    """The last block's input maps; None where they cannot be had.

    Needs a `FaceNet` whose body ends in a `Residual` block with a convolution as its shortcut, the
    gradients of that block and of the layer behind it; P·N of at most the block's input channels
    for a flattened map; one image and P ≤ 16 positions for an averaged one. No labels. Noise, or
    several local steps, make it fail, which is noticed.
    """
    model, target, first_fc = reading.model, reading.target, reading.first_fc
    if first_fc is None or first_fc.maps is None or first_fc.upstream is None:
        return None
    if first_fc.known is not None or not isinstance(model, FaceNet):
        return None
    if not isinstance(model.body, nn.Sequential):
        return None
    depth = len(model.body) - 1
    block, name = model.body[depth], f"body.{depth}"
    names = {f"{name}.shortcut.weight", f"{name}.conv1.weight"}
    if not isinstance(block, Residual) or not names <= set(target):
        return None  # a shortcut without weights has no gradient either
    shortcut = target[f"{name}.shortcut.weight"].double()[:, :, 0, 0]
    taps, bias = target[f"{name}.conv1.weight"].double(), target.get(f"{name}.norm2.bias")
    with torch.no_grad():
        example = model.body[:depth](torch.zeros(1, *reading.shape, device=taps.device))
        rows, columns = block(example).shape[2:]
    is_average = model.pool == "average"
    count, positions = len(first_fc.maps), rows * columns
    slopes = block.act2.weight.detach().double().expand(len(shortcut))
    upstream = (first_fc.upstream @ first_fc.weight).double()
    deltas: Tensor | None = None
    if is_average and count == 1 and positions <= min(shortcut.shape):
        total = None if bias is None else bias.double()
        deltas = _slopes_of_mask(shortcut, total, upstream[0], slopes, positions)
    elif not is_average and count * positions <= min(shortcut.shape):
        shape = (count, len(shortcut), positions)
        slope = torch.where(first_fc.maps.view(shape) > 0, 1.0, slopes[:, None])
        # A negative slope, which training may give, hides the sign of what it was applied to.
        slope = slope * (slopes >= 0)[:, None]
        deltas = (upstream.view(shape) * slope).transpose(1, 2).flatten(0, 1)
    if deltas is None:
        return None
    inputs = _under_taps(deltas, shortcut, taps)
    if is_average:
        inputs = inputs[:, :, _in_order(inputs, rows, columns)]
    maps = _assemble(inputs, block.conv1, (rows, columns), example.shape[2:]).float()
    maps, error = _to_scale(maps, block, model, first_fc)
    return InvertedBlock(maps, depth, error) if error < EXPLAINED else None


def _slopes_of_mask(
    shortcut: Tensor, bias: Tensor | None, upstream: Tensor, slopes: Tensor, positions: int
) -> Tensor | None:
    """δ_p `[P, C]` for an averaged map, in no order: the two-valued vectors in a column space."""
    strong = upstream.abs() > WEAK * upstream.abs().max()
    if positions > MOST_POSITIONS or int(strong.sum()) < 2 * positions:
        return None
    basis, sizes, _ = torch.linalg.svd(shortcut[strong] / upstream[strong, None])
    if len(sizes) <= positions or sizes[positions - 1] < 2 * sizes[positions]:
        return None
    columns = _two_valued(basis[:, :positions], slopes[strong])
    if len(columns) > positions and bias is not None:
        columns = _adding_up(columns, bias[strong] / upstream[strong] * positions, positions)
    if len(columns) != positions:
        return None
    # Weak channels stay out: the strong ones overdetermine the inputs already.
    mask = torch.zeros(positions, len(slopes), dtype=columns.dtype, device=columns.device)
    mask[:, strong] = columns
    return mask * upstream / positions


def _two_valued(basis: Tensor, low: Tensor) -> Tensor:
    """All vectors `[K, C]` in the span of `basis` `[C, P]` whose entries are 1 or `low` `[C]`."""
    positions, device = basis.shape[1], basis.device
    # Rows that make the system for the coefficients as well-conditioned as they can.
    _, _, pivots = scipy.linalg.qr(basis.T.cpu().numpy(), pivoting=True, mode="economic")
    rows = torch.as_tensor(pivots[:positions].copy(), device=device)
    bits = (torch.arange(2**positions, device=device)[:, None] >> torch.arange(positions)) & 1
    solver = torch.linalg.inv(basis[rows]).T @ basis.T
    vectors = []
    for part in torch.split(bits, 2**13):
        columns = torch.where(part == 1, 1.0, low[rows]) @ solver
        to_one, to_low = (columns - 1).abs(), (columns - low).abs()
        fits = torch.minimum(to_one, to_low).amax(1) < OFF_VALUE
        vectors.append(torch.where(to_one < to_low, 1.0, low)[fits])
    return torch.cat(vectors)


def _adding_up(columns: Tensor, total: Tensor, positions: int) -> Tensor:
    """The `positions` of `columns` `[K, C]` that add up to a multiple of `total` `[C]`, or none."""
    candidates = columns.cpu().numpy()
    if len(candidates) > MOST_CANDIDATES:
        return columns[:0]
    # The last unknown is the multiple: the length of the upstream gradient is not known.
    unit = total.cpu().numpy() / float(total.abs().max()) * positions
    sums = np.concatenate([candidates.T, -unit[:, None]], axis=1)
    count = np.append(np.ones(len(candidates)), 0.0)
    solution = scipy.optimize.milp(
        np.zeros(len(count)),
        integrality=count,
        bounds=scipy.optimize.Bounds(0, np.append(np.ones(len(candidates)), 2.0)),
        constraints=[
            scipy.optimize.LinearConstraint(sums, -OFF_VALUE, OFF_VALUE),
            scipy.optimize.LinearConstraint(count[None], positions, positions),
        ],
    )
    if solution.x is None:
        return columns[:0]
    return columns[torch.as_tensor(solution.x[:-1] > 0.5, device=columns.device)]


def _under_taps(deltas: Tensor, shortcut: Tensor, taps: Tensor) -> Tensor:
    """The block's inputs under each tap of its convolution, `[3, 3, positions, channels]`.

    From the gradients `[positions, outputs]` at the shortcut's outputs (a channel that is zero
    throughout is not used), and the weight gradients of shortcut and convolution.
    """
    active = deltas.abs().amax(0) > 0
    centers = torch.linalg.pinv(deltas[:, active].T) @ shortcut[active]
    behind = taps[:, :, 1, 1] @ torch.linalg.pinv(centers)
    inputs: Tensor = torch.einsum("po,oikl->klpi", torch.linalg.pinv(behind), taps)
    inputs[1, 1] = centers
    return inputs


def _in_order(inputs: Tensor, rows: int, columns: int) -> Tensor:
    """Which of the unordered positions comes where, in reading order.

    What one position has under its right tap, its right neighbor has under its left one.
    """
    right = torch.cdist(inputs[1, 2], inputs[1, 0])
    down = torch.cdist(inputs[2, 1], inputs[0, 1])
    left_edge, top_edge = inputs[1, 0].norm(dim=1), inputs[0, 1].norm(dim=1)
    corner = int((left_edge / left_edge.mean() + top_edge / top_edge.mean()).argmin())
    order = [corner]
    free = torch.ones(len(right), dtype=torch.bool, device=right.device)
    free[corner] = False
    for place in range(1, rows * columns):
        row, column = divmod(place, columns)
        costs = []
        if column:
            costs.append(right[order[-1]])
        if row:
            costs.append(down[order[place - columns]])
        cost = torch.stack(costs).sum(0).masked_fill(~free, float("inf"))
        order.append(int(cost.argmin()))
        free[order[-1]] = False
    return torch.tensor(order, device=right.device)


def _assemble(
    inputs: Tensor, convolution: nn.Conv2d, outputs: tuple[int, int], size: torch.Size
) -> Tensor:
    """`[3, 3, N·P, C]` → `[N, C, H, W]`: the mean of all taps that meet at an input."""
    stride, padding = int(convolution.stride[0]), int(convolution.padding[0])
    rows, columns = outputs
    count = inputs.shape[2] // (rows * columns)
    total = inputs.new_zeros(count, inputs.shape[3], size[0] + 2 * padding, size[1] + 2 * padding)
    weight = torch.zeros_like(total[:1, :1])
    for y in range(3):
        for x in range(3):
            part = inputs[y, x].view(count, rows, columns, -1).permute(0, 3, 1, 2)
            place = (
                slice(y, y + stride * (rows - 1) + 1, stride),
                slice(x, x + stride * (columns - 1) + 1, stride),
            )
            total[:, :, place[0], place[1]] += part
            weight[:, :, place[0], place[1]] += 1
    inside = (slice(padding, padding + size[0]), slice(padding, padding + size[1]))
    mean: Tensor = (total / weight.clamp_min(1))[:, :, inside[0], inside[1]]
    return mean


def _to_scale(
    maps: Tensor, block: Residual, model: FaceNet, first_fc: FirstFullyConnected
) -> tuple[Tensor, float]:
    """Maps in their true length, and how well the block's output then agrees with what is known.

    The length of a known map is not known, and an inverted map inherits the unknown factor c. The
    block's normalized branch does not see it, the shortcut does: output(c·map) = c·(known output).
    """
    assert first_fc.maps is not None
    maps_in_scale, errors = [], []

    def off(output: Tensor, target: Tensor) -> float:
        output = output.mean((2, 3)) if model.pool == "average" else output.flatten(1)
        return float((output[0] - target).norm() / target.norm())

    with torch.no_grad():
        for one, target in zip(maps, first_fc.maps, strict=True):
            branch = block.norm2(block.conv2(block.act1(block.norm1(block.conv1(one[None])))))
            straight = block.shortcut(one[None])

            def error(
                c: float,
                branch: Tensor = branch,
                straight: Tensor = straight,
                target: Tensor = target,
            ) -> float:
                return off(block.act2(branch + c * straight), c * target)

            factor = _least(error, float(target.norm().reciprocal()))
            again = one[None] * factor  # ε in the normalization does see the length, a little
            errors.append(off(block(again), factor * target))
            maps_in_scale.append(again[0])
    return torch.stack(maps_in_scale), float(torch.tensor(errors).max())


def _least(error: Callable[[float], float], around: float) -> float:
    """The factor of least error: a grid over six decades, then finer ones."""
    center, width = 0.0, 3.0
    for _ in range(7):
        powers = [center + width * k / 30 for k in range(-30, 31)]
        center = min(powers, key=lambda power: error(around * 10**power))
        width /= 12
    return float(around * 10**center)
