"""A program of tensor operations, put back together from torch's own layers.

TorchScript and torch.export keep what a network computes and the names of its parameters, but not
its layers. Attacks ask for these: which layer is fully connected, which is batch norm and in which
mode it runs, where the kinks are. And TorchScript's parameters cannot be replaced in a functional
call at all. So each convolution, fully connected or normalizing operation becomes the layer that
its parameters' names say; everything else stays the operation that it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

COUNTER = "num_batches_tracked"


def recover_layers(graph: fx.Graph, state: Mapping[str, Tensor]) -> fx.GraphModule:
    """The network that a graph describes.

    Args:
        graph: One placeholder, the images; `get_attr` nodes under the names of `state`; operations
            of `torch.ops.aten`; one output, the scores. It is not changed.
        state: Parameters (`nn.Parameter`), buffers and constants by name; they are not copied.

    Returns:
        In evaluation mode; parameters and buffers carry the names of `state`.
    """
    root = nn.Module()
    for name, tensor in state.items():
        _put(root, name, tensor)
    made = fx.Graph()
    known: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        layer = _layer(node, root) if node.op == "call_function" else None
        if layer is not None:
            name, module = layer
            _put(root, name, module)
            known[node] = made.call_module(name, (known[node.args[0]],))
        elif node.op == "output":
            (scores,) = node.args[0] if isinstance(node.args[0], tuple | list) else node.args
            made.output(known[scores])
        elif node.op != "call_module" and not _counts(node):  # these are guards of sizes
            known[node] = made.node_copy(node, known.__getitem__)
    network = fx.GraphModule(root, made)
    made = network.graph
    made.eliminate_dead_code()
    network.recompile()
    kept = network.state_dict()
    for name, tensor in state.items():  # what no operation reads
        if name not in kept:
            _put(network, name, tensor)
    return network.eval()


def _counts(node: fx.Node) -> bool:
    """Whether a node moves a counter of batch norm, which the layers do themselves."""
    first = node.args[0] if node.args else None
    return (
        node.op == "call_function"
        and isinstance(first, fx.Node)
        and first.op == "get_attr"
        and str(first.target).endswith(COUNTER)
    )


def _put(root: nn.Module, name: str, value: Tensor | nn.Module) -> None:
    """Set what `name` says, with plain modules for what leads there."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root._modules[part] = nn.Module()  # `add_module` refuses some names
        root = root._modules[part]  # type: ignore[assignment]
    if isinstance(value, nn.Module):
        root._modules[last] = value
    elif isinstance(value, nn.Parameter):
        root._parameters[last] = value
    else:
        root._buffers[last] = value


def _layer(node: fx.Node, root: nn.Module) -> tuple[str, nn.Module] | None:
    """Name and layer of what an operation computes; None where no layer of torch does just that."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.name not in _LAYERS or not isinstance(node.args[0], fx.Node):
        return None
    given = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    given |= dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | node.kwargs
    given["input"] = node.args[0].meta.get("val")
    slots, make = _LAYERS[schema.name]
    name = f"operation_{schema.name.rpartition(':')[2].rstrip('_')}.{node.name}"
    used = {slot: given[argument] for argument, slot in slots.items() if given[argument]}
    own: dict[str, Tensor] = {}
    if slots:
        name = _place(used)
        own = _held(root, name, set(used))
        if not own:
            return None
    with torch.device("meta"):
        layer = make({**given, **{argument: own.get(slot) for argument, slot in slots.items()}})
    there = root.get_submodule(name) if slots else None
    if layer is None or (type(there) is not nn.Module and slots and repr(there) != repr(layer)):
        return None  # or it is used twice, in two ways
    for slot, tensor in own.items():
        _put(layer, slot, tensor)
    return name, layer


def _place(used: Mapping[str, Any]) -> str:
    """Name of the layer that holds what an operation reads; "" where no single one does."""
    names = set()
    for slot, node in used.items():
        target = str(node.target) if isinstance(node, fx.Node) and node.op == "get_attr" else ""
        if not target.endswith(f".{slot}"):
            return ""
        names.add(target.removesuffix(f".{slot}"))
    return names.pop() if len(names) == 1 else ""


def _held(root: nn.Module, name: str, used: set[str]) -> dict[str, Tensor]:
    """What a layer holds, if it is what an operation reads and no more; else {}."""
    if not name:
        return {}
    holder = root.get_submodule(name)
    held = {**holder._parameters, **holder._buffers}
    own = {slot: tensor for slot, tensor in held.items() if tensor is not None}
    fits = used <= own.keys() <= used | {COUNTER} and not holder._modules
    return own if fits else {}


def _linear(given: Mapping[str, Any]) -> nn.Module:
    weight: Tensor = given["weight"]
    return nn.Linear(weight.shape[1], weight.shape[0], given["bias"] is not None)


def _conv2d(given: Mapping[str, Any]) -> nn.Module | None:
    weight: Tensor = given["weight"]
    if weight.dim() != 4 or given.get("transposed"):
        return None
    return nn.Conv2d(
        weight.shape[1] * given["groups"],
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        stride=_pair(given["stride"]),
        padding=given["padding"] if isinstance(given["padding"], str) else _pair(given["padding"]),
        dilation=_pair(given["dilation"]),
        groups=given["groups"],
        bias=given["bias"] is not None,
    )


def _batch_norm(given: Mapping[str, Any]) -> nn.Module | None:
    like = given["weight"] if given["weight"] is not None else given["running_mean"]
    kind = {4: nn.BatchNorm2d, 3: nn.BatchNorm1d, 2: nn.BatchNorm1d}.get(_dimensions(given))
    if kind is None or like is None or given["momentum"] is None:
        return None
    return kind(
        len(like),
        eps=given["eps"],
        momentum=given["momentum"],
        affine=given["weight"] is not None,
        track_running_stats=given["running_mean"] is not None,
    )


def _group_norm(given: Mapping[str, Any]) -> nn.Module:
    return nn.GroupNorm(given["num_groups"], len(given["weight"]), eps=given["eps"])


def _layer_norm(given: Mapping[str, Any]) -> nn.Module:
    shape = [int(n) for n in given["normalized_shape"]]
    return nn.LayerNorm(shape, eps=given["eps"], bias=given["bias"] is not None)


def _pool(given: Mapping[str, Any]) -> nn.Module:
    stride = given["stride"] or given["kernel_size"]
    settings = [_pair(n) for n in (given["kernel_size"], stride, given["padding"])]
    kernel, step, padding = settings
    return nn.MaxPool2d(kernel, step, padding, _pair(given["dilation"]), False, given["ceil_mode"])


def _pair(numbers: Sequence[int] | int) -> tuple[int, int]:
    both = [numbers] if isinstance(numbers, int) else list(numbers)
    return (both[0], both[-1])


def _dimensions(given: Mapping[str, Any]) -> int:
    value = given["input"]
    return value.dim() if isinstance(value, Tensor) else 0


Make = Callable[[Mapping[str, Any]], nn.Module | None]
_AFFINE = {"weight": "weight", "bias": "bias"}
_STATISTICS = {"running_mean": "running_mean", "running_var": "running_var"}
_RELU: tuple[dict[str, str], Make] = ({}, lambda given: nn.ReLU())
_LAYERS: dict[str, tuple[dict[str, str], Make]] = {
    "aten::linear": (_AFFINE, _linear),
    "aten::conv2d": (_AFFINE, _conv2d),
    "aten::convolution": (_AFFINE, _conv2d),
    "aten::_convolution": (_AFFINE, _conv2d),
    "aten::batch_norm": ({**_AFFINE, **_STATISTICS}, _batch_norm),
    "aten::group_norm": (_AFFINE, _group_norm),
    "aten::layer_norm": (_AFFINE, _layer_norm),
    "aten::prelu": ({"weight": "weight"}, lambda given: nn.PReLU(len(given["weight"]))),
    "aten::relu": _RELU,
    "aten::relu_": _RELU,
    "aten::leaky_relu": ({}, lambda given: nn.LeakyReLU(given["negative_slope"])),
    "aten::leaky_relu_": ({}, lambda given: nn.LeakyReLU(given["negative_slope"])),
    "aten::hardtanh": ({}, lambda given: nn.Hardtanh(given["min_val"], given["max_val"])),
    "aten::hardtanh_": ({}, lambda given: nn.Hardtanh(given["min_val"], given["max_val"])),
    "aten::hardsigmoid": ({}, lambda given: nn.Hardsigmoid()),
    "aten::hardsigmoid_": ({}, lambda given: nn.Hardsigmoid()),
    "aten::max_pool2d": ({}, _pool),
}
"""Operation → slots of its layer by the operation's arguments, and what makes the layer."""
