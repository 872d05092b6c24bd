"""Load a user's own generator: TorchScript, torch.export, or any Python factory."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedaudit.core.errors import UsageError, first_line
from fedaudit.core.registry import import_object
from fedaudit.models import latents as distributions
from fedaudit.models.foreign_settings import EXTRA_FILE, ForeignSettings, read_settings
from fedaudit.models.latents import Latents
from fedaudit.models.program_file import SUFFIXES, read_program

_USUAL_WIDTHS = (100, 128, 256, 512)
_SLACK = 1e-3
_PROBES = 3
"""Latents that a generator is tried on: unlike any usual size of an axis of its own."""

Network = Callable[[Tensor], Tensor]


class ForeignGenerator(nn.Module):
    """A user's own generator, its output mapped to [0, 1].

    Args:
        network: `z → images`.
        latents: The distribution of `z`.
        values: What stands for black and for white in its output.
        crop: Part of its image that is a face crop, as (top, bottom, left, right) in [0, 1].
    """

    def __init__(
        self,
        network: Network,
        latents: Latents,
        *,
        values: tuple[float, float] = (0.0, 1.0),
        crop: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0),
    ) -> None:
        super().__init__()
        self.network, self.latents, self.values, self.crop = network, latents, values, crop

    @property
    def latent_dim(self) -> int:
        """How many numbers one latent has."""
        return self.latents.size

    def forward(self, z: Tensor) -> Tensor:
        """Images `[N, 3|1, H, W]` in [0, 1] from latents `[N, *latents.shape]`."""
        return self._map(self.network(z.reshape(len(z), *self.latents.shape)))

    def _map(self, images: Tensor) -> Tensor:
        low, high = self.values
        return images if (low, high) == (0.0, 1.0) else (images - low) / (high - low)


class ForeignStagedGenerator(ForeignGenerator):
    """A user's generator that can be entered at an inner feature map."""

    @property
    def stages(self) -> nn.ModuleList:
        """Its stages, each taking the feature map that the one before gives."""
        return self.network.stages  # type: ignore[attr-defined,no-any-return]

    def features(self, z: Tensor, stage: int) -> Tensor:
        """The feature map that stage `stage` takes."""
        z = z.reshape(len(z), *self.latents.shape)
        return self.network.features(z, stage)  # type: ignore[attr-defined,no-any-return]

    def forward_from(self, stage: int, feature: Tensor) -> Tensor:
        """Images `[N, 3|1, H, W]` in [0, 1] from the feature map that stage `stage` takes."""
        return self._map(self.network.forward_from(stage, feature))  # type: ignore[attr-defined]


def load_foreign(source: str, latent_dim: int | None) -> nn.Module:
    """What `fedaudit.models.generator.load_generator` does for all but our own generators."""
    network, settings = _load(source)
    if isinstance(network, nn.Module):
        for parameter in network.parameters():
            parameter.requires_grad = False
    generator = _probe(network, source, settings, latent_dim)
    complete = isinstance(getattr(network, "latents", None), Latents)
    if complete and isinstance(network, nn.Module) and generator.values == (0.0, 1.0):
        return network  # it needs no mapping
    return generator


def _load(source: str) -> tuple[Network, ForeignSettings]:
    path = Path(source)
    if path.suffix not in SUFFIXES:
        if ":" in source:
            own: Network = import_object(source)()
            return (own.eval() if isinstance(own, nn.Module) else own), ForeignSettings()
        raise UsageError(
            f"generator {source!r} is neither 'face_gan', a prior that fedaudit trained "
            "(.safetensors), a TorchScript file (.ts, .pt), a torch.export file (.pt2), nor "
            "package.module:factory."
        )
    if not path.is_file():
        raise UsageError(f"there is no generator file {source}. Check the path.")
    extra: dict[str, Any] = {EXTRA_FILE: ""}
    program = read_program(path, extra)
    network = program if isinstance(program, nn.Module) else program.module()
    return network, read_settings(path, extra[EXTRA_FILE] or b"")


def _probe(
    network: Network, source: str, settings: ForeignSettings, dim: int | None
) -> ForeignGenerator:
    """Find the latent shape that a generator takes, and the range of its images."""
    reason, shapes = "", []
    for latents in _candidates(network, source, settings, dim):
        shapes.append(f"[N, {', '.join(map(str, latents.shape))}]")
        z = latents.draw(_PROBES, torch.Generator().manual_seed(0)).requires_grad_()
        try:
            images = network(z)
        except Exception as error:  # a foreign network may raise anything
            reason = reason or first_line(error)
            continue
        values = _checked_images(images, z, source, _declared_range(network, source, settings))
        _check_repeats(network, z, images, source)
        crop = getattr(network, "crop", settings.crop) or (0.0, 1.0, 0.0, 1.0)
        has_stages = all(hasattr(network, name) for name in ("stages", "features", "forward_from"))
        kind = ForeignStagedGenerator if has_stages else ForeignGenerator
        return kind(network, latents, values=values, crop=tuple(crop))
    raise UsageError(
        f"generator {source!r} takes no latent of shape {' or '.join(shapes)} with N = {_PROBES}: "
        f"{reason}. Give it an attribute latent_dim, latent_shape or a method sample(count, "
        'generator), or write {"latent_shape": […]} to the file of its name with .json added; '
        "export it with a free batch size."
    )


def _candidates(
    network: Network, source: str, settings: ForeignSettings, dim: int | None
) -> Iterator[Latents]:
    """The distributions that a generator may mean, those that it declares first."""
    own = getattr(network, "latents", None)
    sample = getattr(network, "sample", None)
    shape = settings.latent_shape or getattr(network, "latent_shape", None)
    width = dim or getattr(network, "latent_dim", None)
    if isinstance(own, Latents):
        yield own
    elif callable(sample):
        try:
            yield distributions.from_sampler(sample)
        except Exception as error:  # a foreign sampler may raise anything
            raise UsageError(
                f"the sampler of generator {source!r} cannot be used: {first_line(error)}. It must "
                "be sample(count, generator) and give a float tensor [count, …]."
            ) from error
    elif shape:
        yield settings.latents(*map(int, shape))
    else:
        for each in (int(width),) if width else _USUAL_WIDTHS:
            yield settings.latents(each)
            yield settings.latents(each, 1, 1)


def _declared_range(
    network: Network, source: str, settings: ForeignSettings
) -> tuple[float, float] | None:
    bounds = settings.range or getattr(network, "output_range", None)
    if bounds is None:
        return None
    try:
        low, high = map(float, bounds)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not low < high:
        raise UsageError(
            f"generator {source!r} has output_range {bounds!r}: needed are two numbers, what "
            "stands for black and what for white, the first the lesser."
        )
    return low, high


def _checked_images(
    images: object, z: Tensor, source: str, declaration: tuple[float, float] | None
) -> tuple[float, float]:
    """What stands for black and white in a generator's output; refuses what is not images."""
    bounds = (
        f"{json.dumps(list(declaration))}, as it declares" if declaration else "[0, 1] or [-1, 1]"
    )
    contract = (
        f"Needed are images [N, 3, H, W] or [N, 1, H, W] in {bounds}, differentiable in z. For "
        "another range set output_range, or range in its settings file."
    )
    if not isinstance(images, Tensor):
        raise UsageError(f"generator {source!r} gave {type(images).__name__}. {contract}")
    if not images.numel():
        raise UsageError(f"generator {source!r} gave {list(images.shape)} for N = 3. {contract}")
    low, high = images.detach().min().item(), images.detach().max().item()
    facts = f"{list(images.shape)} with values {low:.3g} to {high:.3g}"
    if images.dim() != 4 or len(images) != _PROBES or images.shape[1] not in {1, 3}:
        raise UsageError(f"generator {source!r} gave {facts} for N = 3. {contract}")
    black, white = declaration or (-1.0, 1.0)
    slack = _SLACK * (white - black)
    if not images.isfinite().all() or low < black - slack or high > white + slack:
        raise UsageError(f"generator {source!r} gave {facts}. {contract}")
    if not images.requires_grad:
        raise UsageError(f"generator {source!r} gave {facts}, cut off from z. {contract}")
    (slope,) = torch.autograd.grad(images.sum(), z, allow_unused=True)
    if slope is None or not slope.isfinite().all() or not slope.any():
        what = "is not finite" if slope is not None and not slope.isfinite().all() else "is zero"
        raise UsageError(f"generator {source!r} gave {facts}, whose slope in z {what}. {contract}")
    if declaration:
        return declaration
    return (-1.0, 1.0) if low < -_SLACK else (0.0, 1.0)


def _check_repeats(network: Network, z: Tensor, images: Tensor, source: str) -> None:
    with torch.no_grad():
        again = network(z)
    if not torch.allclose(again, images.detach(), atol=1e-4 * float(images.detach().abs().max())):
        raise UsageError(
            f"generator {source!r} gives other images for the same latent each time. Attacks "
            "search the latent, so fix its noise inputs, or make them part of the latent."
        )
