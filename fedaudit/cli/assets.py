"""`fedaudit assets`: the files that an audit needs and that are not part of the package."""

import click

from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json
from fedaudit.cli.terminal_table import show
from fedaudit.core.errors import AssetError
from fedaudit.files import asset_store as store
from fedaudit.files.asset_table import ASSETS, find


@click.group(
    epilog=examples(
        "fedaudit assets list",
        "fedaudit assets fetch",
        "fedaudit assets fetch orl face_gan",
        note="Studies fetch what they need on first use; fetch ahead for a machine that will be "
        "offline. FEDAUDIT_CACHE moves the cache, FEDAUDIT_OFFLINE=1 forbids fetching, and "
        "FEDAUDIT_ASSET_NAME=PATH names a copy of your own.",
    )
)
def assets() -> None:
    """Fetch, list and check models and data sets."""


@assets.command(
    "list", epilog=examples("fedaudit assets list --check", "fedaudit assets list --json")
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, with hashes and commands.")
@click.option("--check", is_flag=True, help="Hash every file instead of comparing sizes.")
def list_assets(*, as_json: bool, check: bool) -> None:
    """List the assets: what each is for, its terms, and whether it is at hand."""
    states = {name: store.state(name, thorough=check) for name in ASSETS}
    if as_json:
        content = [
            {
                "name": asset.name,
                "state": states[asset.name].value,
                "optional": asset.optional,
                "purpose": asset.purpose,
                "terms": asset.terms,
                "registry": asset.registry,
                "package": asset.package,
                "version": asset.version,
                "archive_bytes": asset.bytes,
                "archive_sha256": asset.sha256,
                "variable": asset.variable,
                "command": asset.command,
            }
            for asset in ASSETS.values()
        ]
        say_json(content)
        return
    rows = [
        (
            asset.name,
            states[asset.name].value,
            f"{asset.bytes / 1e6:.1f} MB",
            f"{asset.package} {asset.version}",
            asset.purpose + (" (optional)" if asset.optional else ""),
            asset.terms,
        )
        for asset in ASSETS.values()
    ]
    show(("name", "state", "download", "package", "for", "terms"), rows)


@assets.command(
    epilog=examples("fedaudit assets fetch", "fedaudit assets fetch orl lpips_alex"),
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
def fetch(*, names: tuple[str, ...]) -> None:
    """Fetch the named assets, or all of them, and print where each lies.

    What is cached already is hashed, and fetched anew where it is damaged.
    """
    failures = []
    for name in [find(name).name for name in names] or ASSETS:
        try:
            place = store.path(name, say=lambda line: say(line, err=True))
        except AssetError as error:
            failures.append(str(error))  # the others are worth having all the same
        else:
            say(f"{name}\t{place}")
    if failures:
        raise AssetError("\n\n".join(failures))
