"""One problem for both sides: the same network, gradient and image, which the peer reads."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from environment import leakpro_python, peer_python
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedaudit.core.capture import Capture, Secret
from fedaudit.core.observation import LocalTraining, ModelSpec, Observation
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.models.batch_norm import client_mode
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """One configuration of the peer.

    Attributes:
        name: In the table.
        preset: One of its attack presets.
        steps: Its `optim.max_iterations`; an L-BFGS iteration of its is up to 20 inner ones.
        total_variation: Weight in place of the preset's; None keeps it.
        labels: Whether the true labels are handed over; its deep leakage refuses them.
        mean, std: Of the coordinates that it moves images in; it was made for standardized ones.
        settings: Further overrides, in the peer's configuration language.
    """

    name: str
    preset: str
    steps: int
    total_variation: float | None = None
    labels: bool = True
    mean: float = 0.5
    std: float = 0.25
    settings: tuple[str, ...] = ()

    @property
    def overrides(self) -> list[str]:
        """In the peer's configuration language."""
        found = [f"optim.max_iterations={self.steps}"]
        if self.total_variation is not None:
            found.append(f"regularization.total_variation.scale={self.total_variation}")
        return [*found, *self.settings]


def problem(
    network: str, arguments: Mapping[str, Any], faces: FaceSet, photos: list[int], seed: int
) -> Capture:
    """A fresh network's gradient on some photos; batch norm in evaluation mode, labels granted."""
    spec = ModelSpec(network, arguments)
    training = LocalTraining(batch_size=len(photos), batch_norm="eval")
    model = client_mode(build(spec, seed=seed), training)
    images = faces.images[photos]
    labels = torch.tensor([i % arguments["classes"] for i in photos])
    named = dict(model.named_parameters())
    loss = criterion_of(model)(model(images), labels)
    gradients = torch.autograd.grad(loss, list(named.values()))
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    seen = Observation(
        model=spec,
        before=state,
        shared=(Update("gradient", dict(zip(named, gradients, strict=True)), len(photos)),),
        image_shape=(3, images.shape[2], images.shape[3]),
        batch_size=len(photos),
        num_classes=arguments["classes"],
        training=training,
        defense=(),
        labels=labels,
    )
    people = tuple(faces.people[i] for i in photos)
    return Capture(seen, Secret(images, labels, people, tuple(faces.sources[i] for i in photos)))


def run_peer(seen: Observation, peer: Peer, seed: int) -> Reconstruction:
    """The peer on one observation, in its own environment, one thread.

    Labels are handed over where `seen` grants them and the configuration takes them.
    """
    update, shape, training = seen.update, seen.image_shape, seen.training
    assert update is not None
    assert shape is not None
    assert training is not None
    tensors: dict[str, Tensor] = {f"state/{k}": v for k, v in seen.before.items()}
    tensors |= {f"gradient/{k}": v for k, v in update.tensors.items()}
    if peer.labels and seen.labels is not None:
        tensors["labels"] = seen.labels
    job = {
        "batch_norm": training.batch_norm,
        "shape": list(shape),
        "count": seen.batch_size,
        "preset": peer.preset,
        "overrides": peer.overrides,
        "mean": peer.mean,
        "std": peer.std,
    }
    found = driven(peer_python(), "breaching_driver.py", seen, tensors, job, seed)
    return Reconstruction(
        images=found["images"],
        labels=found["labels"],
        iterations=peer.steps,
        seconds=float(found["seconds"]),
        adaptive="none needed",
    )


def run_leakpro(
    seen: Observation, images: Tensor, checkout: Path, steps: int, seed: int
) -> Reconstruction:
    """LeakPro's InvertingGradients, by default but for the steps; it trains on `images` itself."""
    assert seen.labels is not None
    tensors: dict[str, Tensor] = {f"state/{k}": v for k, v in seen.before.items()}
    tensors |= {"images": images, "labels": seen.labels}
    job = {"checkout": str(checkout.resolve()), "steps": steps}
    found = driven(leakpro_python(), "leakpro_driver.py", seen, tensors, job, seed)
    return Reconstruction(
        images=found["images"],
        labels=seen.labels,
        iterations=steps,
        seconds=float(found["seconds"]),
        adaptive="none needed",
    )


def driven(
    python: Path,
    driver: str,
    seen: Observation,
    tensors: Mapping[str, Tensor],
    job: Mapping[str, Any],
    seed: int,
) -> dict[str, Tensor]:
    """What a driver writes of a job, run by a peer's interpreter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs, output, file = folder / "inputs", folder / "output", folder / "job.json"
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, inputs)
        every = {
            "repository": str(REPOSITORY),
            "inputs": str(inputs),
            "spec": {"factory": seen.model.factory, "arguments": dict(seen.model.arguments)},
            "classes": seen.num_classes,
            "seed": seed,
            "output": str(output),
        }
        file.write_text(json.dumps(every | dict(job)))
        subprocess.run(
            [str(python), str(HERE / driver), str(file)],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        return load_file(output)
