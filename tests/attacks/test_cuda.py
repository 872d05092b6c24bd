"""The same attacks on a GPU: float32 there gives the picture that float32 here gives."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedaudit.core.capture import Capture
from fedaudit.core.registry import create
from fedaudit.scoring.image_metrics import SSIM

Intercept = Callable[..., Capture]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

SHORT: dict[str, dict[str, Any]] = {
    "inverting_gradients": {"steps": 60, "restarts": 2},
    "gan_inversion": {"pixel_steps": 60},
    "gifd": {"latent_steps": 20, "stage_steps": 20},
    "gion": {"steps": 60},
    "subspace_matching": {"steps": 60, "polish": 4},
}


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_gpu_finds_what_a_cpu_finds(name: str, batch: int, intercept: Intercept) -> None:
    captured = intercept(batch=batch)
    attack = create("attacks", name, SHORT[name])
    found = {
        device: attack(captured.seen.to(device), generator=torch.Generator().manual_seed(0))
        for device in ("cpu", "cuda")
    }
    assert found["cuda"].images.device.type == "cpu"
    assert captured.secret is not None
    truth = captured.secret.images[captured.secret.labels.argsort(stable=True)]
    here, there = (SSIM()(truth, found[d].images).mean() for d in ("cpu", "cuda"))
    assert float(there) > float(here) - 0.1
