"""What the client's defense would have done to the attacker's own gradients.

The attacker knows the defense (it is public), so its own gradients go through it like the client's.
A defense acts in up to three places: on the photos before they train, on each image's gradient, and
on the mean that is sent. What stays on the device is absent from what was shared, and needs no
function.
"""

from collections.abc import Sequence

import torch

from fedaudit.defenses.acts import Act, Batch, ImageAct, Replayed, Replays
from fedaudit.errors import AttackError
from fedaudit.registry import create, names
from fedaudit.types import DefenseFacts

MANY_ZEROS = 0.3
"""Share of zeros from which on an update counts as pruned: dead units leave some as well."""


def replay_of(defenses: Sequence[DefenseFacts], count: int) -> Replayed:
    """The functions for the defenses in use, in order.

    Args:
        defenses: As in `Observation.defense`.
        count: Images behind the client's update.

    Raises:
        AttackError: One that cannot be replayed, or whose settings are not all known.
    """
    each: list[Act] = []
    mean: list[Act] = []
    images: list[ImageAct] = []
    for facts in defenses:
        replayed = _replayed(facts, count)
        each += replayed.each
        mean += replayed.mean
        images = [*replayed.images, *images]  # the last defense changes the photos first
    return Replayed(tuple(each), tuple(mean), tuple(images))


def _replayed(facts: DefenseFacts, count: int) -> Replayed:
    if facts.name == "none":
        return Replayed()
    defense = None
    if facts.name in names("defenses"):
        defense = create("defenses", facts.name, facts.settings)
    if not isinstance(defense, Replays):
        if facts.withheld:
            return Replayed()
        raise AttackError(
            f"the defense {facts.name!r} cannot be replayed on training gradients: give its class "
            "a method `replay` (fedaudit.defenses.acts.Replays), or use an attack that needs none."
        )
    return defense.replay(count)


def estimated(target: Batch) -> tuple[DefenseFacts, ...]:
    """What a shared mean gradient `{name: [...]}` shows of a defense that was not told.

    Entries of one magnitude are signs; many zeros are pruning. Noise and clipping leave no mark
    that could not be a gradient's own, and are left out.
    """
    flat = torch.cat([value.flatten() for value in target.values()]).abs()
    rest = flat[flat > 0]
    if not len(rest):
        return ()
    if float(rest.max()) <= float(rest.min()) * (1 + 1e-5):
        return (DefenseFacts("sign", {}, estimated=True),)
    zeros = 1 - len(rest) / len(flat)
    if zeros <= MANY_ZEROS:
        return ()
    return (DefenseFacts("top_k", {"pruned": zeros}, estimated=True),)
