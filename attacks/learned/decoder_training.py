"""Training of a decoder of faces, deterministic under a seed."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from fedaudit.attacks.learned.decoder import unlikeness
from fedaudit.core.protocols import Progress

BATCH = 64


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
