"""A start from public faces, for methods whose server sends a pre-trained network."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from fedaudit.core.errors import DataError
from fedaudit.core.observation import ModelSpec
from fedaudit.core.registry import create
from fedaudit.core.seeds import seed_torch
from fedaudit.data.face_set import FaceSet
from fedaudit.data.photo_hashes import image_hashes
from fedaudit.federation.contrastive import draw_view
from fedaudit.files.cache import key_of, load_or_learn
from fedaudit.models.batch_norm import batch_norm_layers, running_statistics
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.class_head import find_class_head
from fedaudit.models.facenet import FaceNet, criterion_of

VERSION = 3
"""Raise it whenever the same settings would now give another start."""
BATCH = 32
LEARNING_RATE = 0.02
LONGEST = 5.0
"""Norm to which gradients are clipped behind batch norm, as ArcFace's training code does."""


def pretrain(
    spec: ModelSpec, server: Mapping[str, Tensor], *, public: str, steps: int, seed: int
) -> dict[str, Tensor]:
    """`server` with the parameters that central training on public faces gives.

    By the network's own loss, on all people of the set. SGD with momentum 0.9, 32 photos a step,
    learning rate 0.02 that falls to 0. Each photo is mirrored, shifted and relit at random, and
    gray half of the time, as clients may have either: without that, invented faces teach little
    about real ones. A network with batch norm trains in training mode, its gradients clipped to
    length 5, and its running statistics go with the parameters. The head is thrown away. The rest
    is kept in the user's cache folder, under a name that photos and all settings decide.

    Args:
        spec: Any network, with its `image_size`; its `classes` are replaced.
        server: Parameters and running statistics to start from; those of the layer that gives the
            scores are left as they are.
        public: Registered face set, of other people than the federation's.
        steps: Of training; 0 leaves the random start.
        seed: Of the start, the order and the changes.
    """
    if not steps:
        return dict(server)
    text = json.dumps([spec.factory, dict(spec.arguments)], sort_keys=True, default=str)
    weights = _kept(text, public, steps, seed)
    return {
        name: weights[name] if name in weights and weights[name].shape == value.shape else value
        for name, value in server.items()
    }


def check_apart(faces: FaceSet, public: str) -> None:
    """Refuse to teach a network photos on which it is audited, whatever their set is called.

    Photos are the same where their pixels are, at the size of `faces`; other crops of a photo are
    not noticed.

    Raises:
        DataError: Says how many photos are in both sets.
    """
    known = _hashes(public, faces.images.shape[-1])
    if common := sum(mark in known for mark in image_hashes(faces.images)):
        raise DataError(
            f"{common} of the {len(faces.images)} audited photos are in {public!r}, on which the "
            "network would be pre-trained. Name other faces by public."
        )


@lru_cache(maxsize=4)
def _hashes(public: str, size: int) -> frozenset[str]:
    faces: FaceSet = create("data", public, {"size": size})
    return frozenset(image_hashes(faces.images))


@lru_cache(maxsize=4)
def _kept(text: str, public: str, steps: int, seed: int) -> dict[str, Tensor]:
    factory, arguments = json.loads(text)
    faces: FaceSet = create("data", public, {"size": arguments["image_size"]})
    classes = len(set(faces.people))
    spec = ModelSpec(factory, {**arguments, "classes": classes})
    model = build(spec, seed=seed)
    start = parameters_of(model)
    people = hashlib.sha256(repr(faces.people).encode()).hexdigest()
    facts = ("pretrained", VERSION, text, people, steps, seed, torch.__version__)
    key = key_of({"photos": faces.images, **start}, *facts)
    head = _head(model, tuple(faces.images.shape[1:]))
    body = [name for name in start if name not in head]
    what = f"network pretrained on {public}"
    return load_or_learn(
        key, lambda: _train(model, faces, steps, seed, head), None, what=what, valid=body
    )


def _head(model: nn.Module, shape: Sequence[int]) -> frozenset[str]:
    """Names of the parameters that give the scores: `head.…`, or as found in a stranger's."""
    if isinstance(model, FaceNet):
        return frozenset(n for n, _ in model.named_parameters() if n.startswith("head."))
    head = find_class_head(model, shape)
    names = () if head is None else (head.name, head.bias, head.length)
    return frozenset(name for name in names if name is not None)


def _train(
    model: nn.Module, faces: FaceSet, steps: int, seed: int, head: Collection[str]
) -> dict[str, Tensor]:
    names = sorted(set(faces.people))
    labels = torch.tensor([names.index(person) for person in faces.people])
    criterion, batch_norm = criterion_of(model), bool(batch_norm_layers(model))
    model.train(batch_norm)  # otherwise as it is used: nothing is drawn
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, LEARNING_RATE, momentum=0.9)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / steps, total_iters=steps)
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed)  # of dropout
        for _ in range(steps):
            if len(order) < min(BATCH, len(labels)):
                order = torch.randperm(len(labels), generator=generator)
            which, order = order[:BATCH], order[BATCH:]
            optimizer.zero_grad()
            loss = criterion(model(_vary(faces.images[which], generator)), labels[which])
            torch.autograd.backward(loss)
            if batch_norm:
                nn.utils.clip_grad_norm_(parameters, LONGEST)
            optimizer.step()
            falling.step()
    weights = {**parameters_of(model), **running_statistics(model)}
    return {name: value for name, value in weights.items() if name not in head}


def _vary(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored and gray by chance, shifted and relit."""
    mirror, gray = torch.rand(2, len(images), 1, 1, 1, generator=generator) < 0.5
    images = torch.where(mirror, images.flip(3), images)
    images = torch.where(gray, images.mean(1, keepdim=True), images)
    return draw_view(images, generator)
