"""Training of a prior: a variational autoencoder whose decoder is the generator that is kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.generators.face_generator import crop_images
from fedaudit.core.errors import UsageError
from fedaudit.core.seeds import seed_torch
from fedaudit.models.generator import load_generator
from fedaudit.models.prior_file import Manifest
from fedaudit.models.stacked_generator import Architecture, StackedGenerator
from fedaudit.priors.networks import (
    Encoder,
    copy_generator,
    fresh_generator,
    update_average,
    with_mapping,
)
from fedaudit.priors.training_photos import Photos
from fedaudit.priors.variation import vary
from fedaudit.scoring.image_metrics import PSNR

_SCALES = 3
_AVERAGE = 0.995
"""Of the running average of the weights, which is what is kept: the last step is noisy."""
_BETAS = (0.5, 0.99)
_FITTED = 400
"""Photos by which the latents' distribution is fitted."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a prior is trained.

    Args:
        size: Side of the images in pixels: 32, 64 or 112.
        architecture: "dcgan" or "style"; a start brings its own. At 64 px and 240 CPU seconds the
            DCGAN fitted openpeople's p01 and p02 better (23.2 against 22.4 dB, docs/benchmarks.md).
        start: "random", "face_gan", or the path of an earlier prior: its weights are the start.
        latent_dim: Width of the latent vector; a start brings its own.
        batch: Photos a step.
        lr: Learning rate of Adam; a start moves at half of it.
        kl: Weight of the latents' divergence from a standard normal.
        warmup: Steps in which only the encoder learns, from faces that the start draws.
        augment: Learn each photo zoomed, turned, moved and toned anew each time
            (`fedaudit.priors.variation`), where photos are few.
        seed: Of all randomness.
    """

    size: int = 64
    architecture: Architecture = "dcgan"
    start: str = "random"
    latent_dim: int = 100
    batch: int = 16
    lr: float = 1e-3
    kl: float = 0.005
    warmup: int = 150
    augment: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.latent_dim, self.batch) < 1 or self.warmup < 0 or self.lr <= 0 or self.kl < 0:
            raise ValueError("latent_dim, batch, lr are above 0; warmup, kl at least 0")


class Trainer:
    """Trains a generator on photos, step by step.

    A variational autoencoder (Kingma and Welling, ICLR 2014) on three scales of absolute
    differences: unlike a GAN's game it does not collapse, and each of its minutes improves it. What
    is kept is the running average of the decoder, a generator whose latents are standard normal:
    a linear map makes of them the normal distribution that fits the encoded photos (Ghosh et al.,
    ICLR 2020).

    Args:
        photos: To train on.
        settings: How.
        device: That computes: "cpu", "cuda" …; all randomness comes from the CPU.

    Attributes:
        step: Steps done.
    """

    def __init__(self, photos: Photos, settings: Settings, device: str = "cpu") -> None:
        self.photos, self.settings, self.step = photos, settings, 0
        self.device = torch.device(device)
        self.noise = torch.Generator().manual_seed(settings.seed)
        with torch.random.fork_rng(devices=[]):
            seed_torch(settings.seed)
            self.decoder = _start(settings)
            seed_torch(settings.seed)  # how many numbers a start has drawn is its own affair
            self.encoder = Encoder(self.decoder.latent_dim, settings.size)
            self.average = copy_generator(self.decoder).eval().requires_grad_(False)
        for module in self._modules().values():
            module.to(self.device)
        self._started = settings.start != "random"
        rate = settings.lr / 2 if self._started else settings.lr
        self._optimizers = {
            "encoder": torch.optim.Adam(self.encoder.parameters(), settings.lr, betas=_BETAS),
            "decoder": torch.optim.Adam(self.decoder.parameters(), rate, betas=_BETAS),
        }

    @property
    def warming_up(self) -> bool:
        """Whether the encoder is still learning the start's own faces."""
        return self._started and self.step < self.settings.warmup

    def advance(self) -> float:
        """One step; returns its reconstruction error."""
        # A start keeps its batch statistics: its weights were trained with those.
        self.decoder.train(not self._started)
        if self.warming_up:
            error = self._warm_up()
        else:
            error = self._train()
            update_average(
                self.average, self.decoder, min(_AVERAGE, (self.step + 1) / (self.step + 10))
            )
        self.step += 1
        return error

    @property
    def kept(self) -> StackedGenerator:
        """The generator as it is written, on the CPU.

        A start's latents are standard normal already; else they are mapped.
        """
        if self._started:
            return copy_generator(self.average).cpu().eval().requires_grad_(False)
        photos = self.photos.draw(_FITTED, torch.Generator().manual_seed(self.settings.seed))
        with torch.no_grad():
            mean, logvar = (x.cpu() for x in self.encoder(photos.to(self.device)))
        spread = torch.cov(mean.T) + logvar.exp().mean(0).diag()
        return with_mapping(self.average, mean.mean(0), spread)

    def reconstruct(self, photos: Tensor) -> Tensor:
        """The photos as the kept generator draws them from their latents; `[N, 3, S, S]`."""
        with torch.no_grad():
            return self._draw(self.average, self.encoder(photos.to(self.device))[0]).cpu()

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Faces that the kept generator draws from random latents; `[count, 3, S, S]`."""
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return self._draw(self.kept, self.average.latents.draw(count, noise))

    def judge(self) -> float:
        """Mean PSNR in dB of encoded photos, of those kept apart where there are any."""
        photos = self.photos.held_out if len(self.photos.held_out) else self.photos.train[:64]
        images = torch.cat([self.reconstruct(part) for part in torch.split(photos, 64)])
        return float(PSNR()(images, photos).mean())

    def manifest(self, seconds: float) -> Manifest:
        """The manifest of the generator as it is, after so many CPU seconds."""
        return Manifest(
            architecture=self.average.architecture,
            widths=self.average.widths,
            latent_dim=self.average.latent_dim,
            crop=self.average.crop,
            mapped=not self._started or self.average.mapping is not None,
            start=self.settings.start,
            data=self.photos.name,
            photos=len(self.photos.train),
            held_out=len(self.photos.held_out),
            generated=len(self.photos.generated),
            steps=self.step,
            seconds=seconds,
            seed=self.settings.seed,
            psnr=self.judge(),
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that `load` needs to resume bit for bit."""
        state = {"noise": self.noise.get_state(), "step": torch.tensor(self.step)}
        for name, module in self._modules().items():
            state |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
        for name, optimizer in self._optimizers.items():
            for i, moments in optimizer.state_dict()["state"].items():
                state |= {f"adam.{name}.{i}.{k}": v for k, v in moments.items()}
        return {name: value.detach().clone() for name, value in state.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned; a `KeyError` or `RuntimeError` for another training."""
        for name, module in self._modules().items():
            module.load_state_dict(_below(f"{name}.", state))
        for name, optimizer in self._optimizers.items():
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(f"adam.{name}.", state).items():
                index, _, kind = key.partition(".")
                moments.setdefault(int(index), {})[kind] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.noise.set_state(state["noise"])
        self.step = int(state["step"])

    def identity(self) -> dict[str, Any]:
        """What must agree for one training to be the continuation of another."""
        return asdict(self.settings) | {
            "data": self.photos.name,
            "photos": len(self.photos.train),
            "held_out": len(self.photos.held_out),
            "generated": len(self.photos.generated),
            # Which photos: another order or another folder gives another sum.
            "mean": float(self.photos.train.double().flatten(1).mean(1).cumsum(0).mean()),
        }

    def _modules(self) -> dict[str, nn.Module]:
        return {"decoder": self.decoder, "average": self.average, "encoder": self.encoder}

    def _draw(self, generator: StackedGenerator, z: Tensor) -> Tensor:
        side = self.settings.size
        images = crop_images(generator(z), generator.crop)
        if images.shape[-1] == side:
            return images
        return F.interpolate(
            images, (side, side), mode="bilinear", antialias=True, align_corners=False
        )

    def _warm_up(self) -> float:
        """The encoder learns to find the latents of faces that the start draws."""
        z = self.decoder.latents.draw(self.settings.batch, self.noise).to(self.device)
        with torch.no_grad():
            photos = self._draw(self.decoder, z)
            if float(torch.rand((), generator=self.noise)) < 0.5:  # gray photos are to be met too
                photos = photos.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        mean, logvar = self.encoder(photos)
        error = difference(self._draw(self.decoder, mean), photos)
        spread = (logvar + 4).square().mean()
        self._move(F.mse_loss(mean, z) + 3 * error + 1e-3 * spread, "encoder")
        return float(error.detach())

    def _train(self) -> float:
        """Encoder and decoder learn to draw the photos."""
        batch = self.settings.batch
        batch_photos = self.photos.draw(batch, self.noise)
        flips = torch.rand(batch, generator=self.noise) < 0.5
        photos = torch.where(flips.view(-1, 1, 1, 1), batch_photos.flip(3), batch_photos)
        if self.settings.augment:
            photos = vary(photos, self.noise)
        photos = photos.to(self.device)
        mean, logvar = self.encoder(photos)
        noise = torch.randn(mean.shape, generator=self.noise).to(self.device)
        error = difference(self._draw(self.decoder, mean + noise * (logvar / 2).exp()), photos)
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        self._move(error + self.settings.kl * divergence, "encoder", "decoder")
        return float(error.detach())

    def _move(self, loss: Tensor, *which: str) -> None:
        for optimizer in self._optimizers.values():
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for name in which:
            self._optimizers[name].step()


def difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference over three scales: fine detail, and where it is."""
    total = a.new_zeros(())
    for _ in range(_SCALES):
        total = total + (a - b).abs().mean()
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total / _SCALES


def _start(settings: Settings) -> StackedGenerator:
    if settings.start == "random":
        return fresh_generator(settings.size, settings.latent_dim, settings.architecture)
    generator = load_generator(settings.start)
    if not isinstance(generator, StackedGenerator):
        raise UsageError(
            f"a prior cannot start from {settings.start!r}: choose face_gan, or a file that "
            "fedaudit prior train wrote."
        )
    return copy_generator(generator)


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
