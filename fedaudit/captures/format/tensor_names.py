"""Names of a message's tensors: wrappers' prefixes, numbered lists, buffers, and their renaming.

A study keeps the rules by which names of a recording become those of the model.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from fedaudit.core.errors import ConfigError, UsageError

T = TypeVar("T")
STATISTICS = (".running_mean", ".running_var")
COUNTER = ".num_batches_tracked"
PREFIXES = ("module.", "_orig_mod.", "_module.")
"""What DataParallel, torch.compile and Opacus put before every name."""
AUTO = "auto"
"""Asks for the mapping that names and shapes leave no choice about."""
MOST_RULES = 20_000
LONGEST = 500
SHOWN = 6
"""Rules that an error or a report writes out."""
_PLAIN = re.compile(r"[\w.\-/]{0,200}", re.ASCII)


def is_buffer(name: str, buffers: Collection[str] | None = None) -> bool:
    """Whether a name is of a buffer: of batch norm, or listed."""
    return f".{name}".endswith((*STATISTICS, COUNTER)) or (buffers is not None and name in buffers)


def plain_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors without a prefix that all names share and that is a wrapper's."""
    result = dict(tensors)
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in result)), None):
        result = {name.removeprefix(prefix): tensor for name, tensor in result.items()}
    return result


def is_numbered(names: Collection[str]) -> bool:
    """Whether the names are only the places in a list, as the older API of Flower sends them."""
    return bool(names) and all(name == str(place) for place, name in enumerate(names))


def name_tensors(tensors: Mapping[str, T], names: Sequence[str]) -> dict[str, T]:
    """The tensors under plain names; those of a list under `names`, if there are as many."""
    if is_numbered(tensors) and len(names) == len(tensors):
        return dict(zip(names, tensors.values(), strict=True))
    return plain_names(tensors)


@dataclass(frozen=True)
class Renaming:
    """Rules OLD → NEW for the first parts of dotted names; the longest OLD that fits counts.

    Attributes:
        rules: Whole parts, without a dot at either end. "" as OLD fits every name, so that NEW is
            put before it; "" as NEW takes OLD away.
    """

    rules: tuple[tuple[str, str], ...] = ()

    @cached_property
    def _table(self) -> tuple[dict[str, str], int]:
        """The rules, and the length of the longest OLD."""
        return dict(self.rules), max((len(old) for old, _ in self.rules), default=0)

    def name(self, name: str) -> str:
        """A name of the recording as the model has it."""
        table, longest = self._table
        old = name if len(name) <= longest else name[: longest + 1].rpartition(".")[0]
        while old and old not in table:
            old = old.rpartition(".")[0]
        if old not in table:
            return name
        rest = name[len(old) :].removeprefix(".") if old else name
        return ".".join(filter(None, (table[old], rest))) or name

    def names(self, tensors: Mapping[str, T]) -> dict[str, T]:
        """What is under names of the recording, under those of the model, in the same order.

        Raises:
            UsageError: Two names become one.
        """
        if not self.rules:
            return dict(tensors)
        result = {self.name(name): value for name, value in tensors.items()}
        if len(result) < len(tensors):
            by_new: dict[str, str] = {}
            for name in tensors:
                other = by_new.setdefault(self.name(name), name)
                if other != name:
                    raise UsageError(
                        f"--rename makes {self.name(name)!r} of both {other!r} and {name!r}: "
                        "write a rule for one of them."
                    )
        return result

    def as_options(self) -> str:
        """What to type for it; "" where it is long, or holds what is better not typed."""
        parts = [part for rule in self.rules for part in rule]
        if not 0 < len(self.rules) <= SHOWN or not all(_PLAIN.fullmatch(part) for part in parts):
            return ""
        # Some shells take a word that begins with = for a command.
        return " ".join(
            f"--rename {old}={new}" if old else f"--rename '={new}'" for old, new in self.rules
        )


def parse_rules(options: Sequence[str]) -> Renaming | None:
    """Rules as they are typed, `OLD=NEW` each; None for `auto`.

    Raises:
        ConfigError: It is neither, or something stands twice.
    """
    if AUTO in options:
        if len(options) > 1:
            raise ConfigError("--rename auto finds all names: leave the other rules out.")
        return None
    rules: dict[str, str] = {}
    for text in options:
        old, equals, new = text.partition("=")
        old, new = old.strip("."), new.strip(".")
        if not equals or old == new:
            raise ConfigError(
                f"--rename {text!r}: write it as OLD=NEW, the first parts of names in the capture "
                "and what they are in the model (module= takes a prefix away), or auto."
            )
        if rules.setdefault(old, new) != new:
            raise ConfigError(f"--rename says two things of {old!r}: {rules[old]!r} and {new!r}.")
    return check_rules(rules.items())


def check_rules(rules: Iterable[Sequence[str]]) -> Renaming:
    """Rules, bounded in number and length.

    Raises:
        ConfigError: Too many, or too long.
    """
    pairs = tuple((str(old), str(new)) for old, new in rules)
    if len(pairs) > MOST_RULES or any(len(part) > LONGEST for rule in pairs for part in rule):
        raise ConfigError(
            f"--rename takes {MOST_RULES:,} rules of {LONGEST} characters at most: rename the "
            "tensors where they are recorded."
        )
    return Renaming(pairs)


def shortest(mapping: Mapping[str, str]) -> Renaming:
    """Rules for a mapping of whole names: of layers or prefixes where these say the same.

    Raises:
        ConfigError: Too many names, or too long ones.
    """
    rules: dict[str, str] = {}
    for old, new in mapping.items():
        before, after = old.split("."), new.split(".")
        while before and after and before[-1] == after[-1]:
            before.pop()
            after.pop()
        if before or after:
            rules[".".join(before)] = ".".join(after)
    short = check_rules(rules.items())
    if all(short.name(old) == new for old, new in mapping.items()):
        return short
    return check_rules(mapping.items())
