"""What enters each layer of any network, read in a forward pass.

As rows, it is what the layer's weight gradient is made of (`layer_unfolding`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.confirmed_layers import Position, confirm
from fedaudit.attacks.evidence.derived_weights import (
    ROUNDING,
    DerivedWeight,
    derived_calls,
    find_derived_weights,
)
from fedaudit.attacks.evidence.deterministic_mode import deterministic, drawing, still
from fedaudit.attacks.evidence.layer_unfolding import (
    READABLE,
    Applied,
    Called,
    matrices_of,
    rows_of,
)
from fedaudit.attacks.evidence.matrix_calls import by_image, matrix_calls
from fedaudit.attacks.evidence.patch_products import patch_products
from fedaudit.core.errors import AttackError
from fedaudit.models.facenet import FaceNet

Use = tuple[nn.Module, Tensor]
"""A layer, and what enters it, `[n, …]`."""
MATRICES = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase)
"""Layers that apply matrices, in ways that are read and in others."""
CALLED, COLUMNS = Applied(), Applied(columns=True)
"""Stand for the layer of a matrix that has none: it is applied by a call (`matrix_calls`)."""
LAYERS = (*MATRICES, nn.Embedding, nn.MultiheadAttention)
"""Layers that apply their own matrices by a hook or by `F.linear`, if they are read at all."""


class _AllHeard(Exception):  # noqa: N818  # ends a forward pass; it is no error
    """Everything that was listened for has been heard."""


@dataclass
class InputReader:
    """Reads what images send into each layer of a network.

    The network is run as the client ran it, but for what is random (dropout): with batch norm in
    the client's mode, its running statistics left as they are.

    Args:
        model: In the client's mode.
        shape: `(C, H, W)`.
        count: N, the images of the batch.
        moments: Readers of the network as it was while the client trained, each with the numbers of
            the images that it saw together (`followed_training`), every image as often; () where
            it saw all of them once, as it is.
        draws: What is random (dropout) was so when the client trained, whichever mode the network
            is in.

    Raises:
        AttackError: The network does not run on images of that shape.
    """

    model: nn.Module
    shape: tuple[int, int, int]
    count: int
    moments: "tuple[tuple[InputReader, Sequence[int]], ...]" = ()
    draws: bool = False
    layers: dict[str, list[nn.Module]] = field(default_factory=dict)
    derived: dict[str, DerivedWeight] | None = None
    _uses: dict[str, int] = field(default_factory=dict)
    _refuted: set[str] = field(default_factory=set)
    _in_attention: set[str] = field(default_factory=set)
    _multiplies: bool = False

    def __post_init__(self) -> None:
        names = {id(p): name for name, p in self.model.named_parameters()}
        for layer in self.model.modules():
            weight = layer.weight if isinstance(layer, READABLE) else None
            if weight is not None and id(weight) in names:
                self.layers.setdefault(names[id(weight)], []).append(layer)
        for name, weight in self.model.named_parameters():
            if weight.dim() == 2:
                self.layers.setdefault(name, [CALLED])
        attention = [m for m in self.model.modules() if isinstance(m, nn.MultiheadAttention)]
        self._in_attention = {names[id(p)] for m in attention for p in m.parameters()}
        layers = [m for m in self.model.modules() if isinstance(m, LAYERS)]
        own = {id(p) for m in layers for p in m.parameters()}
        bare = [p for p in self.model.parameters() if p.dim() == 2 and id(p) not in own]
        self._multiplies = bool(bare)

    def rows(self, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
        """What `images` `[n, C, H, W]` send to the weights `names`; differentiable.

        `[groups, positions, width]` each, where a weight that is used twice has the positions of
        both uses.
        """
        inputs = self.inputs(names, images)
        return {name: torch.cat([rows_of(m, x) for m, x in inputs[name]], 1) for name in names}

    def inputs(self, names: Sequence[str], images: Tensor) -> dict[str, list[Use]]:
        """The layers that use the weights `names`, each with what `images` send there.

        The network is run up to the last of them and no further; once for each of the moments, one
        after the other, where a whole batch is given.
        """
        names = list(dict.fromkeys(names))
        if not self.moments or len(images) != self.count:
            return self._heard(names, images, enough=True)
        together: dict[str, list[Use]] = {}
        heard = [r._heard(names, images[list(which)], enough=True) for r, which in self.moments]
        for name in names:
            for uses in zip(*(moment[name] for moment in heard), strict=True):
                inputs = torch.cat([entered for _, entered in uses])
                together.setdefault(name, []).append((uses[0][0], inputs))
        return together

    @property
    def epochs(self) -> int:
        """How often each image enters a layer while the client trains, as far as is known."""
        return sum(len(which) for _, which in self.moments) // self.count or 1

    def sides(self, name: str) -> tuple[int, int]:
        """Rows and width of a weight's gradient, for each group of channels."""
        weight = self.model.get_parameter(name)
        _, rows, width = matrices_of(self.layers[name][0], weight).shape
        return rows, width

    def positions(self, private: Collection[str] = ()) -> dict[str, Position]:
        """The weights whose gradient is confirmed to be made of their inputs, in order of use.

        Those behind a `private` parameter are left out: what images send there is not known.

        That is tried on a gradient of our own: a layer that does something else with its weight
        (spectral normalization, a second use outside of the layer) is left out.
        """
        n = min(self.count, 2)
        generator = torch.Generator().manual_seed(0)
        like = next(self.model.parameters())
        images = torch.rand(n, *self.shape, generator=generator).to(like).requires_grad_()
        if self.derived is None:
            self._listen_for(find_derived_weights(self.model, images.detach(), _run))
            assert self.derived is not None
        names = list(self.layers)
        try:
            certain = self._certain(names, images)
            heard = self._heard(names, images, {name.rpartition(".")[0] for name in private})
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            size = "×".join(map(str, self.shape))
            raise AttackError(
                f"the network does not run on {n} image{'s' * (n > 1)} of {size}: {error}. Say the "
                "image size that clients train on."
            ) from error
        self._uses = {name: len(uses) for name, uses in heard.items()}
        for reader, _ in self.moments:
            reader._uses, reader._multiplies = self._uses, self._multiplies
            reader._listen_for(self.derived)
        weights = {name: self.model.get_parameter(name) for name in heard}
        for one in self.derived.values():
            weights |= {name: self.model.get_parameter(name) for name in one.sources}
        learned = {name: weight for name, weight in weights.items() if weight.requires_grad}
        if not learned:
            return {}
        noise = torch.randn(self._output.shape, generator=generator).to(self._output)
        slopes = torch.autograd.grad(
            (self._output * noise).sum(), list(learned.values()), allow_unused=True
        )
        own = {n: g for n, g in zip(learned, slopes, strict=True) if g is not None}
        found, refuted = confirm(
            {name: self.gradient_of(name, own)[0] for name in own.keys() & heard.keys()},
            heard,
            self.layers,
            images=n,
            count=self.count,
            certain=certain,
        )
        self._refuted |= refuted
        return found

    def gradient_of(
        self, name: str, target: Mapping[str, Tensor], *, error: float = 0.0, noise: float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """A weight's gradient whose rows lie in the span of its inputs, and an error of each row.

        That of the parameter, or what follows from it of the weight that is called
        (`DerivedWeight.gradient`); the error is None of the former.
        """
        if not self.derives(name):
            return target[name].detach(), None
        assert self.derived is not None
        one = self.derived[name]
        return one.gradient(target, error=max(error, ROUNDING), noise=noise)

    def direction_of(self, name: str) -> Tensor:
        """The direction of each row of a derived weight: what its gradient may lack of the row."""
        assert self.derived is not None
        return self.derived[name].direction

    def derives(self, name: str) -> bool:
        """Whether the weight that is called is computed of the parameter of this name."""
        one = (self.derived or {}).get(name)
        return one is not None and one.computed

    def _listen_for(self, derived: dict[str, DerivedWeight]) -> None:
        """Listen for weights that the network calls by itself, from here on."""
        self.derived = derived
        self.layers |= {name: [one.layer] for name, one in derived.items()}

    def unread(self, names: Collection[str]) -> list[str]:
        """The matrices among `names` whose inputs cannot be read, once `positions` was asked.

        Layers do something else with them than apply them (spectral normalization), or are of a
        kind that is not unfolded here.
        """
        own = {id(p): name for name, p in self.model.named_parameters()}
        layers = [m for m in self.model.modules() if isinstance(m, MATRICES)]
        matrices = [p for m in layers for p in m.parameters() if sum(n > 1 for n in p.shape) > 1]
        inside = {own[id(p)] for p in matrices}
        lost = {n for n in inside - set(self._uses) if self.layers.get(n, [CALLED])[0] is CALLED}
        return sorted((lost | self._refuted) & set(names))

    def _heard(
        self,
        names: Sequence[str],
        images: Tensor,
        until: Collection[str] = (),
        mode: Callable[[nn.Module], AbstractContextManager[None]] | None = None,
        *,
        enough: bool = False,
    ) -> dict[str, list[Use]]:
        heard: dict[str, list[Use]] = {}
        ends: list[bool] = []
        missing = {name: self._uses.get(name, 0) for name in names} if enough else {}

        def add(name: str, layer: nn.Module, inputs: Tensor) -> None:
            if not ends:
                heard.setdefault(name, []).append((layer, inputs))
            if missing:
                missing[name] -= 1
                if not any(missing.values()):
                    raise _AllHeard

        def listen(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                inputs = args[0] if args else next(iter(keywords.values()))
                hooked[name] = inputs
                add(name, module, inputs)

            return hook

        hooked: dict[str, Tensor] = {}
        weights = {id(self.model.get_parameter(name)): name for name in names}
        multiplied: set[str] = set()

        def parameter(weight: Tensor) -> str | None:
            return weights.get(id(weight)) or weights.get(id(weight._base))

        def multiply(inputs: Tensor, weight: Tensor) -> None:
            name = parameter(weight)
            if name is not None and isinstance(self.layers[name][0], Applied):
                multiplied.add(name)
            hear(inputs, weight)

        def hear(inputs: Tensor, weight: Tensor) -> None:
            name = parameter(weight)
            if name is None or inputs is hooked.get(name):  # its layer has told
                return
            each = by_image(inputs, len(images), in_attention=name in self._in_attention)
            if each is None:
                return
            layer = self.layers[name][0]
            if layer is CALLED and _is_transposed(weight):
                self.layers[name] = [COLUMNS]
            add(name, self.layers[name][0], each)

        with ExitStack() as hooks, (mode or deterministic)(self.model):
            for owner in until:
                module = self.model.get_submodule(owner)
                hooks.enter_context(
                    module.register_forward_pre_hook(lambda _m, _args: ends.append(True))
                )
            for name in names:
                for layer in self.layers[name]:
                    if not isinstance(layer, Applied | Called):
                        hooks.enter_context(
                            layer.register_forward_pre_hook(listen(name), with_kwargs=True)
                        )
            products = multiply if self._multiplies else None
            hooks.enter_context(matrix_calls(hear, products=products))
            hooks.enter_context(patch_products())
            derived = [one for name, one in (self.derived or {}).items() if name in names]
            hooks.enter_context(derived_calls(self.model, derived, add))
            with suppress(_AllHeard):
                self._output = _run(self.model, images)
        if not enough:  # what is not multiplied need not be listened for any more
            self._multiplies = bool(multiplied)
        return heard

    def _certain(self, names: Sequence[str], images: Tensor) -> set[str]:
        """The weights before anything random: two runs, one of them as the client's, agree there.

        What is drawn with a small probability, as blocks are left out, may be the same twice; but
        what is kept is larger then than on average.
        """
        runs = []
        for seed, mode in enumerate((deterministic, drawing) if self.draws else (still, still)):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                runs.append(self._heard(names, images, mode=mode))
        one, two = ({name: uses[0][1] for name, uses in heard.items()} for heard in runs)
        return {name for name in one if name in two and torch.equal(one[name], two[name])}


def _run(model: nn.Module, images: Tensor) -> Tensor:
    if isinstance(model, FaceNet):
        # Not what lies behind a bottleneck that draws: its inputs are the client's own.
        result: Tensor = model.first_fc_layer(model.features(images))
        return result
    output: Tensor = model(images)
    return output


def _is_transposed(weight: Tensor) -> bool:
    """Whether a matrix is the transposed view of a parameter."""
    base = weight._base
    if base is None or base.dim() != 2 or base.shape != weight.shape[::-1]:
        return False
    return base.stride() == weight.stride()[::-1]
