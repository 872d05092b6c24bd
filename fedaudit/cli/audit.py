"""`fedaudit audit`: attack what was recorded in a real run."""

from pathlib import Path
from typing import Any

import click

from fedaudit.cli.named_choices import named_choices
from fedaudit.cli.options import RunOptions, examples, run_options
from fedaudit.cli.say import say
from fedaudit.core.errors import ConfigError
from fedaudit.core.scenario import Choice


def _numbers(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    del context, option
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter("write numbers with commas between them: 1,2")
    return tuple(sorted({int(part) for part in parts}))


def _choices(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    del context, option
    if value is None:
        return None
    try:
        return named_choices(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    epilog=examples(
        "fedaudit audit capture --model my_app.task:Net -o runs/audit",
        "fedaudit audit capture --truth client-7=photos/anna --gallery faces -o runs/audit",
        "fedaudit audit capture --gallery faces --rounds 1,2 --attacks gan_inversion -o runs/audit",
        "fedaudit audit capture --model torchvision:resnet18 --rename backbone= -o runs/audit",
        "fedaudit audit capture --model net.pt2 --rename auto -o runs/audit --dry-run",
        note="Photos of --truth lie flat in the folder, or in a folder a person, or either in "
        "round-1, round-2 …; of --gallery in a folder a person. Attacks see neither. A report on "
        "them shows no face unless --evidence full asks for it. Exit codes: 0 fine, also where a "
        "leak was found, 1 gate failed, 2 usage, 3 audit invalid or inconclusive (so it is where "
        "neither --truth nor --gallery can say whose face came back), 4 failure, 130 interrupted.",
    )
)
@click.argument("capture", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="RUN",
    help="Run folder: a new one, or one to go on with.",
)  # fmt: skip
@click.option(
    "--model", metavar="NAME|FILE",
    help="A registered network, package.module:factory, torchvision:NAME, timm:NAME, or a file of "
    "TorchScript (.pt, .ts) or torch.export (.pt2). What you name is run: name only what you "
    "trust.  [default: what the capture names, where that is a registered network]",
)  # fmt: skip
@click.option(
    "--rename", "rename", multiple=True, metavar="OLD=NEW|auto",
    help="Names of the capture that differ in the model, by their first parts (module= takes a "
    "prefix away); auto maps what names and shapes leave no choice about. Repeatable.",
)  # fmt: skip
@click.option(
    "--truth", "truths", multiple=True, metavar="[CLIENT=]DIR",
    help="Photos of a consenting client, whose updates alone are attacked then. Repeatable.",
)  # fmt: skip
@click.option(
    "--gallery", type=click.Path(path_type=Path), metavar="DIR",
    help="People to look for: a folder of photos each, two or more.",
)  # fmt: skip
@click.option("--rounds", callback=_numbers, metavar="N,…", help="Only these.  [default: all]")
@click.option(
    "--client", "--clients", "clients", multiple=True, metavar="NAME",
    help="Only this. Repeatable.  [default: all, or those of --truth]",
)  # fmt: skip
@click.option(
    "--attacks", callback=_choices, metavar="NAME[(SETTING=…)],…",
    help="With settings as `fedaudit explain NAME` lists them: 'gan_inversion(pixel_steps=900)'.  "
    "[default: those that apply, one a kind]",
)  # fmt: skip
@click.option(
    "--targets", type=click.IntRange(min=1), default=16, show_default=True,
    help="Updates of each round at most.",
)  # fmt: skip
@click.option(
    "--fmr", type=click.FloatRange(0, 0.5, min_open=True), default=1e-3, show_default=True,
    help="False match rate at which two faces count as one person.",
)  # fmt: skip
@click.option(
    "--ceiling-floor", type=click.FloatRange(0, 1), default=0.5, show_default=True,
    help="Share of the gallery's own photos that must be recognized, else the audit is invalid.",
)  # fmt: skip
@click.option(
    "--deployed", metavar="LABEL", default="",
    help="What the clients deployed, as the report is to call it; it is what the verdict judges.  "
    "[default: what the capture states and its numbers show]",
)  # fmt: skip
@click.option(
    "--keep-going", is_flag=True,
    help="Attack the updates also where no attack rebuilds a known face of the positive control.",
)  # fmt: skip
@run_options
def audit(
    *,
    capture: Path,
    output: Path,
    model: str | None,
    rename: tuple[str, ...],
    truths: tuple[str, ...],
    gallery: Path | None,
    rounds: tuple[int, ...] | None,
    clients: tuple[str, ...],
    attacks: tuple[Choice, ...] | None,
    targets: int,
    fmr: float,
    ceiling_floor: float,
    deployed: str,
    keep_going: bool,
    options: RunOptions,
) -> int:
    """Attack what was recorded in CAPTURE, and write results.json and report.html.

    With photos of a consenting client (--truth) what comes back is measured against them. With a
    gallery, faces are recognized. Without either, only how well they explain the updates is told.
    """
    from fedaudit.captures.audit.audit_request import Request  # noqa: PLC0415 - imports torch
    from fedaudit.captures.audit.capture_study import study_of  # noqa: PLC0415 - imports torch
    from fedaudit.cli.run_study import run_study  # noqa: PLC0415 - imports torch
    from fedaudit.data.folder import folder  # noqa: PLC0415 - imports torch
    from fedaudit.reports.interim_analysis import reason_to_stop  # noqa: PLC0415 - imports torch
    from fedaudit.study.named_code import look_for_code  # noqa: PLC0415 - imports torch

    look_for_code(model)
    if gallery is not None:
        folder(path=str(gallery), size=16)  # whatever is wrong with it is said now
    request = study_of(
        Request(
            path=capture,
            model=model,
            rename=rename,
            truth=_truth(truths),
            gallery=gallery,
            rounds=rounds,
            clients=clients or None,
            attacks=attacks,
            targets=targets,
            fmr=fmr,
            ceiling_floor=ceiling_floor,
            deployed=deployed,
        )
    )
    if not options.quiet:
        for note in request.notes:
            say(f"note: {note}", err=True)
    hopeless = None if keep_going else reason_to_stop
    return run_study(request.study, output, options, hopeless)


def _truth(texts: tuple[str, ...]) -> dict[str, Path]:
    """Folders by client; "" where none is named."""
    folders: dict[str, Path] = {}
    for text in texts:
        client, equals, path = text.rpartition("=")
        if not equals or Path(text).is_dir():
            client, path = "", text
        if client in folders:
            whose = f"client {client!r}" if client else "a client that is not named"
            raise ConfigError(f"--truth is given twice for {whose}: put the photos into one folder")
        folders[client] = Path(path)
    if "" in folders and len(folders) > 1:
        raise ConfigError("--truth: with several, name each client: --truth CLIENT=DIR")
    return folders
