"""Which registered attacks a capture allows, and which facts they still miss."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.format.stated_training import local_training
from fedaudit.captures.format.stored_message import StoredMessage
from fedaudit.core import registry
from fedaudit.core.errors import FedauditError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.printable import printable
from fedaudit.core.protocols import Attack
from fedaudit.core.shared import Aggregate, Update

EXAMPLES = {
    "model": "'my_app.task:Net'",
    "image_shape": "(3, 32, 32)",
    "classes": "10",
    "lr": "0.1",
    "local_steps": "1",
    "batch_size": "32",
}
"""Of facts that attacks cannot do without, as Python writes them."""


@dataclass(frozen=True)
class AttackFit:
    """Whether a registered attack applies.

    Attributes:
        name: Of the attack.
        applies: Whether everything that it needs is there, but for faces from elsewhere.
        missing: What it needs and does not have.
        faces: Whether it needs faces from elsewhere, which the auditor brings.
    """

    name: str
    applies: bool
    missing: tuple[str, ...]
    faces: bool = False


def attacks_for(
    capture: StoredCapture, read: set[type], example: StoredMessage | None
) -> tuple[AttackFit, ...]:
    """Registered attacks against what was shared and what is known.

    `read` holds the classes of what was shared. The facts that clients state are the example's.
    """
    if Aggregate in read:
        read = read | {Update}  # its mean is an update
    lacking = missing_knowledge(capture, example)
    fits = []
    for name in registry.names("attacks"):
        try:
            attack = registry.create("attacks", name, {})
            missing = tuple(missing_facts(attack, read, lacking))
        except FedauditError as error:
            fits.append(AttackFit(name, False, (str(error),)))
            continue
        fits.append(AttackFit(name, not missing, missing, Knowledge.AUXILIARY in attack.needs))
    return tuple(fits)


def missing_facts(attack: Attack, shared: Set[type], lacking: Mapping[Knowledge, str]) -> list[str]:
    """What an attack misses where these classes were shared and these facts are not known."""
    kinds = " or ".join(sorted(kind.__name__ for kind in attack.reads))
    unread = [] if frozenset(attack.reads) & shared else [f"what it reads ({kinds}) was not shared"]
    return unread + [lacking[fact] for fact in sorted(attack.needs) if fact in lacking]


def missing_knowledge(
    capture: StoredCapture, example: StoredMessage | None, seen: Observation | None = None
) -> dict[Knowledge, str]:
    """For each kind of knowledge that a recording does not give: what to state.

    Auxiliary faces are the auditor's to bring, so they never lack. `seen` is what was made of
    the example with a model that the user may have named.
    """
    facts = capture.facts
    training = local_training(facts, example.message) if example else None
    lacking = {
        Knowledge.LABELS: "labels of the attacked images, which no recording holds",
        Knowledge.STATISTICS: "statistics of the client's data, which no recording holds",
        Knowledge.MANIPULATION: "a server that chooses what it sends: nothing that a recording has",
    }
    if facts.model is None and seen is None:
        lacking[Knowledge.MODEL] = "the model: state model"
    shape, images = facts.image_shape, training.images if training else None
    if seen is not None:
        shape, images = seen.image_shape, seen.batch_size
    basic = [] if shape else ["image_shape"]
    basic += [] if facts.classes or seen is not None else ["classes"]
    basic += [] if images else ["examples (or local_steps and batch_size)"]
    if basic:
        lacking[Knowledge.BASIC] = f"the shape of the batch: state {', '.join(basic)}"
    if training is None or training.settings is None:
        what = ", ".join(training.missing) if training else "lr, local_steps, batch_size"
        lacking[Knowledge.TRAINING] = f"local training: state {what}"
    if facts.protections is None:
        lacking[Knowledge.DEFENSE] = "the protections in use: state protections (() for none)"
    return lacking


def how_to_state(folder: Path, missing: Sequence[str]) -> str:
    """A command that states facts of a capture; "" where none of them can be.

    What is missing is said in words that name the facts.
    """
    words = set(re.findall(r"\w+", " ".join(missing)))
    facts = ", ".join(f"{name}={value}" for name, value in EXAMPLES.items() if name in words)
    if not facts:
        return ""
    call = f"import fedaudit; fedaudit.recording({printable(str(folder))!r}, {facts})"
    return f'python -c "{call}"'
