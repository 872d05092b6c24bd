"""A start from public faces, for methods whose server sends a pre-trained network."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from fedaudit.core.observation import ModelSpec
from fedaudit.core.registry import create
from fedaudit.data.face_set import FaceSet
from fedaudit.federation.contrastive import changed
from fedaudit.files.cache import key_of, load_or_learn
from fedaudit.models.facenet import criterion_of
from fedaudit.models.zoo import build, parameters_of

VERSION = 2
"""Raise it whenever the same settings would now give another start."""
BATCH = 32
LEARNING_RATE = 0.02


def pretrained(
    spec: ModelSpec, server: Mapping[str, Tensor], *, public: str, steps: int, seed: int
) -> dict[str, Tensor]:
    """`server` with the parameters that central training on public faces gives.

    CosFace (Wang et al., CVPR 2018) if the network has such a head, on all people of the set. SGD
    with momentum 0.9, 32 photos a step, learning rate 0.02 that falls to 0. Each photo is mirrored,
    shifted and relit at random, and gray half of the time, as clients may have either: without
    that, invented faces teach little about real ones. The head is thrown away. The rest is kept in
    the user's cache folder, under a name that photos and all settings decide.

    Args:
        spec: The network, with its `image_size`; its `classes` are replaced.
        server: Parameters to start from; those named `head.…` are left as they are.
        public: Registered face set, of other people than the federation's.
        steps: Of training; 0 leaves the random start.
        seed: Of the start, the order and the changes.
    """
    if not steps:
        return dict(server)
    text = json.dumps([spec.factory, dict(spec.arguments)], sort_keys=True, default=str)
    trained = _kept(text, public, steps, seed)
    return {name: trained.get(name, value) for name, value in server.items()}


@lru_cache(maxsize=4)
def _kept(text: str, public: str, steps: int, seed: int) -> dict[str, Tensor]:
    factory, arguments = json.loads(text)
    faces: FaceSet = create("data", public, {"size": arguments["image_size"]})
    classes = len(set(faces.people))
    spec = ModelSpec(factory, {**arguments, "classes": classes})
    start = parameters_of(build(spec, seed=seed))
    people = hashlib.sha256(repr(faces.people).encode()).hexdigest()
    facts = ("pretrained", VERSION, text, people, steps, seed, torch.__version__)
    key = key_of({"photos": faces.images, **start}, *facts)
    body = [name for name in start if not name.startswith("head.")]
    what = f"network pretrained on {public}"
    return load_or_learn(key, lambda: _train(spec, faces, steps, seed), None, what=what, valid=body)


def _train(spec: ModelSpec, faces: FaceSet, steps: int, seed: int) -> dict[str, Tensor]:
    names = sorted(set(faces.people))
    labels = torch.tensor([names.index(person) for person in faces.people])
    model = build(spec, seed=seed).eval()  # statistics of batch norm stay the clients' affair
    criterion = criterion_of(model)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=0.9)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / steps, total_iters=steps)
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < min(BATCH, len(labels)):
            order = torch.randperm(len(labels), generator=generator)
        which, order = order[:BATCH], order[BATCH:]
        optimizer.zero_grad()
        loss = criterion(model(_varied(faces.images[which], generator)), labels[which])
        torch.autograd.backward(loss)
        optimizer.step()
        falling.step()
    trained = parameters_of(model)
    return {name: value for name, value in trained.items() if not name.startswith("head.")}


def _varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored and gray by chance, shifted and relit."""
    mirror, gray = torch.rand(2, len(images), 1, 1, 1, generator=generator) < 0.5
    images = torch.where(mirror, images.flip(3), images)
    images = torch.where(gray, images.mean(1, keepdim=True), images)
    return changed(images, generator)
