"""The layer that gives a network's scores, found by what its forward pass computes.

Never by a layer's type or place among the others: a face network's head may be a bare parameter,
and its last fully connected layer the embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fedaudit.core.errors import ConfigError
from fedaudit.models.batch_norm import evaluating
from fedaudit.models.facenet import FaceNet

TRIED = 3
"""Images that a network is run on."""
Product = tuple[Tensor, Tensor, Tensor | None, Tensor]
"""Inputs `[N, D]`, matrix `[K, D]`, bias `[K]`, and outputs `[N, K]` before anything else."""


@dataclass(frozen=True)
class ClassHead:
    """How scores `[N, K]` come of what enters the last layer, `[N, D]`.

    Attributes:
        name: Of the parameter that has a row for each class.
        bias: Name of the parameter that is added; None without one.
        transposed: The parameter is `[D, K]`, a column for each class.
        unit: Rows and inputs are brought to length 1: scores are cosines.
        finish: From the product of inputs and rows to the network's scores.
    """

    name: str
    bias: str | None = None
    transposed: bool = False
    unit: bool = False
    finish: Callable[[Tensor], Tensor] = lambda scores: scores

    def rows(self, weight: Tensor) -> Tensor:
        """A tensor of the parameter's shape (itself, its gradient) as `[K, D]`."""
        return (weight.T if self.transposed else weight).flatten(1)


def find_class_head(model: nn.Module, image_shape: Sequence[int]) -> ClassHead | None:
    """The head of any network `[N, C, H, W]` → `[N, K]`; None where none can be made out.

    The forward pass is watched for products of a matrix with K rows. The last of them is the head
    where the scores are the product itself, a multiple, its clamp, or its logarithmic softmax, and
    where its matrix is a parameter, or one with rows brought to length 1.
    """
    with evaluating(model):
        products, scores = _watch(model, _draw(model, image_shape))
    own = dict(model.named_parameters())
    for inputs, matrix, bias, product in reversed(products):
        if product.shape != scores.shape:
            continue
        outputs = product.to(scores)  # under autocast they differ in precision
        name = next((n for n, p in own.items() if _is_view(matrix, p)), None)
        unit = name is None
        name = name or next((n for n, p in own.items() if _is_unit(matrix, p)), None)
        if name is None or (unit and not _has_unit_rows(inputs)):
            return None
        offset = next((n for n, p in own.items() if bias is not None and _is_view(bias, p)), None)
        whole = outputs
        if bias is None:
            offset = next((n for n, p in own.items() if _is_added(scores - outputs, p)), None)
            whole = outputs if offset is None else outputs + own[offset]
        finish = _finish(whole, scores)
        if finish is None or (bias is not None and offset is None):
            return None
        return ClassHead(name, offset, not _same(matrix, own[name], unit), unit, finish)
    return None


def is_class_head(module: nn.Module, width: int) -> bool:
    """Whether a module of rows `[N, width]` is a head and nothing before it."""
    if next(module.parameters(), None) is None or find_class_head(module, (width,)) is None:
        return False  # what has no parameters cannot be one
    rows = _draw(module, (width,))
    with evaluating(module):
        inputs = head_inputs(module, rows)
    if inputs.shape != rows.shape:
        return False
    return bool((F.cosine_similarity(inputs, rows, dim=1) > 1 - 1e-5).all())


def head_inputs(model: nn.Module, images: Tensor) -> Tensor:
    """What enters the head, `[N, D]`, where `find_class_head` finds one; in the model's mode."""
    products, scores = _watch(model, images)
    return next(i for i, _, _, outputs in reversed(products) if outputs.shape == scores.shape)


def embeddings(model: nn.Module, images: Tensor) -> Tensor:
    """Unit embeddings `[N, D]` of any network: what enters its head.

    Raises:
        ConfigError: No head can be made out.
    """
    if isinstance(model, FaceNet):
        return model.embed(images)
    if find_class_head(model, images.shape[1:]) is None:
        raise ConfigError(
            f"verification compares what enters the layer that gives the scores, and in "
            f"{type(model).__name__} it cannot be made out: let the network end in a fully "
            "connected layer, or in cosines to its class centers."
        )
    return F.normalize(head_inputs(model, images), dim=1)


def _draw(model: nn.Module, shape: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(TRIED, *shape, generator=generator).to(next(model.parameters()))


@torch.no_grad()
def _watch(model: nn.Module, images: Tensor) -> tuple[list[Product], Tensor]:
    """The products that a forward pass computes, in order, and its scores."""
    with _Products() as calls:
        scores = model(images)
    return calls.seen, scores


class _Products(TorchFunctionMode):
    """Keeps each product."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Product] = []

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = dict(kwargs or {})
        outputs = func(*args, **keywords)
        if isinstance(outputs, Tensor) and (parts := _product(func, args, keywords)) is not None:
            inputs, matrix, bias = parts
            if inputs.dim() == 2 and matrix.dim() == 2:
                self.seen.append((inputs, matrix, bias, outputs.reshape(len(inputs), -1)))
        return outputs


def _product(
    func: Any, args: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Inputs, matrix and bias of a call that multiplies them."""
    operands = [*args, *keywords.values()]
    if func is F.linear:
        return operands[0], operands[1], operands[2] if len(operands) > 2 else None
    if func in (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__):
        return operands[0], operands[1].mT if operands[1].dim() > 1 else operands[1], None
    if func in (torch.addmm, Tensor.addmm) and len(keywords) == 0:
        return operands[1], operands[2].mT, operands[0]
    if func in (F.conv2d, torch.conv2d) and operands[0].dim() == 4:
        inputs, weight = operands[0], operands[1]
        if inputs.shape[2:] == weight.shape[2:] and inputs.shape[1] == weight.shape[1]:
            bias = operands[2] if len(operands) > 2 else None
            return inputs.flatten(1), weight.flatten(1), bias
    return None


def _is_view(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether both are the same numbers in memory."""
    same = tensor.data_ptr() == parameter.data_ptr() and tensor.numel() == parameter.numel()
    return same and tensor.numel() > 0


def _is_unit(matrix: Tensor, parameter: Tensor) -> bool:
    """Whether the matrix is the parameter with rows, or columns, brought to length 1."""
    if parameter.dim() != 2 or sorted(parameter.shape) != sorted(matrix.shape):
        return False
    return _same(matrix, parameter, True) or _same(matrix, parameter.T, True)


def _same(matrix: Tensor, parameter: Tensor, unit: bool) -> bool:
    if matrix.shape != parameter.flatten(1).shape:
        return False
    rows = parameter.flatten(1)
    return torch.allclose(matrix, F.normalize(rows, dim=1) if unit else rows, atol=1e-5)


def _has_unit_rows(inputs: Tensor) -> bool:
    return torch.allclose(inputs.norm(dim=1), inputs.new_ones(len(inputs)), atol=1e-4)


def _is_added(difference: Tensor, parameter: Tensor) -> bool:
    """Whether a parameter, and not nothing, was added to all rows."""
    if parameter.shape != difference.shape[1:] or not bool(parameter.any()):
        return False
    return torch.allclose(difference, parameter.expand_as(difference), atol=1e-5)


def _finish(outputs: Tensor, scores: Tensor) -> Callable[[Tensor], Tensor] | None:
    """What makes scores of the products."""
    if torch.allclose(outputs, scores, rtol=1e-4, atol=1e-5):
        return lambda products: products
    if torch.allclose(F.log_softmax(outputs, 1), scores, rtol=1e-4, atol=1e-5):
        return lambda products: F.log_softmax(products, 1)
    factor = float((outputs * scores).sum() / outputs.square().sum().clamp_min(1e-30))
    if torch.allclose(factor * outputs, scores, rtol=1e-4, atol=1e-5):
        return lambda products: factor * products
    return None
