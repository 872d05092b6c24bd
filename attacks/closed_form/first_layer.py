"""The first layer of a network that reads its pixels through a fully connected layer.

Such a layer's weight gradient is a sum over the batch, ∂L/∂W = Σ_i a_i x_iᵀ, and its bias gradient
is Σ_i a_i: whatever tells the a_i apart tells the images. `analytic` and `spear` start here.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.core.errors import AttackError
from fedaudit.models.facenet import criterion_of

INSTEAD = (
    "Use inverting_gradients or gan_inversion for other networks (r_gap for plain stacks of "
    "convolutions at batch 1), or audit the network mlp."
)


@dataclass(frozen=True)
class FirstLayer:
    """A fully connected layer on pixels, and its gradient; everything in double precision.

    Attributes:
        module: The layer itself.
        weight, weight_gradient: `[M, F]`, F = C·H·W.
        bias, bias_gradient: `[M]`.
        offset, scale: `[F]`; the layer's input is offset + scale · pixels.
        shape: `(C, H, W)`.
    """

    module: nn.Linear
    weight: Tensor
    bias: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor
    offset: Tensor
    scale: Tensor
    shape: tuple[int, int, int]

    def pixels(self, inputs: Tensor) -> Tensor:
        """The layer's inputs `[n, F]` as flat pixels `[n, F]`, not clamped."""
        return (inputs - self.offset) / self.scale

    def images(self, inputs: Tensor) -> Tensor:
        """The layer's inputs `[n, F]` as images `[n, C, H, W]` in [0, 1], single precision."""
        flat = self.pixels(inputs).nan_to_num(0.5).clamp(0, 1)
        return flat.reshape(-1, *self.shape).float()

    def upstream(self, inputs: Tensor) -> Tensor:
        """The a_i `[n, M]` that best explain both gradients, given all inputs `[n, F]`."""
        with_ones = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
        gradients = torch.cat([self.weight_gradient, self.bias_gradient[:, None]], 1)
        solution: Tensor = torch.linalg.pinv(with_ones.T) @ gradients.T
        return solution

    def residual(self, inputs: Tensor) -> float:
        """Share of both gradients that inputs `[n, F]` cannot explain, in [0, 1]; 0 explains all.

        The smallest step above 0 that is told apart is the rounding of single precision.
        """
        with_ones = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
        gradients = torch.cat([self.weight_gradient, self.bias_gradient[:, None]], 1)
        left = gradients - self.upstream(inputs).T @ with_ones
        return float(left.norm() / gradients.norm().clamp_min(1e-300))


def find_first(
    model: nn.Module, target: Mapping[str, Tensor], shape: tuple[int, int, int]
) -> FirstLayer:
    """The first layer with parameters, if pixels enter it through a fully connected layer.

    Raises:
        AttackError: It is of another kind, has no bias, was not shared, or pixels are mixed before
            it.
    """
    name, module = _first_with_parameters(model, shape)
    if not isinstance(module, nn.Linear):
        raise AttackError(
            f"the first layer ({name}) is a {type(module).__name__}, but the closed form needs a "
            f"fully connected layer on the pixels. {INSTEAD}"
        )
    if module.bias is None:
        raise AttackError(
            f"the first layer ({name}) has no bias, whose gradient the closed form divides by. "
            f"{INSTEAD}"
        )
    weight, bias = target.get(f"{name}.weight"), target.get(f"{name}.bias")
    if weight is None or bias is None:
        raise AttackError(
            f"the gradient of the first layer ({name}) was not shared, and the closed form reads "
            "nothing else. Use an attack that matches what was shared: inverting_gradients."
        )
    offset, scale = _pixels_to_inputs(model, module, shape, name)
    return FirstLayer(
        module=module,
        weight=module.weight.detach().double(),
        bias=module.bias.detach().double(),
        weight_gradient=weight.double(),
        bias_gradient=bias.double(),
        offset=offset,
        scale=scale,
        shape=shape,
    )


def assign_labels(evidence: Evidence, layer: FirstLayer, images: Tensor) -> tuple[Tensor, float]:
    """Which of the batch's labels goes with which image, and how far image and label agree.

    The gradient a_i that must have arrived for each of the images `[N, C, H, W]` is compared with
    the one that each label would send down; the assignment with the largest sum of cosines wins.
    Images that are mixtures explain the layer's gradient too, but not with the a_i that the layers
    above send.

    Returns:
        `[N]` int64 (-1 where no labels are known), and 1 − the mean cosine, in [0, 2] (0 where
        nothing
        is known against the images).
    """
    count = len(images)
    labels = evidence.labels
    if labels is None:
        return torch.full((count,), -1), 0.0
    inputs = layer.offset + layer.scale * images.flatten(1).double()
    upstream = layer.upstream(inputs)
    outputs: list[Tensor] = []
    with layer.module.register_forward_hook(lambda *call: outputs.append(call[2])):
        scores = evidence.model(images.to(evidence.like))
    agreement = upstream.new_zeros(count, count)
    for column, label in enumerate(labels.tolist()):
        loss = criterion_of(evidence.model)(scores, labels.new_full((count,), label))
        (of_label,) = torch.autograd.grad(loss, outputs[0], retain_graph=True)
        agreement[:, column] = torch.cosine_similarity(of_label.double(), upstream).nan_to_num(0)
    rows, columns = linear_sum_assignment(-agreement.cpu().numpy())
    score = float(agreement[rows, columns].mean())
    return labels[torch.as_tensor(columns, device=labels.device)], max(0.0, 1 - score)


def _first_with_parameters(
    model: nn.Module, shape: tuple[int, int, int]
) -> tuple[str, nn.Module | None]:
    """The first module that runs and owns parameters."""
    ran: list[str] = []
    owners = {n: m for n, m in model.named_modules() if list(m.parameters(recurse=False))}
    with ExitStack() as hooks, torch.no_grad():
        for name, module in owners.items():
            hook = module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
            hooks.enter_context(hook)
        model(_probe(model, shape)[:1])
    return (ran[0], owners[ran[0]]) if ran else ("none", None)


def _pixels_to_inputs(
    model: nn.Module, module: nn.Linear, shape: tuple[int, int, int], name: str
) -> tuple[Tensor, Tensor]:
    """Offset and scale `[F]` of what stands before the layer; it must act on each pixel alone."""
    probe = _probe(model, shape)
    inputs: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, entering: inputs.append(entering[0]))
    with hook, torch.no_grad():
        model(probe)
    layer_inputs, flat = inputs[0].double(), probe.flatten(1).double()
    if layer_inputs.shape == flat.shape:
        offset, scale = layer_inputs[0], layer_inputs[1] - layer_inputs[0]
        exact = torch.allclose(layer_inputs[2], offset + scale * flat[2], atol=1e-5)
        if exact and float(scale.abs().min()) > 0:
            return offset, scale
    raise AttackError(
        f"what enters the first fully connected layer ({name}) is not each pixel scaled and "
        f"shifted, so that its inputs are no image. {INSTEAD}"
    )


def _probe(model: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """Black, white and a ramp of all values, `[3, C, H, W]`."""
    like = next(model.parameters())
    ramp = torch.linspace(0, 1, shape[0] * shape[1] * shape[2]).reshape(shape)
    stack = torch.stack([torch.zeros(shape), torch.ones(shape), ramp])
    return stack.to(device=like.device, dtype=like.dtype)
