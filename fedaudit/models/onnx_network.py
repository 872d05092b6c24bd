"""Run the network of an ONNX file in torch: the dozen operations of common face networks."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedaudit.core.errors import AssetError
from fedaudit.files.onnx_file import OnnxGraph, OnnxNode, read_onnx

Inputs = Sequence[Tensor]
Settings = Mapping[str, Any]


class OnnxNetwork(nn.Module):
    """A convolutional network from an ONNX file, frozen, in evaluation mode; differentiable.

    Weights in blocks of 8-bit numbers (`DequantizeLinear`) become float32 once, when it is built.
    `forward` takes the graph's one input and gives its one output, or all of them in a tuple.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        """Fold constants and check that every operation is known.

        Raises:
            AssetError: The graph has an operation that this reader does not have, or no single
                input.
        """
        super().__init__()
        if unknown := sorted({n.op for n in graph.nodes} - set(_OPERATIONS)):
            raise AssetError(
                f"the ONNX network has operations that fedaudit cannot run: {', '.join(unknown)}. "
                "Bring it as TorchScript or as module:function instead."
            )
        self._outputs = graph.outputs
        self._constants: list[str] = []
        self._nodes: list[OnnxNode] = []
        values = dict(graph.weights)
        for node in graph.nodes:
            if all(name in values for name in node.inputs if name):
                values[node.outputs[0]] = _run(node, values)
            else:
                self._nodes.append(node)
        operands = {name for node in self._nodes for name in node.inputs}
        # Exporters list weights among the inputs, under the names that they had unquantized.
        inputs = [name for name in graph.inputs if name in operands - set(values)]
        if len(inputs) != 1:
            raise AssetError(f"the ONNX network has {len(inputs)} inputs, not one.")
        self._input = inputs[0]
        for name in sorted(operands & set(values)):
            # A buffer's name may hold no dot, so it is numbered.
            self.register_buffer(f"constant_{len(self._constants)}", values[name])
            self._constants.append(name)
        last = {name: k for k, node in enumerate(self._nodes) for name in node.inputs if name}
        self._used_up: list[list[str]] = [[] for _ in self._nodes]
        for name, number in last.items():
            if name not in self._outputs:
                self._used_up[number].append(name)
        self.eval()

    def forward(self, images: Tensor) -> Any:
        """Output of the network, whose meaning and shape are the file's."""
        values = {self._input: images}
        values |= {n: self.get_buffer(f"constant_{i}") for i, n in enumerate(self._constants)}
        for node, used_up in zip(self._nodes, self._used_up, strict=True):
            values[node.outputs[0]] = _run(node, values)
            for name in used_up:  # its memory serves what comes next
                del values[name]
        outputs = tuple(values[name] for name in self._outputs)
        return outputs if len(outputs) > 1 else outputs[0]


def load_onnx(file: Path) -> OnnxNetwork:
    """The network of an ONNX file.

    Raises:
        AssetError: It cannot be read, or uses what is not supported.
    """
    return OnnxNetwork(read_onnx(file))


def _run(node: OnnxNode, values: Mapping[str, Tensor]) -> Tensor:
    # An optional input that is left out last is simply not there; none is left out before others.
    return _OPERATIONS[node.op]([values[n] for n in node.inputs if n], node.settings)


def _convolve(inputs: Inputs, settings: Settings) -> Tensor:
    top, left, bottom, right = settings.get("pads", (0, 0, 0, 0))
    x, weight, *bias = inputs
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    return F.conv2d(
        x,
        weight,
        bias[0] if bias else None,
        stride=settings.get("strides", (1, 1)),
        padding=(top, left),
        dilation=settings.get("dilations", (1, 1)),
        groups=settings.get("group", 1),
    )


def _normalize(inputs: Inputs, settings: Settings) -> Tensor:
    x, weight, bias, mean, variance = inputs
    return F.batch_norm(x, mean, variance, weight, bias, eps=settings.get("epsilon", 1e-5))


def _dequantize(inputs: Inputs, settings: Settings) -> Tensor:
    """Blocks of `block_size` along an axis share a scale and a zero point."""
    values, scales, *zeros = inputs
    axis, block = settings.get("axis", 1), settings.get("block_size", 0)

    def spread(x: Tensor) -> Tensor:
        wide = x.repeat_interleave(block, axis) if block else x
        return wide.narrow(axis, 0, values.shape[axis]) if block else wide

    shift = spread(zeros[0]).float() if zeros else torch.zeros(())
    return (values.float() - shift) * spread(scales)


def _pool(inputs: Inputs, settings: Settings) -> Tensor:
    top, left, *_ = settings.get("pads", (0, 0))
    return F.max_pool2d(inputs[0], settings["kernel_shape"], settings["strides"], (top, left))


def _resize(inputs: Inputs, settings: Settings) -> Tensor:
    """Nearest neighbor by whole factors, the one kind that detectors use."""
    scales = inputs[-1].tolist()
    if settings.get("mode", "nearest") != "nearest" or any(s != int(s) for s in scales):
        raise AssetError("the ONNX network resizes its maps by interpolation: not supported.")
    return inputs[0].repeat_interleave(int(scales[2]), 2).repeat_interleave(int(scales[3]), 3)


def _multiply(inputs: Inputs, settings: Settings) -> Tensor:
    x, weight, *bias = inputs
    weight = weight if settings.get("transB") else weight.T
    return F.linear(x, weight, bias[0] if bias else None)


def _activate(inputs: Inputs, settings: Settings) -> Tensor:
    return F.prelu(inputs[0], inputs[1].flatten())


_OPERATIONS: Mapping[str, Callable[[Inputs, Settings], Tensor]] = {
    "Add": lambda x, _: x[0] + x[1],
    "BatchNormalization": _normalize,
    "Constant": lambda _, settings: settings["value"],
    "Conv": _convolve,
    "DequantizeLinear": _dequantize,
    "Dropout": lambda x, _: x[0],
    "Flatten": lambda x, settings: x[0].flatten(settings.get("axis", 1)),
    "Gemm": _multiply,
    "GlobalAveragePool": lambda x, _: x[0].mean((2, 3), keepdim=True),
    "MaxPool": _pool,
    "Mul": lambda x, _: x[0] * x[1],
    "PRelu": _activate,
    "Relu": lambda x, _: x[0].relu(),
    "Reshape": lambda x, _: x[0].reshape(x[1].tolist()),
    "Resize": _resize,
    "Sigmoid": lambda x, _: x[0].sigmoid(),
    "Sub": lambda x, _: x[0] - x[1],
    "Transpose": lambda x, settings: x[0].permute(settings["perm"]),
}
