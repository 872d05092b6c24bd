"""Build a network from a TorchScript or torch.export file that the user names."""

import copy
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from fedaudit.core.errors import UsageError, first_line
from fedaudit.files import asset_sources
from fedaudit.models.functional import functional_call
from fedaudit.models.layer_recovery import recover_layers
from fedaudit.models.program_file import SUFFIXES, read_program

FACTORY = f"{__name__}:from_file"
TRIED = (2, 3)
"""Numbers of images that a network is tried on."""


def is_file(model: str) -> bool:
    """Whether a model's name is that of a file, by its ending."""
    return Path(model).suffix in SUFFIXES


def digest_of(path: str) -> str:
    """SHA-256 of a model file, in hexadecimal; a `UsageError` where there is none."""
    try:
        return asset_sources.sha256(Path(path).expanduser())
    except OSError as error:
        raise UsageError(f"there is no model file {path}. Check the path.") from error


def from_file(
    *,
    path: str,
    image_shape: Sequence[int] | None = None,
    sha256: str = "",
    classes: int | None = None,
) -> nn.Module:
    """The network in a TorchScript (`.ts`, `.pt`) or torch.export (`.pt2`) file, in torch's layers.

    Nothing is unpickled. What the file computes is run all the same: only the user may name it.

    Args:
        path: Of the file.
        image_shape: `(C, H, W)`; TorchScript does not say it.
        sha256: Of the file as it was; "" takes it as it is.
        classes: How many the network must tell apart at least; a head of more is left as it is.

    Raises:
        UsageError: There is no such file, it is another one than it was, or holds no network that
            gives scores `[N, K]` for any number of images, or one of too few classes.
    """
    digest = digest_of(path)
    if sha256 not in {"", digest}:
        raise UsageError(
            f"the model file {path} has changed since this audit began: use a new --output."
        )
    shape = tuple(int(n) for n in image_shape) if image_shape is not None else None
    network = copy.deepcopy(_network(str(Path(path).expanduser()), digest, shape))
    if classes is not None and shape is not None:
        with torch.no_grad():
            scores = network.eval()(torch.zeros(TRIED[0], *shape)).shape[1]
        if scores < classes:
            raise UsageError(
                f"the network in {path} tells {scores} classes apart, and clients have {classes}: "
                f"save it with a head of {classes} or more, or name its factory."
            )
    return network


@lru_cache(maxsize=1)  # every attack of a run builds the same network, and tracing takes seconds
def _network(path: str, digest: str, shape: tuple[int, ...] | None) -> nn.Module:
    return recover(read_program(Path(path), {}), path, shape)


def recover(program: Any, path: str, shape: tuple[int, ...] | None) -> nn.Module:
    """The network of a program in torch's layers, in evaluation mode.

    Args:
        program: A TorchScript module in evaluation mode, or a torch.export program, on the CPU.
        path: What errors call it.
        shape: `(C, H, W)`; None of a program that says it.

    Raises:
        UsageError: It holds no network that gives scores `[N, K]` for any number of images.
    """
    is_script = isinstance(program, nn.Module)
    if is_script and shape is None:
        raise UsageError(
            f"{path} is TorchScript, which does not say how large its images are: state "
            "image_shape when recording, or fedaudit.recording(CAPTURE, image_shape=(3, H, W))."
        )
    run: Any = program if is_script else program.module()
    shape = shape or _shape_of(program)
    parameters = dict(run.named_parameters())
    state = {**parameters, **dict(run.named_buffers())}
    if not parameters:
        raise UsageError(
            f"{path} has no parameters by name: it was frozen or quantized. Save it again without, "
            "or name its factory: --model package.module:factory."
        )
    if shape is None:
        raise UsageError(
            f"{path} takes no images [N, C, H, W]. Export the network that takes them."
        )
    try:
        if is_script:
            graph, constants = _trace(program, state, shape)
        else:
            inputs = [n for n in run.graph.nodes if n.op == "placeholder"]
            if len(inputs) != 1:
                raise UsageError(
                    f"the program takes {len(inputs)} tensors; needed is one, the images."
                )
            graph, constants = run.graph, _constants(run)
        copies = {n: tensor.detach().clone() for n, tensor in state.items()}
        copies |= {n: nn.Parameter(copies[n]) for n in parameters}
        network = recover_layers(graph, {**constants, **copies})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except Exception as error:  # a stranger's program may raise anything
        raise UsageError(
            f"{path} cannot be followed: {_reason(error)}. Name its factory instead: --model "
            "package.module:factory."
        ) from error
    _check(path, run, network, shape, not is_script and _trains(program))
    return network


def _trace(
    script: nn.Module, state: dict[str, Tensor], shape: Sequence[int]
) -> tuple[fx.Graph, dict[str, Tensor]]:
    """The operations that a TorchScript module runs, for any number of images."""
    from torch.fx.experimental.proxy_tensor import make_fx  # noqa: PLC0415 - slow

    modules = dict(script.named_modules())
    slots = {n: (modules[n.rpartition(".")[0]], n.rpartition(".")[2]) for n in state}

    def put(tensors: Sequence[Tensor]) -> None:
        for (module, slot), tensor in zip(slots.values(), tensors, strict=True):
            module._c.setattr(slot, tensor)

    def run(images: Tensor, *tensors: Tensor) -> Any:
        put(tensors)
        try:
            with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                return script(images)
        finally:
            put(list(state.values()))

    images = torch.zeros(TRIED[0], *shape)
    try:
        with torch.no_grad():
            script(images)
    except Exception as error:
        raise UsageError(
            f"it does not take {TRIED[0]} images of {list(shape)}: {_reason(error)}. Check "
            "image_shape, and save it for any number of images."
        ) from error
    program = make_fx(run, tracing_mode="symbolic", pre_dispatch=True)(images, *state.values())
    names, constants = iter(state), _constants(program)
    graph: fx.Graph = program.graph
    for node in [n for n in graph.nodes if n.op == "placeholder"][1:]:
        with graph.inserting_before(node):
            read = graph.create_node("get_attr", next(names))
        read.meta = node.meta
        node.replace_all_uses_with(read)
        graph.erase_node(node)
    return graph, constants


def _constants(module: fx.GraphModule) -> dict[str, Tensor]:
    """Tensors that the graph reads and that are neither parameters nor buffers."""
    constants: dict[str, Tensor] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            holder, _, last = str(node.target).rpartition(".")
            value = getattr(module.get_submodule(holder), last, None)
            if isinstance(value, Tensor):
                constants[str(node.target)] = value.detach()
    return constants


def _shape_of(program: Any) -> tuple[int, ...] | None:
    """Shape of an image that a program was exported with."""
    names = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            value = node.meta.get("val")
            if isinstance(value, Tensor) and value.dim() == 4:
                return tuple(int(n) for n in value.shape[1:])
    return None


def _trains(program: Any) -> bool:
    """Whether a program was exported in training mode, as its batch norm says."""
    return any(
        str(node.target) == "aten.batch_norm.default" and node.args[5] is True
        for node in program.graph.nodes
    )


def _check(
    path: str, run: nn.Module, network: nn.Module, shape: Sequence[int], training: bool
) -> None:
    """Refuse what gives no scores of several images, or other ones than the program itself."""
    for count in TRIED:
        images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))
        try:
            scores = _scores(network, images, training)
        except Exception as error:  # a stranger's program may raise anything
            raise UsageError(
                f"{path} does not take {count} images of {list(shape)}: {_reason(error)}. Save "
                "it with a free number of images (torch.export.export(…, "
                "dynamic_shapes=({0: Dim('n')},))), and check image_shape."
            ) from error
        if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != count:
            what = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise UsageError(
                f"{path} gives {what} for {count} images; needed are scores [N, classes]."
            )
        try:
            own = run(images)
        except Exception:  # it takes the number of images that it was saved with, and no other  # nosec B112
            continue
        if not torch.allclose(own, scores, rtol=1e-3, atol=1e-4):
            raise UsageError(
                f"{path} could not be put together from its operations: other scores come out. "
                "Save it in evaluation mode, or name its factory: --model package.module:factory."
            )


@torch.no_grad()
def _scores(network: nn.Module, images: Tensor, training: bool) -> Any:
    buffers = {name: tensor.clone() for name, tensor in network.named_buffers()}
    network.train(training)
    try:
        return functional_call(network, buffers, (images,))
    finally:
        network.eval()


def _reason(error: Exception) -> str:
    """In one line: TorchScript puts it last, behind where in the program it was."""
    *_, last = str(error).strip().split("\n")
    line = first_line(error)
    return (last[:300] if "TorchScript interpreter" in line else line).strip().rstrip(".")
