"""What every layer's gradient says of its inputs, whatever comes behind it.

A convolution's weight gradient is a sum over images and positions, G = Σ_p δ_p u_pᵀ: u_p is the
patch of its input below position p, δ_p the upstream gradient there. Without the head or the loss δ
is not known; but all rows of G lie in the span of the patches. Where a layer has no fewer channels
than there are positions in the batch, the rows *are* a basis of it. So the images must be such that
their patches span just that space: a match that needs no label, no head, and no gradient of the
dummy images either.

It is variable projection (Golub & Pereyra, SIAM J. Numer. Anal. 1973): the best δ is put in. Petrov
et al. (NeurIPS 2024, "DAGER") test so which tokens a language model was trained on.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.unshared_layers import evaluating
from fedaudit.models.facenet import FaceNet

GAP = 2.0
"""Singular values must exceed the largest that is none of the signal's by this factor."""
PRECISION = 1e-5
"""Relative size of singular values below which they are rounding."""
RIDGE = 1e-12
"""On the Gram matrix of dummy patches (in double precision), in units of its mean diagonal."""
DECISIVE = 2
"""Equations an unknown pixel from which on spans alone decide the images."""


@dataclass(frozen=True)
class InputSpan:
    """What one layer's gradient says of its inputs.

    Attributes:
        name: Of the layer.
        positions: P, how many patches an image has.
        basis: `[r, F]`, orthonormal rows in double precision: directions that the batch's patches
            span for certain.
        weights: `[r]` in (0, 1], how certain.
        full: They span nothing else: r is the number of all patches.
        floor: Relative error of the least certain direction.
    """

    name: str
    positions: int
    basis: Tensor
    weights: Tensor
    full: bool
    floor: float

    def equations(self, count: int) -> int:
        """How many numbers of a batch of `count` the span leaves no freedom."""
        return len(self.basis) * max(self.basis.shape[1] - count * self.positions, 0)

    def distance(self, patches: Tensor) -> Tensor:
        """Mean squared sine between the span and that of `patches` `[n, P, F]`, in [0, 1]."""
        rows = patches.flatten(0, 1).double()  # in single precision the Gram matrix is singular
        gram = rows @ rows.T
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
        shared = (self.weights.sqrt()[:, None] * self.basis) @ rows.T
        inside = (torch.linalg.solve(gram + ridge, shared.T) * shared.T).sum()
        apart: Tensor = 1 - inside / self.weights.sum()
        return apart.clamp_min(0).to(patches.dtype)

    def outside(self, patches: Tensor) -> Tensor:
        """The part of an image's `patches` `[P, F]` that the span does not explain; relative."""
        basis, unit = self.basis.to(patches), patches / patches.norm()
        left: Tensor = unit - (unit @ basis.T) @ basis
        return left


def find_spans(
    model: nn.Module,
    target: Mapping[str, Tensor],
    shape: tuple[int, int, int],
    count: int,
    *,
    private: Collection[str] = (),
    clean: bool = False,
) -> tuple[InputSpan, ...]:
    """The layers whose gradient gives away what their inputs span, in order.

    None of a layer with several groups, or with more patches than its gradient has rows.

    Args:
        model: The network.
        target: Mean gradient by parameter name.
        shape: `(C, H, W)`.
        count: N.
        private: Names of local parameters; layers behind the first of them are left out, because
            what dummy images send there is not known.
        clean: The update is one exact gradient. Otherwise only layers whose spectrum shows how much
            of it is noise, or the drift of several local steps, are believed.
    """
    spans = []
    for name, positions in _reached(model, shape, private).items():
        gradient = target.get(f"{name}.weight")
        if gradient is None:
            continue
        total, matrix = count * positions, gradient.flatten(1)
        if total > len(matrix) or total >= matrix.shape[1]:
            continue
        if total == len(matrix) and not clean:
            continue
        _, sizes, rows = torch.linalg.svd(matrix.double(), full_matrices=False)
        noise = float(sizes[total]) if total < len(sizes) else 0.0
        noise = max(noise, PRECISION * float(sizes[0]))
        rank = int((sizes[:total] > GAP * noise).sum())
        if rank:
            weights = 1 - (GAP * noise / sizes[:rank]).square()
            floor = noise / float(sizes[rank - 1])
            full = rank == total
            spans.append(InputSpan(name, positions, rows[:rank], weights, full, floor))
    return tuple(spans)


def patches_of(model: nn.Module, spans: Sequence[InputSpan], images: Tensor) -> dict[str, Tensor]:
    """What `images` `[n, C, H, W]` send to the layers, `[n, P, F]` each; differentiable."""
    layers = dict(model.named_modules())
    heard: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for span in spans:
            hook = layers[span.name].register_forward_pre_hook(
                lambda _, inputs, name=span.name: heard.__setitem__(name, inputs[0])
            )
            hooks.enter_context(hook)
        _run(model, images)
    return {span.name: _patches(layers[span.name], heard[span.name]) for span in spans}


def span_distance(model: nn.Module, spans: Sequence[InputSpan], images: Tensor) -> Tensor:
    """Mean over the layers of `InputSpan.distance`; of all images of the batch together."""
    patches = patches_of(model, spans, images)
    return torch.stack([span.distance(patches[span.name]) for span in spans]).mean()


def decisive(spans: Sequence[InputSpan], pixels: int, count: int) -> bool:
    """Whether the spans leave the images no freedom, by counting equations and pixels."""
    return sum(span.equations(count) for span in spans) >= DECISIVE * count * pixels


def _patches(layer: nn.Module, inputs: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        unfolded: Tensor = F.unfold(
            inputs,
            layer.kernel_size,
            layer.dilation,
            layer.padding,  # type: ignore[arg-type]  # names such as "same" are left out
            layer.stride,
        )
        return unfolded.transpose(1, 2)
    return inputs[:, None]


def _reached(
    model: nn.Module, shape: tuple[int, int, int], private: Collection[str]
) -> dict[str, int]:
    """Positions of each layer that can be read, in the order of the forward pass."""
    owners = {name.rpartition(".")[0] for name in private}
    order: list[tuple[str, Tensor]] = []
    try:
        with ExitStack() as hooks, torch.no_grad(), evaluating(model):
            for name, module in model.named_modules():
                if not list(module.children()):
                    hook = module.register_forward_hook(
                        lambda _m, _i, out, name=name: order.append((name, out))
                    )
                    hooks.enter_context(hook)
            _run(model, torch.zeros(1, *shape).to(next(model.parameters())))
    except RuntimeError:  # a network that does not take one image of this shape
        return {}
    layers, reached = dict(model.named_modules()), {}
    names = [name for name, _ in order]
    for name, out in order:
        if name in owners:
            break
        layer = layers[name]
        if names.count(name) > 1:
            continue  # shared layers add the patches of all their uses
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            if not isinstance(layer.padding, str) and layer.padding_mode == "zeros":
                reached[name] = out.shape[2] * out.shape[3]
        elif isinstance(layer, nn.Linear) and out.dim() == 2:
            reached[name] = 1
    return reached


def _run(model: nn.Module, images: Tensor) -> None:
    if isinstance(model, FaceNet):
        # Not what lies behind a bottleneck that draws: its inputs are the client's own.
        model.first_fc_layer(model.features(images))
    else:
        model(images)
