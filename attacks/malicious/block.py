"""A fully connected block that a malicious server puts in front of a network.

image → rows · image + bias → activation → columns → image + result. For a row that one image alone
activates, weight gradient ÷ bias gradient is that image.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from fedaudit.attacks.adaptive.assumptions import how_adaptive
from fedaudit.attacks.adaptive.probing import adapt_to
from fedaudit.attacks.gathering.evidence import Evidence
from fedaudit.attacks.gathering.gather import gather
from fedaudit.core.errors import AttackError, ConfigError, UnknownNameError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.protocols import Progress
from fedaudit.core.reconstruction import NOT_RECOVERED, Reconstruction
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.facenet import FaceNet, criterion_of
from fedaudit.models.named_network import create_network

NEEDS = frozenset({Knowledge.MODEL, Knowledge.BASIC, Knowledge.AUXILIARY, Knowledge.MANIPULATION})
"""What an attack must know that sends another model, set up on faces of its own."""
FACTORY = "fedaudit.attacks.malicious.block:with_block"
FRONT = "block_in_front"
Activation = Literal["relu", "step"]
FITS = 1e-3
"""Relative error of a row's bias gradient at which an image and a label explain it."""


class Block(nn.Module):
    """Images `[N, C, H, W]` in [0, 1] → images of that shape, with a trace of what the rows read.

    Args:
        shape: `(C, H, W)`.
        rows: K.
        activation: "relu", or "step": max(0, min(1, ·)), which is flat below and above.
    """

    def __init__(self, shape: tuple[int, int, int], rows: int, activation: Activation) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        self.shape = shape
        self.read = nn.Linear(size, rows)
        self.activation: nn.Module = nn.ReLU() if activation == "relu" else nn.Hardtanh(0.0, 1.0)
        self.write = nn.Linear(rows, size, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """`[N, C, H, W]` → `[N, C, H, W]`."""
        traces: Tensor = self.write(self.activation(self.read(images.flatten(1))))
        return images + traces.view(-1, *self.shape)


class BehindBlock(nn.Module):
    """Any network behind a `Block`; its parameters and buffers keep their names.

    Args:
        network: Its modules are shared, not copied.
        block: Stands in front.
    """

    network: nn.Module

    def __init__(self, network: nn.Module, block: Block) -> None:
        super().__init__()
        # The same dictionaries: what a functional call replaces in one is replaced in the other.
        self._parameters, self._buffers = network._parameters, network._buffers
        self._modules = {**network._modules, FRONT: block}
        # Not registered, so that each parameter has one name, the network's own.
        object.__setattr__(self, "network", network)

    def forward(self, images: Tensor) -> Tensor:
        """Scores `[N, K]` of `[N, C, H, W]`."""
        scores: Tensor = self.network(self.get_submodule(FRONT)(images))
        return scores

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The network's own loss, else cross-entropy."""
        loss: Tensor = criterion_of(self.network)(scores, labels)
        return loss

    def train(self, mode: bool = True) -> Self:
        """Also for modules that look at the network's own mode."""
        self.network.training = mode
        return super().train(mode)


def with_block(
    *,
    network: str,
    arguments: Mapping[str, Any],
    rows: int,
    activation: Activation = "relu",
    classes: int,
    image_size: int,
) -> nn.Module:
    """The registered `network` behind a `Block` of `rows`; all other parameters keep their names.

    Raises:
        UnknownNameError: No such activation.
    """
    if activation not in get_args(Activation):
        raise UnknownNameError("activation", activation, get_args(Activation))
    inner = {**arguments, "classes": classes, "image_size": image_size}
    model = create_network(network, inner)
    block = Block(_shape(model, image_size), rows, activation)
    if not isinstance(model, FaceNet) or not isinstance(model.body, nn.Sequential):
        return BehindBlock(model, block)
    # Children keep their names, so that defenses that name parameters go on working.
    model.body = nn.Sequential(OrderedDict([("block", block), *model.body.named_children()]))
    return model


def put_in_front(
    model: ModelSpec, rows: int, activation: Activation = "relu"
) -> tuple[ModelSpec, nn.Module]:
    """The honest network with a block of `rows` in front, to be filled (`block_state`).

    Raises:
        ConfigError: The architecture does not state `classes` and `image_size`.
    """
    inner = dict(model.arguments)
    if not {"classes", "image_size"} <= inner.keys():
        raise ConfigError(
            "a block in front must know the image's size: state classes and image_size among the "
            "arguments of the network."
        )
    sizes = {key: inner.pop(key) for key in ("classes", "image_size")}
    arguments = {"network": model.factory, "arguments": inner, "rows": rows} | sizes
    spec = replace(model, factory=FACTORY, arguments={**arguments, "activation": activation})
    return spec, build(spec)


def image_shape(model: ModelSpec, network: nn.Module) -> tuple[int, int, int]:
    """`(C, H, W)` of a network's images; a ConfigError where the architecture does not state it."""
    size = model.arguments.get("image_size")
    if not isinstance(size, int):
        raise ConfigError(
            "what a malicious server sends depends on the size of the images: state image_size "
            "among the arguments of the network."
        )
    return _shape(network, size)


def block_state(network: nn.Module) -> dict[str, Tensor]:
    """The parameters of a network's block under the names they have in the network."""
    prefix, block = find_block(network)
    return {prefix + name: value for name, value in parameters_of(block).items()}


def find_block(network: nn.Module) -> tuple[str, Block]:
    """What the names of the block's parameters start with, and the block in front of a network.

    Raises:
        AttackError: There is none.
    """
    for name, module in network.named_modules():
        if isinstance(module, Block):
            return f"{name}.", module
    raise AttackError(
        "this update was made with an honest model, and the attack reads what its own block "
        "wrote: capture it with the attack's broadcast (threat models F to H)."
    )


@dataclass(frozen=True)
class ReadOut:
    """The rows and images that the gradient of a malicious block gives away.

    Attributes:
        rows: `[M ≤ N]`, which of them hold an image.
        images: `[M, C, H, W]`, the most certain first.
        biases: `[M]`, the gradients of these rows' biases.
        certain: How many of the images count as found.
    """

    rows: Tensor
    images: Tensor
    biases: Tensor
    certain: int


Read = Callable[[Block, Tensor, Tensor, Evidence], ReadOut]
"""Reads a block's rows, from the gradients of their weights `[K, F]` and biases `[K]`."""


def read_batch(seen: Observation, read: Read, progress: Progress | None) -> Reconstruction:
    """The batch behind an update of a network with a block in front, whose rows `read` reads."""
    start = time.process_time()
    evidence = gather(seen)
    prefix, block = find_block(evidence.model)
    rows = [evidence.target.get(f"{prefix}read.{name}") for name in ("weight", "bias")]
    if rows[0] is None or rows[1] is None:
        raise AttackError(
            "the gradient of the block in front was not shared, and the attack reads nothing else: "
            "use an attack on what was shared, such as gan_inversion."
        )
    out = read(block, rows[0], rows[1], evidence)
    labels = torch.full((len(out.images),), -1, device=out.images.device)
    if scale_is_known(seen):
        columns = block.write.weight.detach().T[out.rows].reshape(-1, *evidence.shape)
        labels = label_images(evidence, out.images, columns, out.biases)
    images, labels = fill_up(evidence, out.images, labels)
    objective = 1 - out.certain / evidence.count
    if progress:
        progress(1, 1, objective)
    return Reconstruction(
        images=images,
        labels=labels,
        objective=objective,
        seconds=time.process_time() - start,
        closed_form=True,
        adaptive=how_adaptive(seen, exact=True),
    )


def label_images(
    evidence: Evidence, images: Tensor, directions: Tensor, observed: Tensor
) -> Tensor:
    """Which label goes with which of the images `[M, C, H, W]`; `[M]`, -1 where none fits.

    What arrives at a row from an image of label y is the slope of the loss along that row's column
    (`directions` `[M, C, H, W]`). It is computed for every y and compared with the row's bias
    gradient (`observed` `[M]`, at its true scale). If none fits, the row was driven by more than
    one image; so a label is also a proof that the image is exact.
    """
    unknown = torch.full((len(images),), -1, device=images.device)
    if evidence.labels is None or not len(images):
        return unknown
    criterion = criterion_of(evidence.model)
    tangent: Any = torch.func.jvp(_after_block(evidence.model), (images,), (directions,))
    scores, slopes = (tensor.detach() for tensor in tangent)
    predictions = []
    for label in range(scores.shape[1]):
        leaf = scores.clone().requires_grad_()
        loss = criterion(leaf, torch.full_like(unknown, label)) * len(images)
        (grad,) = torch.autograd.grad(loss, leaf)
        predictions.append((grad * slopes).sum(1) / evidence.count)
    error = (torch.stack(predictions, 1) - observed[:, None]).abs() / observed.abs()[:, None]
    least, best = error.min(1)
    return torch.where(least < FITS, best, unknown)


def scale_is_known(seen: Observation) -> bool:
    """Whether the update is the exact mean gradient: one step, and nothing clipped or noised it."""
    adaptation = adapt_to(seen)
    if seen.defense is None or not adaptation.exact or adaptation.scaled:
        return False
    update, training = seen.update, seen.training
    one_step = training is not None and training.steps == 1
    return update is not None and (update.kind == "gradient" or one_step)


def fill_up(evidence: Evidence, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """As many images as the batch has: even gray without a label stands for what is not known."""
    missing = evidence.count - len(images)
    gray = images.new_full((missing, *evidence.shape), NOT_RECOVERED)
    unknown = labels.new_full((missing,), -1)
    return torch.cat([images, gray]).clamp(0, 1).cpu(), torch.cat([labels, unknown]).cpu()


def _shape(body: nn.Module, image_size: int) -> tuple[int, int, int]:
    channels = next((m.in_channels for m in body.modules() if isinstance(m, nn.Conv2d)), 3)
    return channels, image_size, image_size


def _after_block(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Scores as a function of what leaves the block's rows: the block itself with a free trace."""
    _, block = find_block(model)

    def scores(images: Tensor) -> Tensor:
        with torch.no_grad():
            traces = block(images.detach()) - images.detach()
        with block.register_forward_hook(lambda *_: images + traces):
            result: Tensor = model(images)
        return result

    return scores
