"""`fedaudit prior`: train a generator of faces, look at it, check one of your own."""

from collections.abc import Mapping
from pathlib import Path

import click

from fedaudit.cli.group import LazyGroup
from fedaudit.cli.options import examples, output_file
from fedaudit.cli.say import say

COMMANDS = {
    "train": ("fedaudit.cli.prior_train:train", "Train a prior on a folder of face photos."),
    "show": ("fedaudit.cli.prior:show", "Draw faces from a prior into a PNG."),
    "check": ("fedaudit.cli.prior:check", "Load a prior, and measure what it can express."),
}

SOURCES = (
    "PRIOR is face_gan, a file that `fedaudit prior train` wrote (.safetensors), a TorchScript "
    "(.ts, .pt) or torch.export (.pt2) file, or package.module:factory."
)


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog=examples(
        "fedaudit prior train photos/ -o prior.safetensors --minutes 5",
        "fedaudit prior show prior.safetensors -o samples.png",
        "fedaudit prior check prior.safetensors --photos photos/",
        note='A study uses it as `prior = "prior.safetensors"` in the settings of an attack that '
        "draws with a generator, such as gan_inversion.",
    ),
)
def prior() -> None:
    """Train a generator of faces that attacks draw with, look at it, or check one of your own.

    Train on faces that an attacker could have, never on the photos that the audited clients hold:
    a prior that has seen them makes an audit report leaks that no stranger could cause.
    """


@click.command(
    epilog=examples(
        "fedaudit prior show face_gan -o samples.png",
        "fedaudit prior show prior.safetensors -o samples.png --count 64 --seed 1",
        note=SOURCES,
    )
)
@click.argument("source", metavar="PRIOR")
@output_file("The PNG.", Path("samples.png"))
@click.option("--count", type=click.IntRange(1, 1024), default=40, show_default=True, help="Faces.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def show(*, source: str, output: Path, count: int, seed: int) -> None:
    """Draw faces from random latents of PRIOR into a PNG."""
    import torch  # noqa: PLC0415 - heavy

    from fedaudit.files.atomic import write_atomically  # noqa: PLC0415
    from fedaudit.models.generator import load_generator  # noqa: PLC0415
    from fedaudit.priors.face_grids import grid  # noqa: PLC0415

    generator = load_generator(source)
    latents = generator.latents.draw(count, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        images = torch.cat([generator(part) for part in torch.split(latents, 32)])
    write_atomically(output, grid(torch.split(images, 10)))
    say(f"{count} faces: {output}")


@click.command(
    epilog=examples(
        "fedaudit prior check face_gan --data orl",
        "fedaudit prior check my_package.generators:make --photos photos/",
        "fedaudit prior check prior.safetensors --data openpeople --size 64 --apart p09",
        note=SOURCES,
    )
)
@click.argument("source", metavar="PRIOR")
@click.option(
    "--photos",
    type=click.Path(path_type=Path),
    help="Folder of face photos that it is to express; best none that it was trained on.",
)
@click.option("--data", help="Or a registered data set: orl, lfw_subset …")
@click.option(
    "--apart", multiple=True, metavar="PERSON", help="Of these people only, whom it did not learn."
)
@click.option("--size", type=click.IntRange(8, 512), default=32, show_default=True, help="Pixels.")
@click.option("--most", type=click.IntRange(1, 1000), default=20, show_default=True, help="Photos.")
@output_file("A PNG: photos above, what the prior makes of them below.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def check(
    *,
    source: str,
    photos: Path | None,
    data: str | None,
    apart: tuple[str, ...],
    size: int,
    most: int,
    output: Path | None,
    seed: int,
) -> None:
    """Load PRIOR as an attack would, and say what it takes, what it gives, and how fast it is.

    With photos it also searches the latents that come closest to them: no attack that stays within
    the prior can draw them better.
    """
    if photos and data:
        raise click.UsageError("give --photos or --data, not both.")
    if (output or apart) and not (photos or data):
        raise click.UsageError("--output and --apart need --photos or --data.")
    from fedaudit.priors import prior_check  # noqa: PLC0415 - imports torch
    from fedaudit.priors.training_photos import load_photos  # noqa: PLC0415

    _show(prior_check.describe(source))
    if photos or data:
        every = load_photos(photos, data, size=size, hold_out=0, apart=apart)
        judged = every.held_out if apart else every.train
        _show(prior_check.measure_expressiveness(source, judged, most, seed, output))


def _show(facts: Mapping[str, str]) -> None:
    for key, value in facts.items():
        say(f"{key:<11} {value}")
