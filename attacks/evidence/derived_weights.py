"""Weights that a network computes of its parameters before it convolves with them.

Weight standardization (Qiao et al., 2019; BiT, NF-ResNets) applies ŵ = γ (w − mean(w)) / std(w) row
by row, weight normalization ŵ = γ w / |w|. A client sends the gradient of w, not of ŵ: of a row g
of the latter, which lies in the span of patches, it has s (g − mean(g) − c ŵ). The mean is taken
off the patches, too (`Called.centered`), and c ŵ is put back here. Three things tell c. The
gradient of γ, where it is a parameter, is ⟨g, ŵ⟩. The small number that is added to the deviation
leaves a trace of c ŵ, which shows if it exceeds rounding. And with c a gradient of more rows than
positions has a lower rank (`own_directions`).

How ŵ depends on parameters, its own derivative says: rows are sent through it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.evidence.convolution_calls import convolution_calls
from fedaudit.attacks.evidence.deterministic_mode import deterministic
from fedaudit.attacks.evidence.layer_unfolding import Called
from fedaudit.models.module_copy import copy_detached

ROUNDING = 2.0**-23
"""Relative error of a number that was computed in float32."""
# Of BiT's and NF-ResNet's layers the share is 1e-15 or 1, of spectral normalization 0.01 and more.
EXACT = 1e-5
"""Share of a gradient that rows sent through the derivative may miss."""


@dataclass(frozen=True, eq=False)
class DerivedWeight:
    """A weight `[r, C, h, w]` that is called, and what it was computed of.

    Attributes:
        owner: Name of the module that holds the parameter.
        layer: Stands for the layer.
        weight: In double precision, with its history; a parameter, where it is called as it is.
        name: Of the parameter of its shape.
        sources: That parameter, and others of one number for each row, by name.
    """

    owner: str
    layer: Called
    weight: Tensor
    name: str
    sources: Mapping[str, Tensor]

    @property
    def computed(self) -> bool:
        """Whether the weight is another than the parameter."""
        return not self.weight.is_leaf

    @property
    def direction(self) -> Tensor:
        """The weight, each row of length 1."""
        rows = F.normalize(self.weight.detach().flatten(1))
        return rows.view_as(self.weight)

    def gradient(
        self, target: Mapping[str, Tensor], *, error: float = ROUNDING, noise: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """The parameter's gradient with c ŵ put back, `[r, C, h, w]`, and the error of c ŵ `[r]`.

        Both as long as rows were sent. Of what `error` and `noise` hide, c is taken to be zero (a
        Wiener filter, by directions that are drawn at random for gradients).

        Args:
            target: Gradients by parameter name.
            error: Relative error of a number of the gradient.
            noise: Standard deviation of independent noise on each number.
        """
        sent = target[self.name].detach()
        if not self.computed:
            return sent, sent.new_zeros(len(sent)).double()
        rows, own, error_of_own, _ = self._put_back(target, error, noise)
        return (rows + own).view_as(sent), error_of_own

    def misses(self, generator: torch.Generator) -> float:
        """Share of a gradient, of random numbers, that `gradient` does not explain."""
        drawn = torch.randn(self.weight.shape, generator=generator).to(self.weight)
        names = list(self.sources)
        told = dict(zip(names, self._through(drawn, names), strict=True))
        rows, own, _, scale = self._put_back(told, ROUNDING, 0.0)
        again = self._through((rows + own) * scale, names)
        live = rows.norm(dim=1) > 0
        pairs = [
            (_rows(told[n])[live], _rows(one)[live]) for n, one in zip(names, again, strict=True)
        ]
        missed = sum(float((one - other).square().sum()) for one, other in pairs)
        whole = sum(float(one.square().sum()) for one, _ in pairs)
        return math.sqrt(missed / max(whole, 1e-300))

    def sees_means(self) -> bool:
        """Whether the parameter's gradient says anything of the means of patches."""
        even, drawn = torch.ones_like(self.weight), torch.randn_like(self.weight)
        lengths = [
            sum(float(one.square().sum()) for one in self._through(rows, list(self.sources)))
            for rows in (even, drawn)
        ]
        return lengths[0] > EXACT**2 * lengths[1]

    def _through(self, rows: Tensor, names: list[str]) -> tuple[Tensor, ...]:
        """The parameters' gradients where that of the weight is `rows`."""
        sources = [self.sources[name] for name in names]
        return torch.autograd.grad(
            self.weight, sources, rows.view_as(self.weight), retain_graph=True
        )

    def _put_back(
        self, target: Mapping[str, Tensor], error: float, noise: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows as they were sent `[r, F]`, c ŵ, its error `[r]`, and 1/s `[r, 1]`.

        The least squares of a row and of the direction of ŵ, by Gram–Schmidt.
        """
        names = [name for name in self.sources if name in target]
        sent = torch.cat([_rows(target[n].detach().to(self.weight)) for n in names], 1)
        rows = target[self.name].detach().to(self.weight).flatten(1)
        length = rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
        direction = self.direction.flatten(1)

        def through(sides: Tensor) -> Tensor:
            return torch.cat([_rows(one) for one in self._through(sides, names)], 1)

        first, second = through(rows / length), through(direction)
        size = first.norm(dim=1, keepdim=True).clamp_min(1e-300)
        first = first / size
        shared, along = ((first * one).sum(1, keepdim=True) for one in (second, sent))
        second, rest = second - shared * first, sent - along * first
        width = rows.shape[1] ** 0.5
        unsure = size * (noise * width / length).clamp_min(error)
        seen = second.square().sum(1, keepdim=True) + unsure.square()
        own = (second * rest).sum(1, keepdim=True) / seen.clamp_min(1e-300)
        scale = (along - own * shared) / size / length
        put = torch.where(scale.abs() > 0, own / scale, 0) * direction
        left = length / width * unsure / seen.sqrt().clamp_min(1e-300)
        return rows, put, left.flatten(), scale


def find_derived_weights(
    model: nn.Module, images: Tensor, run: Callable[[nn.Module, Tensor], object]
) -> dict[str, DerivedWeight]:
    """The weights by which a network calls convolutions by itself, by parameter name.

    Args:
        model: In the client's mode; stays as it is.
        images: `[n, C, H, W]`.
        run: Runs the model on images.
    """
    if not any(_is_called_apart(module) for module in model.modules()):
        return {}
    found: dict[str, DerivedWeight] = {}
    with suppress(RuntimeError, ValueError, TypeError):
        twin = copy_detached(model).double().requires_grad_(True)
        names = {id(p): name for name, p in twin.named_parameters()}
        entered: dict[int, Tensor] = {}

        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if args:
                entered[id(module)] = args[0]

        def hear(inputs: Tensor, weight: Tensor, layer: Callable[[], Called]) -> None:
            sources = {names[id(p)]: p for p in _leaves(weight) if id(p) in names}
            whole = [name for name, p in sources.items() if p.shape == weight.shape]
            if len(whole) != 1 or whole[0] in found or weight.dim() != 4:
                return
            owner = whole[0].rpartition(".")[0]
            module = twin.get_submodule(owner)
            if weight.is_leaf and inputs is entered.get(id(module)):
                return  # a hook of the layer tells as much
            apart = {
                n: p for n, p in sources.items() if p.shape[:1].numel() == p.numel() == len(weight)
            }
            apart[whole[0]] = sources[whole[0]]
            found[whole[0]] = DerivedWeight(owner, layer(), weight, whole[0], apart)

        with ExitStack() as hooks, deterministic(twin), convolution_calls(hear):
            for module in twin.modules():
                if isinstance(module, nn.Conv2d):
                    hooks.enter_context(module.register_forward_pre_hook(hook))
            run(twin, images.double())
    generator = torch.Generator().manual_seed(0)
    for name, one in list(found.items()):
        if one.computed:
            if one.misses(generator) > EXACT:
                del found[name]
            one.layer.centered = not one.sees_means()
    return found


@contextmanager
def derived_calls(
    model: nn.Module, derived: Sequence[DerivedWeight], hear: Callable[[str, Called, Tensor], None]
) -> Iterator[None]:
    """Tell of each convolution by one of these weights, before it is computed.

    A computed weight is told by its shape and by the module that was entered last of those that
    hold parameters of that shape.
    """
    if not derived:
        yield
        return
    parameters = {id(model.get_parameter(one.name)): one for one in derived}
    entered: list[DerivedWeight] = []

    def called(inputs: Tensor, weight: Tensor, _: object) -> None:
        one = parameters.get(id(weight))
        if not isinstance(weight, nn.Parameter):
            alike = (one for one in entered[::-1] if one.weight.shape == weight.shape)
            one = next(alike, None)
        if one is not None:
            if one in entered:
                entered.remove(one)
            hear(one.name, one.layer, inputs)

    def enter(module: nn.Module, _: object) -> None:
        entered.extend(by_module[module])

    by_module: dict[nn.Module, list[DerivedWeight]] = {}
    for one in derived:
        by_module.setdefault(model.get_submodule(one.owner), []).append(one)
    with ExitStack() as hooks, convolution_calls(called):
        for module in by_module:
            hooks.enter_context(module.register_forward_pre_hook(enter))
        yield


def _rows(tensor: Tensor) -> Tensor:
    return tensor.reshape(len(tensor), -1)


def _is_called_apart(module: nn.Module) -> bool:
    """Whether a module holds weights of convolutions that are not torch's own layers'."""
    plain = type(module) in (nn.Conv2d, nn.ConvTranspose2d)
    held = module.named_parameters(recurse=False)
    return any(p.dim() == 4 and not (plain and name == "weight") for name, p in held)


def _leaves(tensor: Tensor) -> list[Tensor]:
    """The parameters that a tensor was computed of."""
    if tensor.grad_fn is None:
        return [tensor]
    leaves, seen, left = [], {tensor.grad_fn}, [tensor.grad_fn]
    while left:
        node = left.pop()
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        for other, _ in node.next_functions:
            if other is not None and other not in seen:
                seen.add(other)
                left.append(other)
    return leaves
