"""What `run` and `demo` share: run a study, show progress, write the report, say the verdict."""

import shlex
import sys
from pathlib import Path

import click
import torch

from fedaudit.cli.conclusion import conclude
from fedaudit.cli.console import progress
from fedaudit.cli.ending import INTERRUPTED, OK
from fedaudit.cli.options import RunOptions
from fedaudit.cli.plan import plan
from fedaudit.core.errors import AssetError, StorageError, UsageError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.registry import create
from fedaudit.core.scenario import Choice, Study
from fedaudit.files import asset_store
from fedaudit.files.asset_table import ASSETS
from fedaudit.study import session
from fedaudit.study.executor import default_workers
from fedaudit.study.run_folder import RunFolder
from fedaudit.study.sources import source_of


def check_device(name: str) -> None:
    """Refuse a device that torch does not have, before anything runs.

    Raises:
        UsageError: No such device here.
    """
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        have = f"cuda (0 to {torch.cuda.device_count() - 1})" if torch.cuda.is_available() else ""
        raise UsageError(
            f"torch cannot compute on {name!r} here. This machine has: "
            f"{', '.join(filter(None, ['cpu', have]))}. Leave --device out for the CPU."
        ) from error


def run_study(study: Study, output: Path, options: RunOptions) -> int:
    """Run a study, show progress, write the report, print the verdict; returns the exit code.

    Of a dry run only the plan is printed.
    """
    if options.dry_run:
        click.echo(plan(study, output, options))
        return OK
    again = shlex.join(["fedaudit", *sys.argv[1:]])
    check_device(options.device)
    try:
        with session.open_run(output, study, command=again, evidence=options.evidence) as opened:
            _say_state(opened)
            if opened.todo:
                _fetch(study, opened.folder)
            workers = options.workers or (1 if options.device != "cpu" else default_workers())
            with progress(opened.todo, workers, quiet=options.quiet) as show:
                outcomes = session.run(
                    opened, workers=workers, on_event=show, device=options.device
                )
            _, code = conclude(
                output,
                opened.manifest.evidence,
                fail_on=options.fail_on,
                failed=session.failures(outcomes),
                jobs=len(opened.jobs),
            )
            return code
    except KeyboardInterrupt:
        click.echo(f"interrupted; what was finished is kept. Go on with:\n  {again}", err=True)
        return INTERRUPTED
    except StorageError as error:
        raise StorageError(f"{error}\n  {again}") from error


def _fetch(study: Study, folder: RunFolder) -> None:
    """Get what every job would wait for, once, before the workers start.

    Raises:
        AssetError: Something that no job can do without is neither cached nor fetchable.
    """
    needed = [study.data.name] if study.data.name in ASSETS else []
    drawn = any(_draws_faces(c) for scenario in study.scenarios for c in scenario.attacks)
    needed += ["face_gan"] if drawn or study.data.name == "synthetic" else []
    source = source_of(study, folder).facts()
    if source.originals:
        needed.append("lpips_alex")
    for name in needed:
        asset_store.path(name, say=_note)
    if not source.gallery:
        return
    try:
        asset_store.path("face_embedder", say=_note)
    except AssetError as error:
        click.echo(f"note: identity will not be tested: {error}", err=True)


def _draws_faces(attack: Choice) -> bool:
    """Whether an attack uses the stock generator: it needs faces, and names no other source."""
    needs = create("attacks", attack.name, attack.settings).needs
    own = str(attack.settings.get("prior", "face_gan")) != "face_gan"
    return Knowledge.AUXILIARY in needs and not own


def _note(message: str) -> None:
    click.echo(message, err=True)


def _say_state(opened: session.Opened) -> None:
    for message in opened.stock.damaged.values():
        click.echo(f"note: {message}", err=True)
    if done := len(opened.jobs) - len(opened.todo):
        click.echo(f"{done} of {len(opened.jobs)} jobs were done before", err=True)
