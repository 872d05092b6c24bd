"""Recover torch's layers from a program of tensor operations.

TorchScript and torch.export keep what a network computes and the names of its parameters, but not
its layers. Attacks need these: which is fully connected, which is batch norm and in which mode it
runs, which is not smooth. And TorchScript's parameters cannot be replaced in a functional call. So
each convolution, fully connected or normalizing operation becomes the layer that its parameters'
names say; everything else stays the operation that it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

COUNTER = "num_batches_tracked"


def recover_layers(graph: fx.Graph, state: Mapping[str, Tensor]) -> fx.GraphModule:
    """The network that a graph of operations describes, in torch's layers.

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
    layers_graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        layer = _layer(node, root) if node.op == "call_function" else None
        if layer is not None:
            name, module = layer
            _put(root, name, module)
            copies[node] = layers_graph.call_module(name, (copies[node.args[0]],))
        elif node.op == "output":
            (scores,) = node.args[0] if isinstance(node.args[0], tuple | list) else node.args
            layers_graph.output(copies[scores])
        elif node.op != "call_module" and not _is_counter(node):  # these are guards of sizes
            copies[node] = layers_graph.node_copy(node, copies.__getitem__)
    network = fx.GraphModule(root, layers_graph)
    network.graph.eliminate_dead_code()
    network.recompile()
    present = network.state_dict()
    for name, tensor in state.items():  # what no operation reads
        if name not in present:
            _put(network, name, tensor)
    return network.eval()


def _is_counter(node: fx.Node) -> bool:
    """Whether a node increments the counter of batch norm, which the layers do themselves."""
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
    if schema is None or not isinstance(node.args[0], fx.Node):
        return None
    operation = schema.name.rstrip("_")  # in-place operations end in it
    if operation not in _LAYERS:
        return None
    values = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    values |= dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | node.kwargs
    values["input"] = node.args[0].meta.get("val")
    slots, build = _LAYERS[operation]
    name = f"operation_{operation.rpartition(':')[2]}.{node.name}"
    tensors: dict[str, Tensor] = {}
    if slots:
        operands = {slot: values[slot] for slot in slots if values[slot]}
        name = _common_holder(operands)
        tensors = _tensors_of(root, name, set(operands))
        if not tensors:
            return None
    with torch.device("meta"):
        layer = build({**values, **{slot: tensors.get(slot) for slot in slots}})
    present = root.get_submodule(name) if slots else None
    if layer is None or (type(present) is not nn.Module and slots and repr(present) != repr(layer)):
        return None  # or it is used twice, in two ways
    for slot, tensor in tensors.items():
        _put(layer, slot, tensor)
    return name, layer


def _common_holder(operands: Mapping[str, Any]) -> str:
    """Name of the layer that holds what an operation reads; "" where no single one does."""
    names = set()
    for slot, node in operands.items():
        target = str(node.target) if isinstance(node, fx.Node) and node.op == "get_attr" else ""
        if not target.endswith(f".{slot}"):
            return ""
        names.add(target.removesuffix(f".{slot}"))
    return names.pop() if len(names) == 1 else ""


def _tensors_of(root: nn.Module, name: str, operands: set[str]) -> dict[str, Tensor]:
    """What a layer holds, if it is what an operation reads and no more; else {}."""
    if not name:
        return {}
    holder = root.get_submodule(name)
    slots = {**holder._parameters, **holder._buffers}
    tensors = {slot: tensor for slot, tensor in slots.items() if tensor is not None}
    fits = operands <= tensors.keys() <= operands | {COUNTER} and not holder._modules
    return tensors if fits else {}


def _linear(values: Mapping[str, Any]) -> nn.Module:
    outputs, inputs = values["weight"].shape
    return nn.Linear(inputs, outputs, values["bias"] is not None)


def _conv2d(values: Mapping[str, Any]) -> nn.Module | None:
    weight, padding = values["weight"], values["padding"]
    if weight.dim() != 4 or values.get("transposed"):
        return None
    return nn.Conv2d(
        weight.shape[1] * values["groups"],
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=_pair(values["stride"]),
        padding=padding if isinstance(padding, str) else _pair(padding),
        dilation=_pair(values["dilation"]),
        groups=values["groups"],
        bias=values["bias"] is not None,
    )


def _batch_norm(values: Mapping[str, Any]) -> nn.Module | None:
    like = values["weight"] if values["weight"] is not None else values["running_mean"]
    dimensions = getattr(values["input"], "ndim", 0)
    kind = {4: nn.BatchNorm2d, 3: nn.BatchNorm1d, 2: nn.BatchNorm1d}.get(dimensions)
    if kind is None or like is None or values["momentum"] is None:
        return None
    return kind(
        len(like),
        eps=values["eps"],
        momentum=values["momentum"],
        affine=values["weight"] is not None,
        track_running_stats=values["running_mean"] is not None,
    )


def _group_norm(values: Mapping[str, Any]) -> nn.Module:
    return nn.GroupNorm(values["num_groups"], len(values["weight"]), eps=values["eps"])


def _layer_norm(values: Mapping[str, Any]) -> nn.Module:
    shape = [int(n) for n in values["normalized_shape"]]
    return nn.LayerNorm(shape, eps=values["eps"], bias=values["bias"] is not None)


def _pool(values: Mapping[str, Any]) -> nn.Module:
    stride = values["stride"] or values["kernel_size"]
    sizes = (values["kernel_size"], stride, values["padding"], values["dilation"])
    kernel, step, padding, dilation = map(_pair, sizes)
    return nn.MaxPool2d(kernel, step, padding, dilation, ceil_mode=values["ceil_mode"])


def _pair(numbers: Sequence[int] | int) -> tuple[int, int]:
    both = [numbers] if isinstance(numbers, int) else list(numbers)
    return (both[0], both[-1])


_AFFINE = ("weight", "bias")
_STATISTICS = ("running_mean", "running_var")
_LAYERS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], nn.Module | None]]] = {
    "aten::linear": (_AFFINE, _linear),
    "aten::conv2d": (_AFFINE, _conv2d),
    "aten::convolution": (_AFFINE, _conv2d),
    "aten::_convolution": (_AFFINE, _conv2d),
    "aten::batch_norm": ((*_AFFINE, *_STATISTICS), _batch_norm),
    "aten::group_norm": (_AFFINE, _group_norm),
    "aten::layer_norm": (_AFFINE, _layer_norm),
    "aten::prelu": (("weight",), lambda values: nn.PReLU(len(values["weight"]))),
    "aten::relu": ((), lambda values: nn.ReLU()),
    "aten::leaky_relu": ((), lambda values: nn.LeakyReLU(values["negative_slope"])),
    "aten::hardtanh": ((), lambda values: nn.Hardtanh(values["min_val"], values["max_val"])),
    "aten::hardsigmoid": ((), lambda values: nn.Hardsigmoid()),
    "aten::max_pool2d": ((), _pool),
}
"""Operation → names of the tensors that its layer holds, and what builds the layer."""
