"""Plugins and their settings in one word of a command line: `gan_inversion(pixel_steps=900)`."""

import ast
import re
from collections.abc import Iterator

from fedaudit.core.scenario import Choice

_CHOICE = re.compile(r"([\w.:-]+)\s*(?:\((.*)\))?", re.DOTALL)


def named_choices(text: str) -> tuple[Choice, ...]:
    """The plugins that a text names, with commas between them; equal ones once.

    Values are written as in Python or TOML: numbers, 'words', [lists], true and false. The second
    setting of a plugin is labeled `NAME-2`, and so on.

    Raises:
        ValueError: Says what cannot be read.

    >>> [(c.label, dict(c.settings)) for c in named_choices("dlg, gifd(stages=[2, 3]), gifd")]
    [('dlg', {}), ('gifd', {'stages': [2, 3]}), ('gifd-2', {})]
    """
    choices: dict[str, Choice] = {}
    for part in _parts(text):
        match = _CHOICE.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is no name, nor a name with settings: NAME(SETTING=VALUE)")
        if part in choices:
            continue
        name = match[1]
        number = 1 + sum(choice.name == name for choice in choices.values())
        label = f"{name.rpartition(':')[2]}-{number}" if number > 1 else ""
        choices[part] = Choice(name, _settings(part, match[2]), label)
    if not choices:
        raise ValueError("name one at least")
    return tuple(choices.values())


def _parts(text: str) -> Iterator[str]:
    """What stands between commas that are in no bracket."""
    depth, part = 0, ""
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            yield from filter(None, [part.strip()])
            part = ""
        else:
            part += letter
    yield from filter(None, [part.strip()])


def _settings(part: str, inside: str | None) -> dict[str, object]:
    if not inside:
        return {}
    plain = re.sub(r"\b(true|false)\b", lambda word: word[0].title(), inside)
    try:
        call = ast.parse(f"f({plain})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("without a name")
        return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (AssertionError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"the settings in {part!r} cannot be read: write SETTING=VALUE with commas between, "
            "values as in a study: 3, 0.5, 'word', [1, 2], true"
        ) from error
