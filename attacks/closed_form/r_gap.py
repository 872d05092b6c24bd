"""One image, layer by layer from the loss back to the pixels, by linear systems alone."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.closed_form.plain_stack import Affine, Inverse, stack_of
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.errors import AttackError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.protocols import AttackCategory, Progress
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update


@dataclass(frozen=True)
class Solution:
    """How one layer's input was solved for.

    Attributes:
        layer: Name of the layer.
        unknowns: Values in its input, n.
        equations: Weight constraints and gradient constraints together.
        deficiency: Estimated dimensions of the input that no equation touches, 0 … n; 0 is exact.
        residual: Relative residual of the equations, ≥ 0.
        steps: Steps of conjugate gradients.
    """

    layer: str
    unknowns: int
    equations: int
    deficiency: float
    residual: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class RGap:
    """Solve for each layer's input from its output, its gradient and what arrives from above.

    Zhu & Blaschko et al. (R-GAP, ICLR 2021). For z = W x + b, the output z and the gradient δ that
    arrives at it are known from the layer above. Then W x = z − b (weight constraints) and
    K(δ) x = ∂L/∂W (gradient constraints) are linear in x; their least-squares solution is the
    output of the layer before, and an invertible activation leads to its z and δ. The recursion
    starts at the head, whose bias gradient is δ. One image; plain stacks of convolutions and fully
    connected layers with leaky ReLU, sigmoid or tanh. The systems are solved by conjugate gradients
    in double precision, so that no matrix is ever built; how many dimensions of an input no
    equation fixes (the rank deficiency) is estimated by the same means (`invert` returns it).

    Args:
        steps: Most steps of conjugate gradients a layer.
        probes: Random vectors for the estimate of a layer's rank deficiency; 0 leaves it out.
    """

    steps: int = 2000
    probes: int = 1

    needs: ClassVar = frozenset({Knowledge.MODEL, Knowledge.BASIC})
    reads: ClassVar = frozenset({Update})
    category: ClassVar = AttackCategory.CLOSED_FORM

    def __post_init__(self) -> None:
        if self.steps < 1 or self.probes < 0:
            raise ValueError("steps must be at least 1, probes at least 0")

    def __call__(
        self, seen: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """Reconstruct the image behind one update.

        Raises:
            AttackError: More than one image, a network that is no plain stack, or a part of the
                gradient that was not shared.
        """
        start = time.process_time()
        evidence = gather(seen)
        if evidence.count != 1:
            raise AttackError(
                f"r_gap inverts the gradient of one image, not the mean of {evidence.count}. "
                "Use batch_size = 1, or spear or inverting_gradients for batches."
            )
        image, solutions = self.invert(
            evidence.model, evidence.target, evidence.shape, generator, progress
        )
        steps, history = 0, []
        for solution in solutions:
            steps += solution.steps
            history.append((steps, solution.residual))
        return Reconstruction(
            images=image,
            labels=evidence.known_labels,
            objective=max((s.residual for s in solutions), default=0.0),
            iterations=steps,
            seconds=time.process_time() - start,
            closed_form=True,
            adaptive=how_adaptive(seen, exact=True),
            history=tuple(history),
        )

    def invert(
        self,
        model: nn.Module,
        target: Mapping[str, Tensor],
        shape: tuple[int, int, int],
        generator: torch.Generator,
        progress: Progress | None = None,
    ) -> tuple[Tensor, tuple[Solution, ...]]:
        """The image, `[1, C, H, W]` in [0, 1], and how each layer was solved, head first.

        Raises:
            AttackError: As of the attack.
        """
        stack = stack_of(model, shape)
        head = stack[-1]
        if not isinstance(head, Affine) or not head.is_dense or head.bias is None:
            raise AttackError(
                "r_gap starts at a fully connected head with bias, whose gradient is what arrives "
                'there. Use head = "linear".'
            )
        upstream = _require(target, f"{head.name}.bias")[None]
        value: Tensor | None = None
        solutions: list[Solution] = []
        for layer in reversed(stack):
            if isinstance(layer, Inverse):
                assert value is not None
                value, upstream = layer.back(value, upstream)
                continue
            gradient = _require(target, f"{layer.name}.weight")
            value, solution = self._solve(layer, value, upstream, gradient, generator)
            upstream = layer.transposed(upstream)
            solutions.append(solution)
            if progress:
                progress(len(solutions), len(stack), solution.residual)
        assert value is not None
        image = value.reshape(1, *shape).nan_to_num(0.5).clamp(0, 1).float()
        return image, tuple(solutions)

    def _solve(
        self,
        layer: Affine,
        output: Tensor | None,
        upstream: Tensor,
        gradient: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Solution]:
        """The layer's input by least squares over both kinds of constraints."""
        if layer.is_dense:
            # δ xᵀ = ∂L/∂W alone fixes x, in closed form.
            estimate = (upstream @ gradient) / upstream.square().sum().clamp_min(1e-300)
            left = float((upstream.T @ estimate - gradient).norm() / gradient.norm())
            return estimate, Solution(layer.name, estimate.numel(), gradient.numel(), 0.0, left, 0)
        assert output is not None
        target = output if layer.bias is None else output - layer.bias[None, :, None, None]
        probe = torch.randn(layer.inputs, generator=generator, dtype=torch.float64).to(output)
        sizes = [float(part.norm()) for part in layer.constraints(probe, upstream)]
        # Both kinds count alike, whatever the size of the gradient.
        balance = sizes[0] / max(sizes[1], 1e-300)
        estimate, left, steps = _least_squares(
            layer, upstream, (target, gradient), balance, self.steps
        )
        misfit = 0.0
        for _ in range(self.probes):
            probe = torch.randn(layer.inputs, generator=generator, dtype=torch.float64).to(output)
            seen = layer.constraints(probe, upstream)
            again, _, more = _least_squares(layer, upstream, seen, balance, self.steps)
            # The part of a random vector that the equations do not see: a trace estimate.
            misfit += float((probe - again).square().sum() / probe.square().sum()) / self.probes
            steps += more
        equations = target.numel() + gradient.numel()
        count = estimate.numel()
        return estimate, Solution(layer.name, count, equations, misfit * count, left, steps)


def _least_squares(
    layer: Affine, upstream: Tensor, sides: tuple[Tensor, Tensor], balance: float, steps: int
) -> tuple[Tensor, float, int]:
    """Conjugate gradients on the normal equations (CGLS) from zero: the least solution."""
    one, two = sides[0].clone(), balance * sides[1]
    total = float((one.square().sum() + two.square().sum()).sqrt())
    x = one.new_zeros(layer.inputs)
    down = layer.gathered(one, balance * two, upstream)
    move, size = down, float(down.square().sum())
    start, iterations = size, 0
    while iterations < steps and size > 1e-24 * start:
        first, second = layer.constraints(move, upstream)
        second = balance * second
        length = float(first.square().sum() + second.square().sum())
        if length == 0:
            break
        step = size / length
        x = x + step * move
        one, two = one - step * first, two - step * second
        down = layer.gathered(one, balance * two, upstream)
        fresh = float(down.square().sum())
        move, size = down + (fresh / size) * move, fresh
        iterations += 1
    left = float((one.square().sum() + two.square().sum()).sqrt())
    return x, left / max(total, 1e-300), iterations


def _require(target: Mapping[str, Tensor], name: str) -> Tensor:
    """A gradient in double precision, which must have been shared."""
    value = target.get(name)
    if value is None:
        raise AttackError(
            f"r_gap needs every layer's gradient, and {name} was not shared. Use "
            "inverting_gradients, which matches what there is."
        )
    return value.double()
