"""`fedaudit inspect`: what a recorded run holds, and what can attack it."""

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedaudit.cli.ending import GATE, OK
from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json
from fedaudit.core.printable import printable

if TYPE_CHECKING:
    from fedaudit.captures.inspect.inspection import Inspection, RoundSummary

SHOWN = 20
"""Lines of a kind that are shown; all of them stand in --json."""


@click.command(
    epilog=examples(
        "fedaudit inspect capture",
        "fedaudit inspect capture --json > inspection.json",
        "fedaudit inspect capture --verify",
        note="Exit codes: 0 all of it can be used, 1 some files cannot, 2 no capture. That a "
        "protection is not seen does not mean that there is none.",
    )
)
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option(
    "--verify", is_flag=True, help="Read all tensors, and report those that were changed since."
)
def inspecting(*, capture: Path, as_json: bool, verify: bool) -> int:
    """Show what a CAPTURE holds: rounds, clients, norms, anomalies, protections, attacks.

    A capture is a folder that fedaudit.recording(…) or `fedaudit import` wrote. Updates are shown
    as they were measured when they were recorded; --verify measures them anew.
    """
    import torch  # noqa: PLC0415 - slow

    from fedaudit.captures.format.capture_reader import StoredCapture  # noqa: PLC0415 - imports torch
    from fedaudit.captures.inspect.inspection import inspect  # noqa: PLC0415 - imports torch

    torch.set_num_threads(1)  # what is computed at a time is small, and disks are slower anyway
    summary = inspect(StoredCapture(capture), verify=verify)
    if as_json:
        say_json(summary.as_plain())
    else:
        say("\n".join(_text(summary)))
    return GATE if summary.problems else OK


def _text(summary: "Inspection") -> list[str]:
    clients = {name for one in summary.rounds for name in one.clients}
    updates = sum(one.updates for one in summary.rounds)
    lines = [
        f"{printable(summary.folder)}: {_many(len(summary.rounds), 'round')}, "
        f"{_many(len(clients), 'client')}, {_many(updates, 'update')}, "
        f"recorded {printable(summary.created)}",
        "",
        "Known: " + (", ".join(_fact(n, v) for n, v in summary.facts.items()) or "nothing"),
    ]
    if summary.unknown:
        lines.append("Not known: " + ", ".join(summary.unknown))
    if summary.assumed:
        lines.append("Assumed, as nothing else was stated: " + ", ".join(summary.assumed))
    if summary.found_out:
        lines.append("Found out, but not stated: " + ", ".join(summary.found_out))
    lines += ["", *_limit([_round(one) for one in summary.rounds], "rounds")]
    if summary.kept:
        lines.append(
            f"{summary.kept:,} of {_many(updates, 'update')} as measured when recorded: --verify "
            "reads their tensors"
        )
    if summary.protections:
        lines += ["", "Seen in the updates:"]
        for one in summary.protections:
            word = f"FAULT, {one.name}" if one.fault else one.name
            lines += _wrap(f"{word}: {printable(one.evidence)}")
    if summary.anomalies:
        lines += ["", "Unusual:"]
        unusual = []
        for anomaly in summary.anomalies:
            who = "" if not anomaly.client else f", {printable(anomaly.client)}"
            unusual.append(f"  round {anomaly.round}{who}: {printable(anomaly.what)}")
        lines += _limit(unusual, "anomalies")
    if summary.problems:
        lines += ["", "Cannot be used:"]
        lines += _limit([f"  {printable(problem)}" for problem in summary.problems], "files")
    return [*lines, "", "Attacks:", *_attacks(summary)]


def _attacks(summary: "Inspection") -> list[str]:
    lines = []
    for faces, word in ((False, "apply"), (True, "apply with faces from elsewhere")):
        names = [fit.name for fit in summary.attacks if fit.applies and fit.faces is faces]
        if names or not faces:
            lines += _wrap(f"{word}: {', '.join(names) or 'none'}")
    lacking: dict[tuple[str, ...], list[str]] = {}
    for fit in summary.attacks:
        if not fit.applies:
            lacking.setdefault(fit.missing, []).append(fit.name)
    for missing, names in lacking.items():
        lines += _wrap(f"{', '.join(names)}: miss {'; '.join(map(printable, missing))}")
    from fedaudit.captures.inspect.applicable_attacks import (  # noqa: PLC0415 - imports torch
        how_to_state,
    )

    how = how_to_state(Path(summary.folder), [text for missing in lacking for text in missing])
    if how:
        lines += [
            "",
            "State what attacks miss, with the values of your run:",
            f"  {printable(how)}",
        ]
    return lines


def _round(one: "RoundSummary") -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in one.kinds.items()) or "no updates"
    parts = [f"round {one.number}: {kinds}"]
    if one.updates:
        parts.append(f"{one.tensors} tensors, {one.numbers:,} numbers, {_bytes(one.bytes)} each")
    if one.examples:
        low, high = one.examples
        parts.append(f"{low:,} images" if low == high else f"{low:,} to {high:,} images")
    if one.norm:
        least, middle, most = one.norm
        same = one.updates < 2 or least == most
        parts.append(f"norm {middle:.4g}" + ("" if same else f" ({least:.4g} to {most:.4g})"))
    if one.buffers:
        parts.append(f"{one.buffers} with batch-norm buffers")
    if not one.broadcast:
        parts.append("no broadcast")
    return "; ".join(parts)


def _fact(name: str, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return f"{name} = {printable(text if len(text) <= 80 else text[:77] + '…')}"


def _limit(lines: list[str], what: str) -> list[str]:
    if len(lines) <= SHOWN:
        return lines
    return [*lines[:SHOWN], f"  … {len(lines) - SHOWN} more {what}: --json has them all"]


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, 98, initial_indent="  ", subsequent_indent="    ")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
