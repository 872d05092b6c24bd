"""DP-SGD with planted faults, each of which claims what the right one does."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from fedaudit.core.client import ClientTask, Loop
from fedaudit.defenses.client_dp import ClientDP
from fedaudit.defenses.dpsgd import DPSGD
from fedaudit.defenses.gradient_transforms import Noise, Replayed, clip


@dataclass(frozen=True, kw_only=True)
class NoNoise(DPSGD):
    """Clips, and adds nothing."""

    scale: float = 0.0

    def _private(self, engine: Any, loop: Loop, task: ClientTask, sigma: float) -> Loop:
        private = super()._private(engine, loop, task, sigma)
        optimizer = private.optimizer

        def add_noise() -> None:
            for p in optimizer.params:
                deviation = self.scale * sigma * self.max_grad_norm
                noise = torch.randn(p.shape, generator=task.generator) * deviation
                p.grad = p.summed_grad.view_as(p) + noise

        optimizer.add_noise = add_noise
        return private


@dataclass(frozen=True, kw_only=True)
class WeakNoise(NoNoise):
    """Adds a tenth of the noise."""

    scale: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ClippedBatch(DPSGD):
    """Clips the mean gradient, and adds the noise that one image's clipping would ask for."""

    def _private(self, engine: Any, loop: Loop, task: ClientTask, sigma: float) -> Loop:
        private = super()._private(engine, loop, task, sigma)
        optimizer = private.optimizer

        def clip_and_accumulate() -> None:
            means = [p.grad_sample.mean(0) for p in optimizer.params]
            norm = torch.sqrt(sum((m**2).sum() for m in means))
            factor = min(1.0, self.max_grad_norm / float(norm)) * optimizer.expected_batch_size
            for p, m in zip(optimizer.params, means, strict=True):
                p.summed_grad = m * factor

        optimizer.clip_and_accumulate = clip_and_accumulate
        return private


@dataclass(frozen=True, kw_only=True)
class PartlyPlain(DPSGD):
    """Every tenth image is not clipped."""

    def _private(self, engine: Any, loop: Loop, task: ClientTask, sigma: float) -> Loop:
        private = super()._private(engine, loop, task, sigma)
        optimizer = private.optimizer

        def clip_and_accumulate() -> None:
            samples = [p.grad_sample for p in optimizer.params]
            norms = torch.sqrt(sum((s.flatten(1) ** 2).sum(1) for s in samples))
            factors = (self.max_grad_norm / norms.clamp(min=1e-9)).clamp(max=1.0)
            factors[::10] = 1.0
            for p, sample in zip(optimizer.params, samples, strict=True):
                p.summed_grad = torch.einsum("i,i...", factors, sample)

        optimizer.clip_and_accumulate = clip_and_accumulate
        return private


@dataclass(frozen=True, kw_only=True)
class EveryImage(DPSGD):
    """Takes every image in each step, and counts a sample of them."""

    def _private(self, engine: Any, loop: Loop, task: ClientTask, sigma: float) -> Loop:
        private = super()._private(engine, loop, task, sigma)
        everything: DataLoader[Any] = DataLoader(loop.loader.dataset, batch_size=10**6)
        return Loop(private.network, private.optimizer, everything, private.criterion)


@dataclass(frozen=True, kw_only=True)
class QuietClient(ClientDP):
    """Client DP with a third of its noise."""

    def replay(self, count: int) -> Replayed:
        noise = Noise(self.noises[0] * self.max_norm / 3)
        return Replayed(mean=(clip(self.max_norm), noise))
