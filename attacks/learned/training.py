"""Training a decoder, deterministic under a seed; and where what it learned is kept."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from fedaudit.assets import cache_dir
from fedaudit.attacks.learned.decoder import unlikeness
from fedaudit.errors import StorageError

VERSION = 1
"""Raise it whenever the same settings would now teach something else."""
BATCH = 64
Progress = Callable[[int, int, float], None]


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network whose random start is decided by `seed`; torch's global state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def teach(
    decoder: nn.Module,
    inputs: Tensor,
    images: Tensor,
    *,
    epochs: int,
    seed: int,
    lr: float = 2e-3,
    progress: Progress | None = None,
) -> int:
    """Train in place with AdamW; the rate rises over a tenth and falls as a cosine.

    Args:
        decoder: `inputs[i]` → images like `images[i]`.
        inputs: `[M, …]`.
        images: `[M, C, H, W]`, or `[M, B, C, H, W]` for batches, whose order is taken as the one
            that suits the decoder (Hungarian loss).
        epochs: Times that every input is seen.
        seed: Of the order and of dropout.
        lr: Peak rate.
        progress: Called with (step, steps, loss).

    Returns:
        Steps made.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(inputs) // BATCH)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    decoder.train()
    done = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout has no generator of its own
        for _ in range(epochs):
            for which in torch.split(torch.randperm(len(inputs), generator=generator), BATCH):
                drawn, true = decoder(inputs[which].float()), images[which].float()
                loss = (_set_loss if true.dim() == 5 else unlikeness)(drawn, true).mean()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                done += 1
                if progress and (done % 10 == 0 or done == steps):
                    progress(done, steps, float(loss.detach()))
    decoder.eval().requires_grad_(False)
    return done


def _set_loss(drawn: Tensor, true: Tensor) -> Tensor:
    """`unlikeness` under the assignment of least squared error; `[n, B, C, H, W]` each → `[n]`."""
    count, batch = drawn.shape[:2]
    if batch > 1:
        with torch.no_grad():
            costs = torch.cdist(true.flatten(2), drawn.flatten(2)).square()
        order = torch.stack(
            [torch.as_tensor(linear_sum_assignment(c.numpy())[1]) for c in costs.cpu()]
        )
        drawn = drawn[torch.arange(count)[:, None], order]
    return unlikeness(drawn.flatten(0, 1), true.flatten(0, 1)).view(count, batch).mean(1)


# --- what was learned, on disk --------------------------------------------------------------------


def key_of(tensors: Mapping[str, Tensor], *facts: object) -> str:
    """A name for everything that decides what is learned: parameters and facts."""
    digest = hashlib.sha256(repr((VERSION, *facts)).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:24]


def remembered(
    key: str,
    learn: Callable[[], Mapping[str, Tensor]],
    cache: str | None,
    *,
    valid: Iterable[str] = (),
) -> dict[str, Tensor]:
    """What `learn` gives: from the cache if it is there, else learned and kept.

    Args:
        key: From `key_of`.
        learn: Trains; tensors by name.
        cache: A folder, None for the user's cache folder, or "off" to keep nothing.
        valid: Names that a kept file must have; one without them is learned anew.

    Raises:
        StorageError: The folder cannot be written.
    """
    if cache == "off":
        return dict(learn())
    home = Path(cache).expanduser() if cache else cache_dir() / "learned"
    file = home / f"{key}.safetensors"
    if file.exists():
        try:
            kept = load_file(file)
        except Exception:  # safetensors' own error type is not public; a damaged file is replaced
            kept = {}
        if kept and set(valid) <= set(kept):
            return kept
    learned = {name: value.contiguous() for name, value in learn().items()}
    try:
        home.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: workers may learn the same thing at the same time.
        handle, part = tempfile.mkstemp(dir=home, prefix=f".{key}-")
        os.close(handle)
        save_file(learned, part)
        Path(part).replace(file)
    except OSError as error:
        raise StorageError(
            f"cannot keep what was learned in {home}: {error.strerror}. Make room, or set the "
            'attack\'s cache to another folder, or to "off".'
        ) from error
    return learned
