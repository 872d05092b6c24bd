"""`fedaudit prior train`: a generator of faces from a folder of photos."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.console import live, stderr
from fedaudit.cli.ending import OK, interrupted
from fedaudit.cli.options import examples, output_file
from fedaudit.cli.say import say

if TYPE_CHECKING:
    from fedaudit.models.stacked_generator import Architecture
    from fedaudit.priors.training_session import Progress

MINUTES = 5.0


@click.command(
    epilog=examples(
        "fedaudit prior train photos/ -o prior.safetensors",
        "fedaudit prior train more/ -o better.safetensors --from prior.safetensors",
        "fedaudit prior train photos/ -o prior.safetensors --resume --minutes 10",
        "fedaudit prior train --data openpeople --apart p09 --apart p10 --generated 2000",
        "fedaudit prior train --data lfw_subset --size 32 --steps 500",
        note="Subfolders of FOLDER are taken for people: whole people are kept apart where there "
        "are ten or more. Beside the prior lie its checkpoint, and a folder of pictures: photos in "
        "the first row, how they come back in the second, faces from random latents below.",
    )
)
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--data", help="A registered data set in place of FOLDER: orl, lfw_subset …")
@output_file("The prior's file.", Path("prior.safetensors"))
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help=f"How long this call trains.  [default: {MINUTES:g}, unless --steps is given]",
)
@click.option("--steps", type=click.IntRange(min=1), help="Train until so many steps are done.")
@click.option(
    "--size",
    type=click.Choice(["32", "64", "112"]),
    default="64",
    show_default=True,
    help="Pixels.",
)
@click.option(
    "--architecture",
    type=click.Choice(["dcgan", "style"]),
    default="dcgan",
    show_default=True,
    help="Of a fresh generator: style is a small StyleGAN2.",
)
@click.option(
    "--from",
    "start",
    default="random",
    help="Weights to start from: an earlier prior's file, or face_gan (2 to 4 times the "
    "work a step; a fresh start did better on 90 and on 360 photos).  [default: none]",
)
@click.option(
    "--hold-out",
    type=click.FloatRange(0, 0.5),
    default=0.1,
    show_default=True,
    help="Part of the photos that is kept apart to judge the prior.",
)
@click.option(
    "--apart",
    multiple=True,
    metavar="PERSON",
    help="Keep this person apart in place of a part at random; give it once a person of the audit.",
)
@click.option(
    "--generated",
    type=click.IntRange(min=0),
    default=0,
    help="Faces of face_gan that are half of what is learned (its terms bar commercial use), "
    "where photos are few: 2000 …  [default: none]",
)
@click.option(
    "--augment",
    is_flag=True,
    help="Learn each photo zoomed, turned, moved and toned anew each time, where photos are few.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="That computes, such as cuda.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, with the same options.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def train(
    *,
    folder: Path | None,
    data: str | None,
    output: Path,
    minutes: float | None,
    steps: int | None,
    size: str,
    architecture: "Architecture",
    start: str,
    hold_out: float,
    apart: tuple[str, ...],
    generated: int,
    augment: bool,
    seed: int,
    device: str,
    resume: bool,
    quiet: bool,
) -> int:
    """Train a prior on the face photos in FOLDER, cropped tightly, and those in its subfolders.

    Minutes on a laptop give blurry faces of the right kind, which is what an attack's search needs
    first. Interrupt it at will: what was learned is written, and --resume goes on.
    """
    if (folder is None) == (data is None):
        raise click.UsageError("give either FOLDER or --data.")
    from fedaudit.priors import training_session  # noqa: PLC0415 - imports torch
    from fedaudit.priors.autoencoder import Settings  # noqa: PLC0415
    from fedaudit.priors.training_photos import load_photos, with_generated  # noqa: PLC0415
    from fedaudit.study.execution import check_device  # noqa: PLC0415

    check_device(device)
    photos = load_photos(folder, data, size=int(size), hold_out=hold_out, apart=apart, seed=seed)
    if generated:
        photos = with_generated(photos, generated, seed)
    if minutes is None and steps is None:
        minutes = MINUTES
    kept = f", {len(photos.held_out)} kept apart" if len(photos.held_out) else ""
    say(f"{len(photos.train)} photos of {photos.name}{kept}", err=True)
    try:
        with live(stderr(), "training", 1.0, quiet=quiet) as update:
            manifest = training_session.train(
                photos,
                Settings(
                    size=int(size),
                    architecture=architecture,
                    start=start,
                    augment=augment,
                    seed=seed,
                ),
                output,
                minutes=minutes,
                steps=steps,
                resume=resume,
                device=device,
                report=lambda now: update(now.share, _line(now), f"{now.share:.0%}  {_line(now)}"),
            )
    except KeyboardInterrupt:
        return interrupted("learned", *([] if resume else ["--resume"]))
    basis = "photos kept apart" if manifest.held_out else "its own photos"
    say(f"prior: {output} ({manifest.steps} steps; {basis}: {manifest.psnr:.2f} dB)")
    say(f"pictures: {training_session.samples_folder(output)}")
    return OK


def _line(now: "Progress") -> str:
    phase = "learning the start's faces" if now.warming_up else f"error {now.error:.4f}"
    quality = "" if now.psnr is None else f", {now.psnr:.2f} dB"
    return f"step {now.step}, {phase}{quality}"
