"""The one place where commands write text: nothing in it steers a terminal, whoever wrote it."""

import json
from typing import Any

import click

from fedaudit.core.printable import printable_json, printable_lines


def say(text: str, *, err: bool = False) -> None:
    """Print text on stdout or stderr; of what cannot be printed, line breaks alone stay raw."""
    click.echo(printable_lines(text), err=err)


def say_json(content: Any) -> None:
    """Print plain data as JSON on stdout."""
    click.echo(printable_json(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)))
