"""What `run` and `demo` share: run a study, show progress, write the report, say the verdict."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from fedaudit.cli.conclusion import conclude, require_deployed
from fedaudit.cli.console import progress
from fedaudit.cli.ending import OK, interrupted
from fedaudit.cli.options import RunOptions
from fedaudit.cli.plan import plan
from fedaudit.cli.say import say
from fedaudit.cli.tensorboard_log import tensorboard_log
from fedaudit.core.errors import StorageError
from fedaudit.core.scenario import Study
from fedaudit.reports.interim_analysis import decided
from fedaudit.study.execution import execution
from fedaudit.study.scheduler import Event
from fedaudit.study.session import Opened


def run_study(
    study: Study,
    output: Path,
    options: RunOptions,
    hopeless: Callable[[Path], str] | None = None,
) -> int:
    """Run a study, show progress, write the report, print the verdict; returns the exit code.

    Of a dry run only the plan is printed; `hopeless` is as in `execution`.
    """
    require_deployed(study, options.fail_on)
    if options.encrypt_evidence:
        study = replace(study, encrypt_evidence=options.encrypt_evidence)
    if options.sequential:
        study = replace(study, sequential=True)
    if options.dry_run:
        say(plan(study, output, options))
        return OK
    again = shlex.join(["fedaudit", *sys.argv[1:]])
    place = options.place

    @contextmanager
    def watch(space: Opened) -> Iterator[Callable[[Event], None]]:
        with progress(space.todo, place.make().slots, quiet=options.quiet) as show:

            def show_and_log(event: Event) -> None:
                show(event)
                log(space, event)

            yield show_and_log

    try:
        with (
            tensorboard_log(options.tensorboard, output) as log,
            execution(
                study,
                output,
                command=kept_command(sys.argv[1:]),
                evidence=options.evidence,
                place=place,
                retry_failed=options.retry_failed,
                budget=options.budget,
                look=decided,
                hopeless=hopeless,
                watch=watch,
                note=lambda message: say(message, err=True),
            ) as outcome,
        ):
            return conclude(
                output,
                outcome.evidence,
                fail_on=options.fail_on,
                failed=outcome.failed,
                jobs=outcome.jobs,
                undone=outcome.left,
            )
    except KeyboardInterrupt:
        return interrupted()
    except StorageError as error:
        raise StorageError(f"{error}\n  {again}") from error


def kept_command(words: Sequence[str]) -> str:
    """A command line for the record, without the folders of --truth, which people may have named.

    >>> kept_command(["audit", "c", "--truth", "client-7=photos/anna", "-o", "runs/a"])
    'fedaudit audit c --truth client-7=… -o runs/a'
    """
    rest = [
        re.sub(r"^(--truth=)?([^=/]*=)?.*", r"\1\2…", word, flags=re.DOTALL)
        if "--truth" in (before, word.partition("=")[0]) and word != "--truth"
        else word
        for before, word in pairwise(["", *words])
    ]
    parts = (word if word.endswith("…") else shlex.quote(word) for word in rest)
    return " ".join(["fedaudit", *parts])
