"""The layer that gives a network's scores, found by what its forward pass computes.

Never by a layer's type or place among the others: a face network's head may be a bare parameter,
and its last fully connected layer the embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.core.errors import ConfigError
from fedaudit.models.batch_norm import evaluating
from fedaudit.models.facenet import FaceNet
from fedaudit.models.matrix_parameters import name_of, norms_of, rows_of
from fedaudit.models.watched_products import drawn_images, watch

COMPARED, ALIKE = 16, 0.999
"""Columns by which those are looked for that the scores are made of, and the cosine from which on
they are compared whole."""
SHORT = 1e-3
"""Share of the longest row below which a row's direction has too little gradient to be read."""


@dataclass(frozen=True)
class ClassHead:
    """How scores `[N, K]` come of what enters the last layer, `[N, D]`.

    Attributes:
        name: Of the parameter that has a row for each class.
        bias: Name of the parameter that is added; None without one.
        transposed: The parameter is `[D, K]`, a column for each class.
        unit: Rows and inputs are brought to length 1: scores are cosines.
        finish: From the product of inputs and rows to the network's scores.
        kept: Which rows have a score, where the network cuts the others off.
        length: Name of the parameter that is each row's length, `[K, 1]`, or that of all rows as
            one, `[]`, where the rows of `name` give their directions alone (weight norm).
    """

    name: str
    bias: str | None = None
    transposed: bool = False
    unit: bool = False
    finish: Callable[[Tensor], Tensor] = lambda scores: scores
    kept: slice = field(default_factory=lambda: slice(None))
    length: str | None = None

    @property
    def plain(self) -> bool:
        """Whether the parameter is the matrix, and has a row for each class and no other."""
        return self.kept == slice(None) and self.length is None

    def rows(self, weight: Tensor) -> Tensor:
        """A tensor of the parameter's shape (itself, its gradient) as `[K, D]`."""
        return (weight.T if self.transposed else weight).flatten(1)[self.kept]

    def matrix(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """`[K, D]`, by which inputs are multiplied; cosines are taken to its rows."""
        if self.length is None:
            return self.rows(parameters[self.name])
        directions, length = parameters[self.name].flatten(1), parameters[self.length]
        whole = length.reshape(-1, 1) * directions / norms_of(directions, length)
        return whole[self.kept]

    def gradient(
        self, shared: Mapping[str, Tensor], parameters: Mapping[str, Tensor]
    ) -> Tensor | None:
        """`[K, D]`, of `matrix`, from those of its parameters; None where they do not say it.

        A row l·v/|v| has the gradient (|v|/l)·∂v + ∂l·v/|v|: what is across it shows in the
        direction's, what is along it in the length's (Salimans & Kingma, NeurIPS 2016, eq. 3).
        """
        if self.name not in shared or self.length is None:
            sent = shared.get(self.name)
            return None if sent is None else self.rows(sent)
        directions, length = parameters[self.name].flatten(1), parameters[self.length]
        lengths, norms = length.reshape(-1, 1), norms_of(directions, length)
        used = lengths.expand(len(directions), 1)[self.kept].abs()
        if self.length not in shared or not bool(used.min() > SHORT * used.max()):
            return None
        across = norms / lengths * shared[self.name].flatten(1)
        along = shared[self.length].reshape(-1, 1) * directions / norms
        return (across + along)[self.kept]


def find_class_head(model: nn.Module, image_shape: Sequence[int]) -> ClassHead | None:
    """The head of any network `[N, C, H, W]` → `[N, K]`; None where none can be made out.

    The forward pass is watched for products of a matrix with K rows. The last of them is the head
    where the scores are the product itself, a multiple, its clamp, or its logarithmic softmax, or
    these of some neighboring columns of it, and where its matrix is a parameter, one with rows
    brought to length 1, or one with rows of lengths that are another parameter.
    """
    with evaluating(model):
        products, scores = watch(model, drawn_images(model, image_shape))
    own = dict(model.named_parameters())
    for inputs, matrix, bias, product in reversed(products):
        if product.shape != scores.shape:
            if (cut := _cut_head(matrix, bias, product, scores, own)) is not None:
                return cut
            continue
        outputs = product.to(scores)  # under autocast they differ in precision
        if (rows := rows_of(matrix, own, inputs)) is None:
            return None
        offset = None if bias is None else name_of(bias, own)
        whole = outputs
        if bias is None:
            offset = next((n for n, p in own.items() if _is_added(scores - outputs, p)), None)
            whole = outputs if offset is None else outputs + own[offset]
        finish = _finish(whole, scores)
        if finish is None or (bias is not None and offset is None):
            return None
        return ClassHead(rows.name, offset, rows.transposed, rows.unit, finish, length=rows.length)
    return None


def _cut_head(
    matrix: Tensor,
    bias: Tensor | None,
    product: Tensor,
    scores: Tensor,
    own: Mapping[str, Tensor],
) -> ClassHead | None:
    """The head of a network whose scores are some columns of a product with more of them."""
    kept = _columns(product, scores)
    rows = None if kept is None else rows_of(matrix, own)
    offset = None if bias is None else name_of(bias, own)
    if kept is None or rows is None or (bias is not None and offset is None):
        return None
    finish = _finish(product[:, kept].to(scores), scores)
    if finish is None:
        return None
    return ClassHead(
        rows.name, offset, rows.transposed, finish=finish, kept=kept, length=rows.length
    )


def _columns(product: Tensor, scores: Tensor) -> slice | None:
    """Which neighboring columns of a wider product the scores were made of; None for none."""
    if scores.dim() != 2 or len(product) != len(scores):
        return None
    classes = scores.shape[1]
    places = product.shape[1] - classes + 1
    some = min(classes, COMPARED)  # of each row, up to a shift and a factor
    if some < 2 or places < 1:
        return None
    windows = product[:, : places + some - 1].unfold(1, some, 1).to(scores)
    windows = windows - windows.mean(2, keepdim=True)
    wanted = scores[:, :some] - scores[:, :some].mean(1, keepdim=True)
    cosines = F.cosine_similarity(windows.transpose(0, 1).flatten(1), wanted.flatten()[None], dim=1)
    candidates = [slice(n, n + classes) for n in (cosines > ALIKE).nonzero().flatten().tolist()]
    found = [c for c in candidates if _finish(product[:, c].to(scores), scores) is not None]
    return found[0] if len(found) == 1 else None


def is_class_head(module: nn.Module, width: int) -> bool:
    """Whether a module of rows `[N, width]` is a head and nothing before it."""
    if next(module.parameters(), None) is None or find_class_head(module, (width,)) is None:
        return False  # what has no parameters cannot be one
    rows = drawn_images(module, (width,))
    with evaluating(module):
        inputs = head_inputs(module, rows)
    if inputs.shape != rows.shape:
        return False
    return bool((F.cosine_similarity(inputs, rows, dim=1) > 1 - 1e-5).all())


def head_inputs(model: nn.Module, images: Tensor) -> Tensor:
    """What enters the head, `[N, D]`, where `find_class_head` finds one; in the model's mode."""
    products, scores = watch(model, images)
    return next(
        inputs
        for inputs, _, _, outputs in reversed(products)
        if outputs.shape == scores.shape or _columns(outputs, scores) is not None
    )


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
