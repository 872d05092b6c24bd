"""Which attacks what is known of a recorded run allows, and what the others miss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedaudit.attacks.closed_form.first_layer import find_first
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.search.span_matching import SpanMatching
from fedaudit.captures.format.stored_message import StoredMessage
from fedaudit.captures.inspect.applicable_attacks import how_to_state, missing_facts
from fedaudit.core import registry
from fedaudit.core.errors import ConfigError, FedauditError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import Observation
from fedaudit.core.printable import printable
from fedaudit.core.scenario import Choice
from fedaudit.core.shared import Aggregate, Update
from fedaudit.models.facenet import FaceNet

DEFAULT_ATTACKS = ("analytic", "inverting_gradients", "subspace_matching")
"""Closed form, the gradient, what each layer saw; of these, those that suit the network. None draws
faces: the stock generator may not be used commercially."""


@dataclass(frozen=True)
class Candidate:
    """A message that can be attacked.

    Attributes:
        members: Its file; of an aggregate, of each client behind it.
        seen: What the server saw; without tensors for all but the first of a capture.
        truth: Client and folder of photos, as far as they are known.
        lacking: Facts that nobody stated, and what to state.
    """

    members: tuple[StoredMessage, ...]
    seen: Observation
    truth: Mapping[str, str]
    lacking: Mapping[Knowledge, str]


def choose_attacks(
    asked: Sequence[Choice] | None, found: Sequence[Candidate]
) -> tuple[tuple[Choice, ...], list[dict[str, str]]]:
    """Attacks that what is known allows, and those that miss something, with what.

    Raises:
        ConfigError: None is left.
    """
    seen = found[0].seen
    kinds = {type(payload) for payload in seen.shared}
    kinds |= {Update} if Aggregate in kinds else set()
    lacking = {fact: why for one in found for fact, why in one.lacking.items()}
    choices, left_out = [], []
    unfit = _unfit(seen) if asked is None else {}
    for choice in asked or [Choice(name) for name in DEFAULT_ATTACKS]:
        attack = registry.create("attacks", choice.name, choice.settings)
        missing = missing_facts(attack, kinds, lacking)
        if not missing and choice.name in unfit:
            missing = [unfit[choice.name]]
        if missing:
            left_out.append({"attack": choice.label, "missing": printable("; ".join(missing))})
        else:
            choices.append(choice)
    if not choices:
        raise ConfigError(_nothing_left(found[0], left_out))
    return tuple(choices), left_out


def _nothing_left(first: Candidate, left_out: Sequence[Mapping[str, str]]) -> str:
    """Why no attack can be run, and how to state what is missing."""
    attacks: dict[str, list[str]] = {}
    for one in left_out:
        attacks.setdefault(one["missing"], []).append(one["attack"])
    why = ". ".join(
        f"{', '.join(names)} {'misses' if len(names) == 1 else 'miss'} {missing}"
        for missing, names in attacks.items()
    )
    how = how_to_state(first.members[0].path.parent.parent, list(attacks))
    how = f" Add facts, with the values of your run:\n  {how}" if how else ""
    return f"no attack can be run on this capture. {why}.{how}"


def _unfit(seen: Observation) -> dict[str, str]:
    """Default attacks that do not suit the network, and why."""
    if seen.batch_size is None or seen.image_shape is None:
        return {}
    try:
        evidence = gather(seen)
    except (FedauditError, RuntimeError):
        return {"analytic": "pixels that enter a fully connected layer"}
    unfit = {}
    try:
        find_first(evidence.model, evidence.target, evidence.shape)
    except FedauditError:
        unfit["analytic"] = "pixels that enter a fully connected layer"
    try:
        SpanMatching(evidence)
    except FedauditError:
        unfit["subspace_matching"] = "a layer of fewer positions than inputs"
    body = getattr(evidence.model, "body", None)
    if isinstance(evidence.model, FaceNet) and body is not None and not [*body.parameters()]:
        why = "layers before the first fully connected one, which it would match"
        unfit |= dict.fromkeys(set(DEFAULT_ATTACKS) - {"analytic"}, why)
    return unfit
