"""A training session of a prior: budget, checkpoints, sample images, resuming."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError

from fedaudit.core.errors import UsageError, first_line
from fedaudit.files.atomic import storage_errors, write_atomically
from fedaudit.models.prior_file import SUFFIX, Manifest, write_prior
from fedaudit.priors.autoencoder import Settings, Trainer
from fedaudit.priors.face_grids import grid
from fedaudit.priors.training_photos import Photos

SAVE_EVERY = 30.0
"""Seconds between two checkpoints and pictures, at least."""
SAVING = 0.1
"""Part of the time at most that they take: each encodes and draws hundreds of photos."""
_KEY = "fedaudit_training"
_SHOWN = 10


@dataclass(frozen=True)
class Progress:
    """Progress of a training.

    Attributes:
        step: Steps done, earlier sessions included.
        share: Part of this session's budget that is used, in [0, 1].
        error: Reconstruction error of the last step.
        warming_up: Whether the encoder is still learning the start's own faces.
        psnr: In dB, when it was last judged.
    """

    step: int
    share: float
    error: float
    warming_up: bool
    psnr: float | None


def checkpoint_path(prior: Path) -> Path:
    """Where the checkpoint of a prior lies, which `resume` reads."""
    return prior.with_name(f"{prior.stem}.checkpoint{SUFFIX}")


def samples_folder(prior: Path) -> Path:
    """Where sample images of a prior in training lie."""
    return prior.with_name(f"{prior.stem}-samples")


def train(
    photos: Photos,
    settings: Settings,
    output: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    device: str = "cpu",
    report: Callable[[Progress], None] = lambda _: None,
) -> Manifest:
    """Train a prior and write it; both, checkpoint and prior, are always whole.

    Args:
        photos: To train on.
        settings: How.
        output: The prior's file; checkpoint and pictures lie beside it.
        minutes: Wall-clock budget of this session; None is no limit.
        steps: Train until so many steps are done in all; None is no limit.
        resume: Go on from the checkpoint.
        device: That computes.
        report: Called after every step.

    Raises:
        UsageError: The output exists and `resume` is not set, the checkpoint is of another
            training, or neither limit is given.
        StorageError: The disk is full or may not be written.
    """
    if minutes is None and steps is None:
        raise UsageError("a training needs an end: give minutes or steps.")
    _check_paths(output, resume=resume)
    trainer = Trainer(photos, settings, device)
    seconds = _load(trainer, checkpoint_path(output)) if resume else 0.0
    clock = _Clock(minutes, steps, trainer.step)
    cpu = time.process_time()
    last_save, pause, psnr = time.monotonic(), SAVE_EVERY, None
    try:
        while (share := clock.share(trainer.step)) < 1:
            warming_up = trainer.warming_up
            error = trainer.advance()
            report(Progress(trainer.step, share, error, warming_up, psnr))
            if (began := time.monotonic()) - last_save >= pause:
                psnr = _save(trainer, output, seconds + time.process_time() - cpu).psnr
                last_save = time.monotonic()
                pause = max(SAVE_EVERY, (last_save - began) / SAVING)
    except KeyboardInterrupt:
        _save(trainer, output, seconds + time.process_time() - cpu)
        raise
    return _save(trainer, output, seconds + time.process_time() - cpu)


class _Clock:
    """How much of a session's budget is used."""

    def __init__(self, minutes: float | None, steps: int | None, first: int) -> None:
        self.minutes, self.steps, self.first = minutes, steps, first
        self.began = time.monotonic()

    def share(self, step: int) -> float:
        shares = [0.0]
        if self.minutes is not None:
            shares.append((time.monotonic() - self.began) / (60 * self.minutes))
        if self.steps is not None:
            remaining = self.steps - self.first
            shares.append((step - self.first) / remaining if remaining > 0 else 1.0)
        return min(1.0, max(shares))


def _check_paths(output: Path, *, resume: bool) -> None:
    checkpoint = checkpoint_path(output)
    if output.suffix != SUFFIX:
        raise UsageError(f"{output}: a prior's file must end in {SUFFIX}.")
    if resume and not checkpoint.is_file():
        raise UsageError(
            f"there is no checkpoint {checkpoint} to go on from. Leave out --resume to "
            "start, or correct --output."
        )
    if not resume and (output.exists() or checkpoint.exists()):
        raise UsageError(
            f"{output} or its checkpoint exists. Add --resume to train it further, or choose "
            "another --output."
        )
    with storage_errors(output):
        samples_folder(output).mkdir(parents=True, exist_ok=True)


def _save(trainer: Trainer, output: Path, seconds: float) -> Manifest:
    about = {"identity": json.dumps(trainer.identity()), "seconds": str(seconds)}
    content = safetensors.torch.save(trainer.state(), {_KEY: json.dumps(about)})
    write_atomically(checkpoint_path(output), content)
    manifest = trainer.manifest(seconds)
    write_prior(output, trainer.kept, manifest, trainer.photos.hashes)
    write_atomically(samples_folder(output) / f"step-{trainer.step:06d}.png", _picture(trainer))
    return manifest


def _picture(trainer: Trainer) -> bytes:
    """Photos, how they come back, and four rows of faces from random latents."""
    held_out = trainer.photos.held_out
    photos = (held_out if len(held_out) else trainer.photos.train)[:: max(1, len(held_out) // 10)]
    photos = photos[:_SHOWN]
    samples = torch.split(trainer.sample(4 * _SHOWN), _SHOWN)
    return grid([photos, trainer.reconstruct(photos), *samples])


def _load(trainer: Trainer, path: Path) -> float:
    """Load a checkpoint; returns the CPU seconds so far."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            identity, seconds = json.loads(about["identity"]), float(about["seconds"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        ours = trainer.identity()
        identity = asdict(Settings()) | identity  # of an earlier version, which had fewer settings
        if differences := [k for k, v in ours.items() if identity.get(k) != v]:
            raise UsageError(
                f"{path} is of another training: {', '.join(sorted(differences))} differ. Give the "
                "same photos and options to go on, or another --output to start anew."
            )
        trainer.load(state)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
        raise UsageError(
            f"{path} cannot be gone on from: {first_line(error)}. Delete it and its prior to start "
            "anew."
        ) from error
    return seconds
