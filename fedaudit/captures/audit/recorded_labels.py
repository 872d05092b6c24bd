"""Labels that a recorded run's report and files carry: of rounds, and of what protects updates."""

import re

from fedaudit.captures.inspect.inspection import Inspection
from fedaudit.core.errors import ConfigError
from fedaudit.core.printable import printable
from fedaudit.core.scenario import SAFE_NAME

AS_RECORDED = "as-recorded"
"""What protects the updates where nothing is stated and nothing is seen."""


def rounds_name(rounds: tuple[int, ...]) -> str:
    """The scenario of these rounds, sorted, as files carry it: "rounds-1-to-4"."""
    if len(rounds) == 1:
        return f"round-{rounds[0]}"
    whole = rounds == tuple(range(rounds[0], rounds[-1] + 1))
    return f"rounds-{rounds[0]}-to-{rounds[-1]}" + ("" if whole else f"-{len(rounds)}-of-them")


def deployed_label(word: str | None, seen: str) -> str:
    """The label of the recorded updates: the auditor's word, or what is stated and seen.

    Raises:
        ConfigError: No file could carry the word; or it is "none", and the capture says otherwise.
    """
    word = word or seen
    if not re.fullmatch(SAFE_NAME, word):
        raise ConfigError(
            "--deployed must be a name of letters, digits and . _ + -, as files carry it, not "
            f"{printable(word)[:60]!r}."
        )
    if word == "none" and seen not in {"none", AS_RECORDED}:
        raise ConfigError(
            f"--deployed none: the capture states, or its numbers show, {seen!r}. Leave --deployed "
            "out, or name what the clients deployed."
        )
    return word


def protection_label(inspection: Inspection) -> str:
    """What protects the updates, as a label: stated, and seen in the numbers."""
    facts = inspection.facts
    names = list(facts.get("protections") or ()) + (["dp"] if facts.get("dp") else [])
    seen = ("aggregate", "clipping", "noise", "sparsity", "quantization", "encrypted or masked")
    names += [one.name for one in inspection.protections if one.name in seen]
    if not names:
        return "none" if facts.get("protections") is not None else AS_RECORDED
    return safe_label(
        "+".join(dict.fromkeys(safe_label(name, "other") for name in names)), "protected"
    )


def safe_label(text: str, otherwise: str) -> str:
    """A label that files may carry."""
    name = re.sub(r"[^A-Za-z0-9._+]+", "-", text).strip("-._+")[:48].strip("-")
    return name if re.fullmatch(SAFE_NAME, name) else otherwise
