"""`fedaudit cache`: what was learned and is kept in the user's cache folder."""

import click

from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json
from fedaudit.core.errors import UsageError

_SHORT = 12


@click.group(
    epilog=examples(
        "fedaudit cache ls",
        "fedaudit cache rm 3f2a91c0",
        "fedaudit cache rm --photos",
        note="What is fetched is listed by `fedaudit assets list`. What attacks learned from "
        "photos of yours (their setting photos) may show those people: `rm --photos` removes it.",
    )
)
def cache() -> None:
    """List and remove what attacks learned and keep for other runs."""


@cache.command(epilog=examples("fedaudit cache ls --json"))
@click.option("--json", "as_json", is_flag=True, help="As JSON, with full names and paths.")
def ls(*, as_json: bool) -> None:
    """List what is kept: what it is, its size, and whose photos it was made from."""
    from fedaudit.cli.terminal_table import show  # noqa: PLC0415 - imports rich
    from fedaudit.files.cache import list_entries  # noqa: PLC0415 - imports torch

    entries = list_entries()
    if as_json:
        plain = [
            {
                "key": one.key,
                "path": str(one.path),
                "bytes": one.size,
                "what": one.what,
                "photos": one.photos,
                "made": one.made,
            }
            for one in entries
        ]
        say_json(plain)
        return
    rows = [
        (
            one.key[:_SHORT],
            one.what,
            f"{one.size / 1e6:.1f} MB",
            f"yours: {one.photos}" if one.photos else "none of yours",
            one.made,
        )
        for one in entries
    ]
    show(("key", "what", "size", "photos", "made"), rows)


@cache.command(
    epilog=examples(
        "fedaudit cache rm 3f2a91c0", "fedaudit cache rm --photos", "fedaudit cache rm --all"
    )
)
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--photos", is_flag=True, help="All that was made from photos of yours.")
@click.option("--all", "everything", is_flag=True, help="All that was learned.")
def rm(*, keys: tuple[str, ...], photos: bool, everything: bool) -> None:
    """Remove what is kept, by the beginnings of keys or by kind; it is learned anew when needed.

    What an earlier version kept does not say whose photos it was made from: --photos removes it,
    too.
    """
    from fedaudit.files.cache import list_entries  # noqa: PLC0415 - imports torch

    entries = list_entries()
    if not (keys or photos or everything):
        raise UsageError("say what to remove: keys of `fedaudit cache ls`, --photos, or --all")
    for key in keys:
        if not key or not any(one.key.startswith(key) for one in entries):
            raise UsageError(f"nothing is kept under {key!r}. `fedaudit cache ls` lists the keys.")
    selection = [
        one
        for one in entries
        if everything
        or (photos and (one.photos or one.what in {"unknown", "damaged"}))
        or any(one.key.startswith(key) for key in keys)
    ]
    for one in selection:
        one.path.unlink(missing_ok=True)
    size = sum(one.size for one in selection) / 1e6
    say(f"removed {len(selection)} file(s), {size:.1f} MB")
