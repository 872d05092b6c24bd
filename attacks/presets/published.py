"""What an attack's paper sets, beside what did best here: `variant = "published"` or "strong"."""

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from typing import Any, Literal, ParamSpec, get_args

from fedaudit.attacks.search.matching_attack import MatchingAttack
from fedaudit.core.errors import UnknownNameError

Variant = Literal["strong", "published"]
"""Of a preset: with its own defaults, or with its paper's."""
STANDARDIZED = 4.0
"""Weights of priors are published for images of unit variance; those of photos in [0, 1] deviate by
a quarter, so that a total variation counts this many times as much there."""

P = ParamSpec("P")


def with_paper_settings(
    **paper: Any,
) -> Callable[[Callable[P, MatchingAttack]], Callable[P, MatchingAttack]]:
    """Give a preset its paper's settings where it is called with `variant = "published"`.

    Settings that the caller states stay as stated. `preset.published` holds the paper's.
    """

    def decorate(preset: Callable[P, MatchingAttack]) -> Callable[P, MatchingAttack]:
        assert paper.keys() <= signature(preset).parameters.keys()

        @wraps(preset)
        def build(*args: P.args, **kwargs: P.kwargs) -> MatchingAttack:
            variant = kwargs.get("variant", "strong")
            if variant not in get_args(Variant):
                raise UnknownNameError("variant", str(variant), get_args(Variant))
            if variant == "published":
                return preset(*args, **{**paper, **kwargs})
            return preset(*args, **kwargs)

        build.published = paper  # type: ignore[attr-defined]
        return build

    return decorate


def departures(preset: Any, settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(here, in the paper) by setting, of a preset with these settings; {} of other attacks."""
    paper: Mapping[str, Any] = getattr(preset, "published", {})
    usual = {name: p.default for name, p in signature(preset).parameters.items()} if paper else {}
    base = paper if settings.get("variant") == "published" else usual
    here = {name: settings.get(name, base[name]) for name in paper}
    return {name: (here[name], paper[name]) for name in paper if here[name] != paper[name]}
