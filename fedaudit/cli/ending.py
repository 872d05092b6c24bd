"""How every command ends: an exit code, and one message instead of a traceback."""

import os
import shlex
import sys
import traceback
from collections.abc import Sequence

import click

from fedaudit.cli.say import say
from fedaudit.core.errors import FedauditError
from fedaudit.core.printable import printable_lines
from fedaudit.files.atomic import storage_error

OK, GATE, USAGE, INCONCLUSIVE, FAILURE, INTERRUPTED = 0, 1, 2, 3, 4, 130
LONGEST = 1000
"""Characters of an error; one that lists all names there are is the longest."""


def end(command: click.Command, args: Sequence[str]) -> int:
    """Run a command line and return its exit code; errors become one message on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # an ASCII terminal must not stop an audit
    try:
        code = command.main(args=list(args), prog_name="fedaudit", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, SystemExit, Exception) as error:
        return _explain(error)
    return code if isinstance(code, int) else OK


def interrupted(kept: str = "finished", *more: str) -> int:
    """Say that what was done is kept, and with which command, `more` of it, to go on."""
    again = shlex.join(["fedaudit", *sys.argv[1:], *more])
    say(f"interrupted; what was {kept} is kept. Go on with:\n  {again}", err=True)
    return INTERRUPTED


def _explain(error: BaseException) -> int:
    """Say what ended the command, and choose the exit code."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        say("interrupted.", err=True)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError | SystemExit):  # click turns the one into the other
        _drop_stdout()  # whoever read it is gone
        return FAILURE
    if isinstance(error, click.ClickException):
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help text
            error.show()
        else:
            _say(error.format_message(), _help(error))
        return USAGE
    cause = storage_error(error) if isinstance(error, OSError) else error
    if isinstance(cause, FedauditError):
        if isinstance(error, OSError):
            _drop_stdout()  # it may be stdout that cannot be written
        _say(str(cause))
        return cause.exit_code
    hint = "FEDAUDIT_DEBUG=1 shows where; please report it if it is not your data's fault."
    _say(f"{type(error).__name__}: {error}", hint)
    return FAILURE


def _say(message: str, hint: str = "") -> None:
    if os.environ.get("FEDAUDIT_DEBUG", "") not in {"", "0"}:
        traceback.print_exc()
    message = printable_lines(message, LONGEST)  # parts of it may be a stranger's
    say(f"error: {message}" + (f"\n{hint}" if hint else ""), err=True)


def _help(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"`{context.command_path} --help` shows how to write it." if context else ""


def _drop_stdout() -> None:
    """Keep the interpreter from flushing into a closed pipe or a full disk as it exits."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is not a file, as in tests
        return
