"""What the client's defense would have done to the attacker's own gradients.

A defense is public, and acts in up to three places: on the photos before they train, on each
image's gradient, and on the mean that is sent. What stays on the device needs no function.
"""

from collections.abc import Sequence
from typing import Any

from fedaudit.core.errors import AttackError
from fedaudit.core.observation import DefenseFacts
from fedaudit.core.registry import create, names
from fedaudit.defenses.gradient_transforms import (
    GradientTransform,
    ImageTransform,
    Replayed,
    Replays,
)
from fedaudit.federation.abilities import Gathers, Networks, Tunes

SHOWN = (Networks, Tunes, Gathers)
"""What these do shows in the observation: its network, training settings, number of images."""


def replay_of(defenses: Sequence[DefenseFacts], count: int) -> Replayed:
    """The functions for the defenses in use, in order.

    Raises:
        AttackError: One that cannot be replayed, or whose settings are not all known.
    """
    each: list[GradientTransform] = []
    mean: list[GradientTransform] = []
    images: list[ImageTransform] = []
    for facts in defenses:
        replay = _replay(facts, count)
        each += replay.each
        mean += replay.mean
        images = [*replay.images, *images]  # the last defense changes the photos first
    return Replayed(tuple(each), tuple(mean), tuple(images))


def _replay(facts: DefenseFacts, count: int) -> Replayed:
    if facts.name == "none":
        return Replayed()
    defense = installed_defense(facts)
    if not isinstance(defense, Replays):
        withheld = facts.withheld or (defense is not None and defense.facts().withheld)
        if withheld or isinstance(defense, SHOWN):
            return Replayed()
        raise AttackError(
            f"the defense {facts.name!r} cannot be replayed on training gradients: give its class "
            "a method `replay` (fedaudit.defenses.gradient_transforms.Replays), or use an attack "
            "that needs none."
        )
    return defense.replay(count)


def installed_defense(facts: DefenseFacts) -> Any:
    """The defense itself with the settings that are known; None where none of its name is here."""
    return create("defenses", facts.name, facts.settings) if is_installed(facts.name) else None


def is_installed(name: str) -> bool:
    """Whether a defense of this name is installed."""
    return name in names("defenses")
