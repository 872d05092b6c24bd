"""`fedaudit explain`: one plugin, its settings, and what it must know."""

from typing import Any

import click

from fedaudit.cli.catalog import KINDS, UNREGISTERED, explanation, names
from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json
from fedaudit.core.errors import ConfigError, UnknownNameError
from fedaudit.study.named_code import look_in_current_folder


@click.command(
    epilog=examples(
        "fedaudit explain gan_inversion",
        "fedaudit explain dpsgd --json",
        "fedaudit explain D",
        "fedaudit explain my_package.attacks:MeanFace   # not registered; runs its code",
    )
)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def explain(*, name: str, as_json: bool) -> None:
    """Explain the attack, defense, data set, threat model … of that NAME.

    A plugin that is not registered has the name by which studies use it, package.module:Object.
    """
    everything = {kind: names(kind) for kind in KINDS}
    matches = [explanation(kind, name) for kind, group in everything.items() if name in group]
    if name in KINDS:
        raise ConfigError(f"{name!r} is a kind, not one plugin. Write: fedaudit list {name}")
    if ":" in name:
        look_in_current_folder()
        matches = [explanation(UNREGISTERED, name)]
    if not matches:
        raise UnknownNameError("plugin", name, {n for group in everything.values() for n in group})
    if as_json:
        say_json(matches)
        return
    say("\n\n".join(_text(one) for one in matches))


def _text(one: dict[str, Any]) -> str:
    kind = one["kind"].removesuffix("s").replace("-", " ")
    lines = [f"{one['name']} ({kind})", "", one["text"]]
    if settings := one.get("settings"):
        lines += ["", "Types and defaults:"]
        for setting in settings:
            annotation = f": {setting['type']}" if "type" in setting else ""
            default = f" = {setting['default']}" if "default" in setting else "  (required)"
            lines.append(f"  {setting['name']}{annotation}{default}")
    if paper := one.get("published"):
        lines += ["", 'With variant = "published", as in its paper:']
        lines += [f"  {setting} = {value}" for setting, value in paper.items()]
    if needs := one.get("needs"):
        from fedaudit.core.knowledge import Knowledge  # noqa: PLC0415 - imports torch
        from fedaudit.core.threat_models import EXPLANATIONS  # noqa: PLC0415 - imports torch

        lines += ["", "Needs to know:"]
        lines += [f"  {fact}: {EXPLANATIONS[Knowledge(fact)]}" for fact in needs]
    for key in ("reads", "grants"):
        if key in one:
            lines += ["", f"{key.capitalize()}: {', '.join(one[key]) or 'nothing'}"]
    if "paper" in one:
        lines += ["", f"Paper: {one['paper']}"]
    return "\n".join(lines)
