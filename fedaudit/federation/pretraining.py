"""A start from public faces, for methods whose server sends a pre-trained network."""

import json
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from fedaudit.data.faces import FaceSet
from fedaudit.federation.client import train_locally
from fedaudit.models.zoo import build, parameters_of
from fedaudit.registry import create
from fedaudit.types import LocalTraining, ModelSpec, Update
from fedaudit.verbs import ClientTask


def pretrained(
    spec: ModelSpec, server: Mapping[str, Tensor], *, public: str, steps: int, seed: int
) -> dict[str, Tensor]:
    """`server` with the parameters that central training on public faces gives.

    CosFace (Wang et al., CVPR 2018) if the network has such a head, on all people of the set, each
    photo in color and in gray, as either may be what clients have; SGD with momentum 0.9, learning
    rate 0.05, 32 images a step. The head is thrown away.

    Args:
        spec: The network, with its `image_size`; its `classes` are replaced.
        server: Parameters to start from; those named `head.…` are left as they are.
        public: Registered face set, of other people than the federation's.
        steps: Of training; 0 leaves the random start.
        seed: Of order and head.
    """
    if not steps:
        return dict(server)
    text = json.dumps([spec.factory, dict(spec.arguments)], sort_keys=True, default=str)
    trained = _train(text, public, steps, seed)
    return {name: trained.get(name, value) for name, value in server.items()}


@lru_cache(maxsize=4)  # every capture of a fresh federation needs it again
def _train(text: str, public: str, steps: int, seed: int) -> dict[str, Tensor]:
    factory, arguments = json.loads(text)
    faces: FaceSet = create("data", public, {"size": arguments["image_size"]})
    people = sorted(set(faces.people))
    gray = faces.images.mean(1, keepdim=True)
    spec = ModelSpec(factory, {**arguments, "classes": len(people)})
    task = ClientTask(
        model=spec,
        before=parameters_of(build(spec, seed=seed)),
        kept={},
        images=torch.cat([faces.images, gray.expand_as(faces.images)]),
        labels=torch.tensor([people.index(person) for person in faces.people]).repeat(2),
        training=LocalTraining(
            lr=0.05, steps=steps, batch_size=32, momentum=0.9, batch_norm="eval"
        ),
        share="delta",
        generator=torch.Generator().manual_seed(seed),
    )
    update = train_locally(task).shared[0]
    assert isinstance(update, Update)
    return {
        name: task.before[name] + change
        for name, change in update.tensors.items()
        if not name.startswith("head.")
    }
