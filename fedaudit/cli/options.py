"""Options that several commands share, and examples for help texts. Nothing heavy is imported."""

import click

EVIDENCE = ("none", "redacted", "full")
GATES = ("critical", "high", "medium", "low")
"""Severities from the gravest down."""

workers_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Processes.  [default: CPU cores]"
)
device_option = click.option(
    "--device", default="cpu", show_default=True, help="Where attacks compute, such as cuda."
)
quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="No progress, only failures and the verdict."
)
fail_on_option = click.option(
    "--fail-on", type=click.Choice(GATES), help="Exit with 1 if a finding is as grave as that."
)


def examples(*lines: str, note: str = "") -> str:
    r"""Epilog of a help text; `\b` keeps click from joining the lines."""
    text = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
    return f"{text}\n\n{note}" if note else text
