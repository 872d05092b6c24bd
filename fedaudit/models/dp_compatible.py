"""Rewrite networks for DP-SGD: no batch norm, no in-place operations.

A guarantee for one image needs the gradient of one image. Batch norm has none, as it mixes the
images of a batch; and a layer that overwrites its input destroys what Opacus' hooks must read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from fedaudit.core.errors import ConfigError
from fedaudit.core.observation import ModelSpec
from fedaudit.models.batch_norm import batch_norm_layers, preserve_modes
from fedaudit.models.bodies import group_norm
from fedaudit.models.build_network import build, wrap
from fedaudit.models.named_network import create_network


@dataclass(frozen=True)
class Changes:
    """What was changed in a network, by names of its modules.

    Attributes:
        norms: Batch norm that became group norm.
        activations: Layers that overwrote their input.
        sums: Modules whose own forward pass overwrote a tensor, as ResNet's blocks do with
            `out += identity`.
    """

    norms: tuple[str, ...] = ()
    activations: tuple[str, ...] = ()
    sums: tuple[str, ...] = ()

    def sentences(self) -> tuple[str, ...]:
        """One sentence for each kind of change, with the reason."""
        sentences = []
        if self.norms:
            sentences.append(
                f"batch norm in {_count(self.norms, 'layer')} was replaced by group norm: it mixes "
                "the images of a batch, so that no image has a gradient of its own, and its "
                "running statistics would leave the device without noise. Scores differ from the "
                "undefended network's"
            )
        if self.activations:
            sentences.append(
                f"{_count(self.activations, 'in-place activation')} now "
                f"{_write(self.activations)} to new memory: per-sample gradients need what layers "
                "were given. Scores are the same"
            )
        if self.sums:
            sentences.append(
                f"{_count(self.sums, 'block')} that overwrote a tensor (`out += identity`) now "
                f"{_write(self.sums)} to new memory, for the same reason. Scores are the same"
            )
        return tuple(sentences)


def build_dp_compatible(
    *, network: str, arguments: Mapping[str, Any], classes: int, image_size: int = 32
) -> nn.Module:
    """A network without batch norm whose layers overwrite nothing; arguments as of `wrap`."""
    sizes = {"classes": classes, "image_size": image_size}
    model: nn.Module = create_network(network, {**arguments, **sizes})
    make_dp_compatible(model, image_size)
    return model


def dp_compatible_spec(spec: ModelSpec) -> ModelSpec:
    """The spec of `build_dp_compatible` for the network that `spec` builds."""
    return wrap(spec, f"{__name__}:build_dp_compatible")


def list_changes(spec: ModelSpec) -> Changes:
    """What `build_dp_compatible` changes in the network that `spec` builds."""
    return make_dp_compatible(build(spec), spec.arguments["image_size"])


def make_dp_compatible(model: nn.Module, image_size: int) -> Changes:
    """Change `model` in place, and say what was changed; names of parameters stay the same.

    Group norm takes over batch norm's weight and bias. A module whose own forward pass overwrites a
    tensor is traced by `torch.fx`, which writes every step to new memory, or refused.
    """
    norms = tuple(batch_norm_layers(model))
    for name in norms:
        layer = model.get_submodule(name)
        assert isinstance(layer, _BatchNorm)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, _group_norm_of(layer))
    activations = tuple(n for n, m in model.named_modules() if getattr(m, "inplace", False) is True)
    for name in activations:
        model.get_submodule(name).inplace = False  # type: ignore[assignment]
    scores, sums = _find_overwriting(model, image_size)
    for name in sums:
        _rewrite(name, model.get_submodule(name))
    if sums:
        rewritten, remaining = _find_overwriting(model, image_size)
        if remaining or not torch.allclose(scores, rewritten, atol=1e-5):
            name = (remaining or sums)[0]
            raise _refusal(name, model.get_submodule(name))
    return Changes(norms, activations, sums)


def _group_norm_of(layer: _BatchNorm) -> nn.GroupNorm:
    norm = group_norm(layer.num_features, affine=layer.affine)
    norm.eps = layer.eps
    if layer.affine:
        norm.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    return norm


class _InPlaceRecorder(TorchFunctionMode):
    """Records in which module's own forward pass a tensor is overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []
        self.modules: dict[str, None] = {}

    def enter(self, name: str) -> Callable[..., None]:
        """A hook for the module of that name."""
        return lambda *_: self.running.append(name)

    def leave(self, *_: object) -> None:
        """A hook for every module."""
        self.running.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        if (_is_in_place(name) or name in OPERATORS or kwargs.get("inplace")) and self.running:
            self.modules[self.running[-1]] = None
        return func(*args, **kwargs)


OPERATORS = frozenset(
    f"__{name}__"
    for name in (
        *("setitem", "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow"),
        *("iand", "ior", "ixor", "ilshift", "irshift"),
    )
)
"""Operators that overwrite a tensor; so do methods and functions whose name ends in "_"."""


def _find_overwriting(model: nn.Module, image_size: int) -> tuple[Tensor, tuple[str, ...]]:
    """Scores of a test image, and the modules whose own forward pass overwrites a tensor."""
    count = 3 * image_size**2
    images = torch.linspace(0, 1, count).to(next(model.parameters())).view(1, 3, image_size, -1)
    with preserve_modes(model), torch.no_grad(), _InPlaceRecorder() as recorder:
        hooks = []
        for name, module in model.named_modules():
            hooks.append(module.register_forward_pre_hook(recorder.enter(name)))
            hooks.append(module.register_forward_hook(recorder.leave))
        try:
            scores: Tensor = model.eval()(images)
        finally:
            for hook in hooks:
                hook.remove()
    return scores, tuple(recorder.modules)


class _ShallowTracer(fx.Tracer):
    """Traces a module's own forward pass; what it calls stays as it is."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Every child is."""
        return True


def _rewrite(name: str, module: nn.Module) -> None:
    """Give `module` a forward pass that writes to new memory: a trace has `+` where `+=` stood.

    It is traced in training mode: what a trace freezes of that shows when scores are compared in
    evaluation mode.
    """
    module.train()
    try:
        graph = _ShallowTracer().trace(module)
    except Exception as error:  # whatever a stranger's forward pass raises when given a proxy
        raise _refusal(name, module) from error
    for node in graph.nodes:
        if node.op == "call_method" and _is_in_place(node.target):
            node.target = node.target[:-1]
        elif node.op == "call_function":
            own = getattr(node.target, "__name__", "")
            if _is_in_place(own) and hasattr(torch, own[:-1]):
                node.target = getattr(torch, own[:-1])
            if node.kwargs.get("inplace"):
                node.kwargs = {**node.kwargs, "inplace": False}
    program = fx.GraphModule(module, graph)
    # The same dictionaries: what a functional call replaces in one is replaced in the other.
    for table in ("_modules", "_parameters", "_buffers"):
        setattr(program, table, getattr(module, table))
    object.__setattr__(module, "forward", program.forward)


def _is_in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _refusal(name: str, module: nn.Module) -> ConfigError:
    return ConfigError(
        f"module {name!r} ({type(module).__name__}) overwrites a tensor in its forward pass, which "
        "per-sample gradients do not survive, and it could not be rewritten automatically. Write "
        "`x = x + y` in place of `x += y`, and call functions without a trailing underscore."
    )


def _write(names: tuple[str, ...]) -> str:
    return "write" if len(names) > 1 else "writes"


def _count(names: tuple[str, ...], what: str) -> str:
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''}"
