"""Runs one job of the peer LeakPro, from a checkout of it; see `exchange.py`.

    PYTHON_OF_THE_PEER leakpro_driver.py JOB.json

Only its public interface is called: `InvertingGradients` with a loader of the client's photos, of
which it makes the update itself. What is taken is its image of least loss: what it returns is
chosen by SSIM to the photo. A job names what `exchange.driven` writes, `checkout` and `steps`.
"""

import json
import logging
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType

import torch
from breaching_driver import FromNormalized

MEAN, STD = 0.5, 0.25
"""Of the coordinates that it moves images in."""


def main() -> None:
    """Read the job, write `output` (safetensors) with images and CPU seconds."""
    warnings.simplefilter("ignore")
    job = json.loads(Path(sys.argv[1]).read_text())
    sys.path[:0] = [job["repository"], job["checkout"]]
    texts = ModuleType("transformers")  # of which its attacks on texts need one name
    texts.LongformerTokenizerFast = None  # type: ignore[attr-defined]
    sys.modules["transformers"] = texts
    from leakpro.attacks.gia_attacks.invertinggradients import (  # noqa: PLC0415
        InvertingConfig,
        InvertingGradients,
    )
    from leakpro.fl_utils.data_utils import CustomTensorDataset  # noqa: PLC0415
    from safetensors.torch import load_file, save_file  # noqa: PLC0415
    from torch.utils.data import DataLoader  # noqa: PLC0415

    from fedaudit.core.observation import ModelSpec  # noqa: PLC0415
    from fedaudit.models.zoo import build  # noqa: PLC0415

    logging.disable()
    torch.set_num_threads(1)
    torch.manual_seed(job["seed"])
    tensors = load_file(job["inputs"])
    state = {k.removeprefix("state/"): v for k, v in tensors.items() if k.startswith("state/")}
    model = FromNormalized(build(ModelSpec(**job["spec"]), state), MEAN, STD)
    images = tensors["images"]
    photos = CustomTensorDataset((images - MEAN) / STD, tensors["labels"])
    mean, std = (torch.full((1, images.shape[1], 1, 1), value) for value in (MEAN, STD))
    attack = InvertingGradients(
        model,
        DataLoader(photos, batch_size=len(images)),
        mean,
        std,
        configs=InvertingConfig(at_iterations=job["steps"]),
    )
    began = time.process_time()
    attack.prepare_attack()
    for _ in attack.run_attack():
        pass
    spent = torch.tensor(time.process_time() - began, dtype=torch.float64)
    found = attack.best_reconstruction.dataset.reconstruction.detach() * STD + MEAN
    save_file({"images": found.clamp(0, 1).contiguous(), "seconds": spent}, job["output"])


if __name__ == "__main__":
    main()
