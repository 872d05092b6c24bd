"""What attacks are told of a recorded update's protections: stated ones, and those it shows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fedaudit.attacks.adaptive.estimation import estimate
from fedaudit.captures.format.capture_facts import Facts
from fedaudit.core.observation import DefenseFacts, Observation
from fedaudit.core.recorded_run import Protection
from fedaudit.core.shared import Aggregate, Shared, Update

ABSENT = frozenset({"missing layers", "frozen layers"})
"""Layers of which an update says nothing."""
ALONE = frozenset({"gaussian_noise", "qsgd", "sign"})
"""What one update shows by itself; zeros are not, of which dead units leave many."""


def seen_by_attacks(
    seen: Observation, facts: Facts, detected: Sequence[Protection], client: str
) -> Observation:
    """The observation with the protections that are stated and those that the numbers show.

    A round shows more than one update does (one norm of many clients). Where nothing is stated and
    nothing seen, attacks estimate by themselves. What is stated of differential privacy is not
    doubted here.
    """
    seen = _without_frozen(seen, detected)
    statement = seen.defense or ()
    names = {one.name for one in statement}
    if facts.dp is not None:
        names |= {"clipping", "gaussian_noise"}
    more = [one for one in estimate_defenses(detected, seen.round) if one.name not in names]
    if facts.protections is None and (statement or more):
        names |= {one.name for one in more}
        more += [one for one in estimate(seen) if one.name in ALONE - names]
    defense = (*statement, *more) if more or seen.defense is not None else None
    return replace(seen, defense=defense, client=client)


def faint_noise(seen: Observation) -> list[Protection]:
    """Noise that does not drown the update, so that inspection's measures do not show it."""
    noises = [one for one in estimate(seen) if one.name == "gaussian_noise"]
    return [
        Protection(
            "noise",
            False,
            "of the first update, what its images cannot explain of a layer is equally loud in all "
            f"rows: independent noise of a standard deviation of about {one.settings['std']:.3g}",
            seen.round,
            1,
            float(one.settings["std"]),
        )
        for one in noises
    ]


def estimate_defenses(detected: Sequence[Protection], round: int) -> tuple[DefenseFacts, ...]:
    """Protections that were seen in a round, as registered defenses, in units of what was sent."""
    defenses: dict[str, DefenseFacts] = {}
    for one in detected:
        before = one.round is None or one.round <= round
        if before and (facts := _estimate(one)):
            defenses[facts.name] = facts
    return tuple(defenses.values())


def _estimate(one: Protection) -> DefenseFacts | None:
    """One protection as the registered defense that does it; None of what attacks cannot use."""
    name, value = one.name, one.value
    if name in ABSENT:
        return DefenseFacts(name, {}, withheld=one.names, estimated=True)
    if value is None:
        return None
    defenses: dict[str, tuple[str, dict[str, Any]]] = {
        "clipping": ("clipping", {"max_norm": value}),
        "noise": ("gaussian_noise", {"std": value, "of": "entry"}),
        "sparsity": ("top_k", {"pruned": value}),
    }
    return DefenseFacts(*defenses[name], estimated=True) if name in defenses else None


def _without_frozen(seen: Observation, protections: Sequence[Protection]) -> Observation:
    """The observation without layers that nobody trains: zeros that are no gradient.

    To an attack they would say that the images leave these layers as they are, which is not so.
    """
    frozen = {n for one in protections if one.name == "frozen layers" for n in one.names}
    if not frozen:
        return seen

    def kept(part: Shared) -> Shared:
        if not isinstance(part, Update | Aggregate):
            return part
        tensors = {n: t for n, t in part.tensors.items() if n not in frozen or bool(t.any())}
        return replace(part, tensors=tensors) if tensors else part

    return replace(seen, shared=tuple(kept(part) for part in seen.shared))
