"""Networks and training loops of every day, small: what attacks must run on, or say why not."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.resnet import Bottleneck as WideBlock
from torchvision.ops import StochasticDepth

import fedaudit
from fedaudit.core.errors import AttackError, ConfigError, KnowledgeError
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.protocols import ManipulatingAttack
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.shared import Update
from fedaudit.models.recognition_bodies import Bottleneck, ImprovedResidual
from fedaudit.models.zoo import build, mobilefacenet

CLASSES = 12
SHAPE = (3, 32, 32)


class FaceHead(nn.Module):
    """A backbone and ArcFace as a bare parameter, its margin by `one_hot`, as training code has it.

    Args:
        backbone: Images → `[N, width]`.
        width: Of the embedding.
        classes: People.
    """

    def __init__(self, backbone: nn.Module, width: int, classes: int = CLASSES) -> None:
        super().__init__()
        self.backbone = backbone
        self.centers = nn.Parameter(torch.randn(classes, width) * 0.1)

    def forward(self, images: Tensor) -> Tensor:
        """Cosines `[N, classes]`."""
        return F.linear(F.normalize(self.backbone(images)), F.normalize(self.centers))

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """ArcFace's loss: scale 16, margin 0.3."""
        inside = scores.clamp(-1 + 1e-6, 1 - 1e-6)
        true = F.one_hot(labels, scores.shape[1]).bool()
        return F.cross_entropy(16 * torch.where(true, (inside.acos() + 0.3).cos(), scores), labels)


def iresnet() -> nn.Module:
    """IResNet with two stages: flattened map, dropout, fully connected layer, BatchNorm1d."""
    stem = (nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
    blocks = (ImprovedResidual(8, 16, 2, "batch"), ImprovedResidual(16, 32, 2, "batch"))
    body = (*blocks, nn.BatchNorm2d(32))
    end = (nn.Flatten(), nn.Dropout(0.2), nn.Linear(32 * 64, 24), nn.BatchNorm1d(24))
    return FaceHead(nn.Sequential(*stem, *body, *end), 24)


def mobile_face() -> nn.Module:
    """MobileFaceNet with two bottlenecks: depthwise convolutions down to a 1×1 map."""
    stem = (nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16))
    body = (Bottleneck(16, 16, 1, 32, "batch"), Bottleneck(16, 32, 2, 32, "batch"))
    whole = nn.Conv2d(32, 32, 8, groups=32, bias=False)
    end = (whole, nn.BatchNorm2d(32), nn.Conv2d(32, 24, 1, bias=False), nn.BatchNorm2d(24))
    return FaceHead(nn.Sequential(*stem, *body, *end, nn.Flatten()), 24)


def adaface() -> nn.Module:
    """The zoo's MobileFaceNet, whole, with AdaFace."""
    return mobilefacenet(classes=CLASSES, image_size=SHAPE[1], head="adaface")


class Lora(nn.Module):
    """A frozen fully connected layer and a low-rank adapter beside it."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.base = nn.Linear(inside, outside).requires_grad_(False)
        self.down = nn.Linear(inside, 4, bias=False)
        self.up = nn.Linear(4, outside, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs, moved by the adapter's."""
        outputs: Tensor = self.base(x) + self.up(self.down(x))
        return outputs


def lora() -> nn.Module:
    """A frozen convolution, two adapted layers, a new head."""
    frozen = nn.Conv2d(3, 8, 4, 4).requires_grad_(False)
    layers = (frozen, nn.GELU(), nn.Flatten(), Lora(512, 48), nn.GELU(), Lora(48, 24))
    return nn.Sequential(*layers, nn.GELU(), nn.Linear(24, CLASSES))


def vit_lora() -> nn.Module:
    """A frozen vision transformer whose perceptrons have adapters; a new head."""
    network = vit().requires_grad_(False)
    for block in network.get_submodule("encoder.layers").children():
        perceptron: Any = block.get_submodule("mlp")
        perceptron[0] = Lora(32, 64)
    network.get_submodule("heads").requires_grad_(True)
    return network


def frozen_backbone() -> nn.Module:
    """ResNet of which only the new head is trained."""
    network: nn.Module = residual(BasicBlock).requires_grad_(False)
    network.get_submodule("fc").requires_grad_(True)
    return network


def residual(block: type[BasicBlock] | type[WideBlock]) -> Any:
    """torchvision's ResNet with one block a stage."""
    return ResNet(block, [1, 1, 1, 1], num_classes=CLASSES)


class Unused(nn.Module):
    """A network with a layer that its forward pass does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(7, 5)
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.second = nn.Conv2d(8, 16, 3, 2, 1)
        self.last = nn.Linear(16 * 64, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        maps = torch.sigmoid(self.second(torch.sigmoid(self.first(images))))
        scores: Tensor = self.last(maps.flatten(1))
        return scores


class Shared(nn.Module):
    """A convolution that is called twice, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.twice = nn.Conv2d(8, 8, 3, 1, 1)
        self.one, self.two = nn.Linear(512, 32), nn.Linear(32, 32)
        self.three = nn.Linear(32, 32)
        self.three.weight = self.two.weight
        self.last = nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        maps = F.relu(self.twice(F.relu(self.twice(F.relu(self.first(images))))))
        rows = F.relu(self.one(F.max_pool2d(maps, 2).flatten(1)))
        scores: Tensor = self.last(F.relu(self.three(F.relu(self.two(rows)))))
        return scores


class Dropped(nn.Module):
    """Dropout as a layer and as a function, and a branch under stochastic depth."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.depth, self.drop = StochasticDepth(0.5, "row"), nn.Dropout(0.5)
        self.embedding, self.last = nn.Linear(8 * 64, 24), nn.Linear(24, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        maps = F.gelu(self.first(images))
        maps = maps + self.depth(F.gelu(self.branch(maps)))
        rows = self.embedding(self.drop(F.avg_pool2d(maps, 2).flatten(1)))
        scores: Tensor = self.last(F.dropout(rows, 0.2, self.training))
        return scores


def convnext() -> nn.Module:
    """torchvision's ConvNeXt, two stages."""
    stages = [CNBlockConfig(12, 24, 1), CNBlockConfig(24, None, 1)]
    network: nn.Module = ConvNeXt(stages, stochastic_depth_prob=0.1, num_classes=CLASSES)
    return network


def vit() -> nn.Module:
    """torchvision's vision transformer, two layers."""
    made: Any = models.VisionTransformer(32, 8, 2, 2, 32, 64, dropout=0.1, num_classes=CLASSES)
    nn.init.normal_(made.heads[0].weight, std=0.1)  # it starts at 0, which tells nothing
    network: nn.Module = made
    return network


def swin() -> nn.Module:
    """torchvision's Swin transformer, two stages."""
    sizes = ([4, 4], 16, [2, 2], [2, 4], [4, 4])
    network: nn.Module = models.SwinTransformer(*sizes, num_classes=CLASSES)
    return network


@dataclass(frozen=True)
class Network:
    """How a client builds and runs a network.

    Attributes:
        make: Builds it; its parameters are drawn from torch's global generator.
        mode: In which batch norm trains.
        mixed: The client trains under autocast to bfloat16.
    """

    make: Callable[[], nn.Module]
    mode: Literal["train", "eval"] = "train"
    mixed: bool = False


NETWORKS: Mapping[str, Network] = {
    "resnet18": Network(lambda: residual(BasicBlock)),
    "resnet18_eval": Network(lambda: residual(BasicBlock), "eval"),
    "resnet50": Network(lambda: residual(WideBlock)),
    "resnet50_eval": Network(lambda: residual(WideBlock), "eval"),
    "iresnet_arcface": Network(iresnet),
    "mobile_face": Network(mobile_face),
    "adaface": Network(adaface),
    "mobilenet": Network(lambda: models.mobilenet_v3_small(num_classes=CLASSES, width_mult=0.5)),
    "convnext": Network(convnext),
    "vit": Network(vit),
    "swin": Network(swin),
    "frozen_backbone": Network(frozen_backbone, "eval"),
    "lora": Network(lora),
    "vit_lora": Network(vit_lora),
    "unused_layer": Network(Unused),
    "dropout_depth": Network(Dropped),
    "weight_sharing": Network(Shared),
    "mixed_precision": Network(Unused, mixed=True),
}
"""By name; those that torchvision has are its own code with fewer blocks."""

LOOPS: Mapping[str, LocalTraining | None] = {
    "gradient": None,
    "epochs": LocalTraining(lr=0.02, steps=4, batch_size=2, momentum=0.9),
    "adam": LocalTraining(lr=1e-3, steps=2, batch_size=4, optimizer="adam"),
}
"""Local training by name; None shares one gradient."""

LABELS = {1: (5,), 4: (3, 3, 1, 7)}
"""Of batches of one and of four."""


def build_seeded(network: Network, seed: int = 0) -> nn.Module:
    """The network in its mode, its parameters by `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network.make()
    return model.train(network.mode == "train")


def photos(count: int, seed: int = 0) -> Tensor:
    """Smooth images `[count, 3, 32, 32]` in [0, 1]."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, SHAPE[1:], mode="bilinear")


def train_client(
    model: nn.Module, network: Network, loop: LocalTraining | None, images: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """What a client shares that trains a network as its owner wrote it: trained parameters only."""
    criterion: Any = getattr(model, "criterion", F.cross_entropy)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in trained.items()}
    optimizer = _optimizer(list(trained.values()), loop)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for which in _batches(len(images), loop):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=network.mixed):
                scores = model(images[which])
            criterion(scores.float(), labels[which]).backward()
            if loop is None:
                return {n: p.grad.clone() for n, p in trained.items() if p.grad is not None}
            optimizer.step()
    return {n: p.detach() - before[n] for n, p in trained.items()}


def _optimizer(parameters: list[nn.Parameter], loop: LocalTraining | None) -> torch.optim.Optimizer:
    if loop is not None and loop.optimizer == "adam":
        return torch.optim.Adam(parameters, loop.lr)
    loop = loop or LocalTraining()
    return torch.optim.SGD(parameters, loop.lr, momentum=loop.momentum)


def _batches(count: int, loop: LocalTraining | None) -> Iterator[list[int]]:
    size = count if loop is None else min(loop.batch_size, count)
    for step in range(1 if loop is None else loop.steps):
        first = step * size % count
        yield list(range(first, first + size))


SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "inverting_gradients": {"steps": 2, "polish": 1},
    "subspace_matching": {"steps": 2, "polish": 1, "complete_steps": 2},
    "gan_inversion": {
        "candidates": 2,
        "latent_steps": 1,
        "stage_steps": 1,
        "pixel_steps": 2,
        "rounds": 1,
        "solve_steps": 1,
    },
    "map_inversion": {"candidates": 2, "descent_steps": 2, "solve_steps": 1, "search_steps": 10},
    "liu_2021": {"steps": 2, "rounds": 1},
    "gias": {"latent_steps": 2, "weight_steps": 1},
    "ggl": {"generations": 1, "population": 4},
    "gifd": {"latent_steps": 2, "stages": [2], "stage_steps": 2},
    "gion": {"steps": 2, "width": 4},
    "dlg": {"steps": 1, "restarts": 2},
    "idlg": {"steps": 1},
    "grad_inversion": {"steps": 2, "restarts": 2},
    "analytic": {},
    "r_gap": {},
    "spear": {"samples": 300},
    "learned_inversion": {
        "faces": 8,
        "epochs": 1,
        "width": 32,
        "directions": 2,
        "hidden": 8,
        "cache": "off",
    },
    "feature_decoder": {"faces": 8, "epochs": 1, "width": 4, "refine_steps": 2, "cache": "off"},
    "template_inversion": {"limit": 1, "faces": 8, "components": 2, "steps": 1, "cache": "off"},
    "imprint": {"bins": 8},
    "trap_weights": {"rows": 8},
    "fishing": {"inverter": "inverting_gradients", "settings": {"steps": 2, "polish": 0}},
}
"""Of every registered attack: as little work as it takes to go all its ways."""


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    attack: str
    network: str
    loop: str
    batch: int

    @property
    def possible(self) -> bool:
        """Whether torch trains so: batch norm cannot in training mode on one image's 1×1 map."""
        size = self.batch if self.training is None else self.training.batch_size
        return size > 1 or NETWORKS[self.network].mode == "eval" or self.network in WITHOUT_NORM

    @property
    def training(self) -> LocalTraining | None:
        """How the client trains; None of a gradient."""
        loop, mode = LOOPS[self.loop], NETWORKS[self.network].mode
        if loop is None:
            return None
        return replace(loop, batch_norm=mode, batch_size=min(loop.batch_size, self.batch))


WITHOUT_NORM = frozenset(
    {
        "convnext",
        "vit",
        "swin",
        "lora",
        "vit_lora",
        "unused_layer",
        "dropout_depth",
        "weight_sharing",
        "mixed_precision",
    }
)
"""Networks without batch norm, whose batch may be one image in any mode."""

REFUSALS = (AttackError, KnowledgeError, ConfigError)
"""By which an attack may say why it does not run."""


def run_case(case: Case, seed: int = 0) -> Reconstruction:
    """Attack one update of a stock network through the library, or from a malicious server.

    Raises:
        AttackError, KnowledgeError, ConfigError: The attack says why it does not run.
    """
    network, method = NETWORKS[case.network], create("attacks", case.attack, SETTINGS[case.attack])
    images, labels = photos(case.batch), torch.tensor(LABELS[case.batch])
    model, kind = build_seeded(network), "gradient" if case.training is None else "delta"
    if isinstance(method, ManipulatingAttack):
        arguments = {"name": case.network, "classes": CLASSES, "image_size": SHAPE[1]}
        spec = ModelSpec(f"{__name__}:stock_network", arguments)
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        sent = {name: value.detach() for name, value in state.items()}
        spec, before = method.broadcast(spec, sent, generator=torch.Generator().manual_seed(seed))
        model = build(spec, before).train(network.mode == "train")
        update = train_client(model, network, case.training, images, labels)
        seen = Observation(
            model=spec,
            before=before,
            shared=(Update(kind, update, case.batch),),  # type: ignore[arg-type]
            image_shape=SHAPE,
            batch_size=case.batch,
            num_classes=CLASSES,
            training=case.training or LocalTraining(batch_size=case.batch, batch_norm=network.mode),
        )
        result: Reconstruction = method(seen, generator=torch.Generator().manual_seed(seed))
        return result
    update = train_client(build_seeded(network), network, case.training, images, labels)
    return fedaudit.attack(
        model,
        update,
        method,
        images=case.batch,
        image_shape=SHAPE,
        kind=kind,  # type: ignore[arg-type]
        training=case.training,
        seed=seed,
    )


def stock_network(*, name: str, classes: int, image_size: int) -> nn.Module:
    """A network of the table, for a spec that says what it is built for."""
    assert (classes, image_size) == (CLASSES, SHAPE[1])
    return NETWORKS[name].make()
