"""Runs one job of the peer `breaching` in the peer's own environment; see `side_by_side.py`.

    PYTHON_OF_THE_PEER breaching_driver.py JOB.json

Only the peer's public interface is called: its attack presets, `prepare_attack`, `reconstruct`.
The network is built from fedaudit's own registry, so that both sides attack the same module. The
peer sees what an attacker sees: parameters, gradient, shape, number of images, and labels where
the job grants them. CPU seconds are those of `reconstruct` alone, without imports.

A job names: `repository` (a folder to import fedaudit from), `inputs` (a safetensors file with
`state/NAME`, `gradient/NAME` and, if granted, `labels`), `spec`, `batch_norm`, `classes`, `shape`,
`count`, `preset`, `overrides`, `mean`, `std`, `seed`, `output`.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class FromNormalized(nn.Module):
    """Images as the peer moves them, (x − mean) / std, into the network, which takes [0, 1]."""

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.network, self.mean, self.std = network, mean, std

    def forward(self, images: Tensor) -> Tensor:
        """Scores `[N, K]` of normalized images `[N, C, H, W]`."""
        scores: Tensor = self.network(images * self.std + self.mean)
        return scores


def reconstruct(job: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
    """Images `[N, C, H, W]` in [0, 1], labels `[N]`, CPU seconds."""
    sys.path.insert(0, job["repository"])
    import breaching  # noqa: PLC0415  (only in the peer's environment)
    from omegaconf import OmegaConf  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    from fedaudit.core.observation import ModelSpec  # noqa: PLC0415
    from fedaudit.models.facenet import criterion_of  # noqa: PLC0415
    from fedaudit.models.zoo import build  # noqa: PLC0415

    torch.set_num_threads(1)
    tensors = load_file(job["inputs"])
    state = {k.removeprefix("state/"): v for k, v in tensors.items() if k.startswith("state/")}
    network = build(ModelSpec(**job["spec"]), state)
    model = FromNormalized(network, job["mean"], job["std"])
    criterion = criterion_of(network)

    class Loss(nn.Module):
        """The network's own training loss, behind the call that the peer makes."""

        def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
            loss: Tensor = criterion(scores, labels)
            return loss

    metadata = OmegaConf.create(
        {
            "modality": "vision",
            "task": "classification",
            "classes": job["classes"],
            "shape": job["shape"],
            "mean": [job["mean"]] * job["shape"][0],
            "std": [job["std"]] * job["shape"][0],
        }
    )
    public = [b.clone() for b in model.buffers()] if job["batch_norm"] == "eval" else None
    payload = {
        "parameters": [p.detach().clone() for p in model.parameters()],
        "buffers": public,
        "metadata": metadata,
    }
    shared = {
        "gradients": [tensors[f"gradient/{name}"] for name, _ in network.named_parameters()],
        "buffers": None,
        "metadata": {
            "num_data_points": job["count"],
            "labels": tensors.get("labels"),
            "local_hyperparams": None,
        },
    }
    config = breaching.get_attack_config(job["preset"], overrides=job["overrides"])
    attacker = breaching.attacks.prepare_attack(model, Loss(), config)
    torch.manual_seed(job["seed"])
    started = time.process_time()
    found, _ = attacker.reconstruct([payload], [shared], {})
    seconds = time.process_time() - started
    labels = found["labels"]
    if labels.dim() > 1:
        labels = labels.argmax(1)
    images = (found["data"] * job["std"] + job["mean"]).clamp(0, 1).float()
    return images.contiguous(), labels.contiguous(), seconds


def main() -> None:
    """Read the job, write `output` (safetensors) with images, labels and seconds."""
    from safetensors.torch import save_file  # noqa: PLC0415

    warnings.simplefilter("ignore")
    job = json.loads(Path(sys.argv[1]).read_text())
    images, labels, seconds = reconstruct(job)
    spent = torch.tensor(seconds, dtype=torch.float64)
    save_file({"images": images, "labels": labels, "seconds": spent}, job["output"])


if __name__ == "__main__":
    main()
