"""A command group that imports a command only when it is chosen."""

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import click


class LazyGroup(click.Group):
    """Commands by name, each a path and its one-line help.

    Args:
        lazy: `{name: ("package.module:command", "One line.")}`, in the order of the help text.
        settings: Of `click.Group`.
    """

    def __init__(self, *, lazy: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(**settings)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order of the help text."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begin with; a wrong one names the closest."""
        name = args[0]
        if name not in self._lazy and not name.startswith("-"):
            close = get_close_matches(name, self._lazy, n=1, cutoff=0.5)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(self._lazy)}."
            )
            raise click.UsageError(f"unknown command {name!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._lazy.items()])
