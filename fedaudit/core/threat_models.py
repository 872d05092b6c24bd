"""What the server is assumed to know: threat models A–H of Carletti et al. (USENIX Security 2025).

Each adds facts to another one. Two facts lie outside their ladder: the defense in use is granted
everywhere (Kerckhoffs: a defense that must stay secret is none), and labels are granted nowhere,
because attacks infer them.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedaudit.core.errors import ConfigError, KnowledgeError, UnknownNameError
from fedaudit.core.knowledge import Knowledge, ThreatModel

if TYPE_CHECKING:  # it imports torch
    from fedaudit.core.protocols import Attack

EXPLANATIONS = {
    Knowledge.MODEL: "architecture and broadcast parameters",
    Knowledge.BASIC: "number and size of the images, number of classes",
    Knowledge.TRAINING: "optimizer, learning rate, local steps, batch size",
    Knowledge.AUXILIARY: "faces, or a generator of faces, from elsewhere",
    Knowledge.DEFENSE: "the defense in use and its settings",
    Knowledge.LABELS: "labels of the attacked images",
    Knowledge.STATISTICS: "batch-norm statistics or the distribution of the client's data",
    Knowledge.MANIPULATION: "the server may send parameters of its choosing",
}

_A = frozenset({Knowledge.MODEL, Knowledge.DEFENSE})
_B = _A | {Knowledge.BASIC}
_C = _B | {Knowledge.TRAINING}
_D = _C | {Knowledge.AUXILIARY}
_E = _D | {Knowledge.STATISTICS}
_F = _C | {Knowledge.MANIPULATION}
_G = _D | {Knowledge.MANIPULATION}

THREAT_MODELS = {
    model.name: model
    for model in (
        ThreatModel("A", _A, "Eavesdropper: the model and what was shared"),
        ThreatModel("B", _B, "Informed eavesdropper: A, and the shape of the batch"),
        ThreatModel("C", _C, "Parameter-aware: B, and the settings of local training"),
        ThreatModel("D", _D, "Data-enhanced: C, and faces from elsewhere"),
        ThreatModel("E", _E, "Statistical-informed: D, and statistics of the client's data"),
        ThreatModel("F", _F, "Active manipulator: C, and parameters of its choosing"),
        ThreatModel("G", _G, "Data-enhanced manipulator: D, and parameters of its choosing"),
        ThreatModel("H", _G, "Active client manipulator: G, and it chooses who takes part"),
    )
}


def threat_model(name: str, grant: Iterable[str] = (), deny: Iterable[str] = ()) -> ThreatModel:
    """One of A–H, with facts added or taken away.

    >>> threat_model("C", grant=["labels"]).name
    'C+labels'

    Raises:
        UnknownNameError: No such threat model or fact.
        ConfigError: A fact is both granted and denied.
    """
    base = THREAT_MODELS.get(name)
    if base is None:
        raise UnknownNameError("threat model", name, THREAT_MODELS)
    grants, denials = _facts(grant), _facts(deny)
    if both := grants & denials:
        raise ConfigError(
            f"{_list(both)} stands in both grant and deny. Remove it from one of the two."
        )
    label = name + "".join(f"+{fact}" for fact in sorted(grants - base.grants))
    label += "".join(f"-{fact}" for fact in sorted(denials & base.grants))
    return ThreatModel(label, (base.grants | grants) - denials, base.summary)


def check_knowledge(attack_name: str, attack: "Attack", threat: ThreatModel) -> None:
    """Refuse an attack that needs a fact which its threat model does not grant.

    The `KnowledgeError` names each missing fact, who grants it, and what to change.
    """
    missing = frozenset(attack.needs) - threat.grants
    if not missing:
        return
    facts = "; ".join(f"{fact} ({EXPLANATIONS[fact]})" for fact in sorted(missing))
    if denials := [str(fact) for fact in sorted(missing) if f"-{fact}" in threat.name]:
        advice = f"Take {', '.join(denials)} out of deny"
    else:
        enough = [m.name for m in THREAT_MODELS.values() if frozenset(attack.needs) <= m.grants]
        grant = ", ".join(f'"{fact}"' for fact in sorted(missing))
        advice = (
            f"All it needs is granted by {', '.join(enough)}. "
            f'Write threat_model = "{enough[0]}" or grant = [{grant}]'
            if enough
            else f"No threat model from A to H grants that. Write grant = [{grant}]"
        )
    raise KnowledgeError(
        f"attack {attack_name!r} needs what threat model {threat.name} does not grant: {facts}. "
        f"{advice}, or leave the attack out."
    )


def _facts(names: Iterable[str]) -> frozenset[Knowledge]:
    facts = {str(fact): fact for fact in Knowledge}
    for name in names:
        if name not in facts:
            raise UnknownNameError("fact", name, facts)
    return frozenset(facts[name] for name in names)


def _list(facts: Iterable[Knowledge]) -> str:
    return ", ".join(repr(str(fact)) for fact in sorted(facts))
