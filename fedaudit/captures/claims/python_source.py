"""Protections that Python source names, found by parsing it; nothing of it is imported or run."""

import ast
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fedaudit.captures.claims.nvflare_job import plain
from fedaudit.captures.claims.protection_catalog import CATALOG
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism
from fedaudit.core.errors import ConfigError

UNREAD = object()
_CONVERT: dict[str, Callable[[Any], object]] = {"float": float, "int": int, "str": str}
ROUNDS = ("num_rounds", "num_server_rounds")
PARTS = frozenset({"strategy", "module", "optimizer", "data_loader", "criterion", "accountant"})
"""Arguments that are objects, and no settings."""


def mechanisms_in(text: str, name: str, config: Mapping[str, Any]) -> Iterator[StatedMechanism]:
    """Calls and uses of what stands in the catalog, in their order.

    Values are read where they are literals, constants of the module, or keys of the app's
    configuration, as in `LocalDpMod(1.0, context.run_config["sensitivity"], …)`.

    Args:
        text: Of the file.
        name: Of the file, for messages.
        config: Of the app, by key.

    Raises:
        ConfigError: It is no Python that can be parsed.
    """
    tree = _tree(text, name)
    values = _Values(tree, config)
    calls = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in _in_order(tree):
        if isinstance(node, ast.Call) and (entry := CATALOG.get(_last_name(node.func))):
            if entry.function:
                continue
            parts = dict(zip(entry.positions, node.args, strict=False))
            parts |= {word.arg: word.value for word in node.keywords if word.arg}
            values_there = {
                key: values.of(value) for key, value in parts.items() if key not in PARTS
            }
            yield StatedMechanism(
                name=_last_name(node.func),
                place=f"{name}:{node.lineno}",
                settings={k: plain(v) for k, v in values_there.items() if v not in (UNREAD, None)},
                unread=tuple(k for k, v in values_there.items() if v is UNREAD),
            )
        elif isinstance(node, ast.Name | ast.Attribute) and id(node) not in calls:
            entry = CATALOG.get(_last_name(node))
            if entry and entry.function:
                yield StatedMechanism(name=_last_name(node), place=f"{name}:{node.lineno}")


def rounds_in(text: str, name: str, config: Mapping[str, Any]) -> RunSize:
    """Rounds that a call or the configuration states; raises as `mechanisms_in`."""
    tree = _tree(text, name)
    values = _Values(tree, config)
    for node in _in_order(tree):
        if isinstance(node, ast.Call):
            for word in node.keywords:
                count = values.of(word.value) if word.arg in ROUNDS else None
                if isinstance(count, int) and not isinstance(count, bool) and count > 0:
                    return RunSize(rounds=count)
    return RunSize()


class _Values:
    """What an expression is worth, as far as that can be said without running it."""

    def __init__(self, tree: ast.Module, config: Mapping[str, Any]) -> None:
        self.config = config
        self.constants: dict[str, ast.expr] = {}
        for node in tree.body:
            for target, value in _assignments(node):
                self.constants[target] = value

    def of(self, node: ast.expr, depth: int = 0) -> object:
        """The value, or `UNREAD`."""
        value = UNREAD if depth > 20 else _literal(node)
        if value is not UNREAD or depth > 20:
            return value
        if isinstance(node, ast.Name) and node.id in self.constants:
            return self.of(self.constants[node.id], depth + 1)
        if isinstance(node, ast.Subscript):
            return self._looked_up(node.slice, None, depth)
        if isinstance(node, ast.Call) and node.args:
            function, first = _last_name(node.func), node.args[0]
            if function == "get":
                default = node.args[1] if len(node.args) > 1 else None
                return self._looked_up(first, default, depth)
            if function in _CONVERT and len(node.args) == 1:
                return _convert(function, self.of(first, depth + 1))
        return UNREAD

    def _looked_up(self, key: ast.expr, default: ast.expr | None, depth: int) -> object:
        """A key of the app's configuration."""
        name = key.value if isinstance(key, ast.Constant) else None
        if isinstance(name, str) and name in self.config:
            return self.config[name]
        return UNREAD if default is None else self.of(default, depth + 1)


def _literal(node: ast.expr) -> object:
    try:
        value: object = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return UNREAD
    return value


def _convert(function: str, value: object) -> object:
    if not isinstance(value, int | float | str):
        return UNREAD
    try:
        return _CONVERT[function](value)
    except (ValueError, OverflowError):
        return UNREAD


def _tree(text: str, name: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stranger's escapes are not ours to warn of
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = f"{name}:{line}" if line else name
        raise ConfigError(f"{where}: it is no Python 3 that can be parsed.") from error


def _in_order(tree: ast.Module) -> list[Any]:
    nodes = [node for node in ast.walk(tree) if hasattr(node, "lineno")]
    return sorted(nodes, key=lambda node: (node.lineno, node.col_offset))


def _assignments(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        yield node.target.id, node.value
    if not isinstance(node, ast.Assign):
        return
    for target in node.targets:
        if isinstance(target, ast.Name):
            yield target.id, node.value
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            for one, value in zip(target.elts, node.value.elts, strict=False):
                if isinstance(one, ast.Name):
                    yield one.id, value


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""
