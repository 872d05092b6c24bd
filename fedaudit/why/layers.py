"""Layer-wise leakage: each layer of the update alone, and all of it but that layer.

The labels are known throughout, as the whole update gives them away: what is asked is which layer
holds the picture, not which one holds the label. What the labels add is a player of the Shapley
values (`artifacts.py`).
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from fedaudit.captures.simulate.exposed_things import names_of
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import Observation
from fedaudit.core.shared import Aggregate, Update
from fedaudit.reports.explanation import Layer, Layers
from fedaudit.why.explained_scenario import Measurement, Subject
from fedaudit.why.leaks import Cut, Leak, difference, leakage


def layers_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """Layers by name, each with the prefixes of its parameters, from the image on.

    A module directly below the network's parts is a layer (`body.4`), or the part itself where it
    has no numbered modules (`embedding`). What has vectors only (norms, activations) belongs to
    the layer before it.

    >>> import torch
    >>> kernel, vector = torch.ones(2, 2), torch.ones(2)
    >>> layers_of({"body.1.weight": kernel, "body.2.weight": vector, "head.weight": kernel})
    {'body.1': ('body.1.', 'body.2.'), 'head': ('head.',)}
    """
    modules: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        first, *rest = name.split(".")
        module = f"{first}.{rest[0]}" if len(rest) > 1 and rest[0].isdigit() else first
        modules.setdefault(module, []).append(tensor)
    layers: dict[str, list[str]] = {}
    for module, values in modules.items():
        joins = all(value.dim() < 2 for value in values)
        name = next(reversed(layers)) if joins and layers else module
        layers.setdefault(name, []).append(module)
    # A parameter that is no module's ("scale") has its whole name for a prefix.
    return {
        name: tuple(m if m in tensors else f"{m}." for m in members)
        for name, members in layers.items()
    }


def update_of(seen: Observation) -> tuple[str, Update | Aggregate]:
    """The update that layers are taken from, and what `expose` calls it.

    Raises:
        AttackError: Nothing of the kind was shared.
    """
    for name, payload in zip(names_of(seen.shared), seen.shared, strict=True):
        if isinstance(payload, Update) or (
            isinstance(payload, Aggregate) and payload.kind in {"gradient", "delta"}
        ):
            return name, payload
    raise AttackError("no model update was shared, so there are no layers to tell apart")


def cuts_of(seen: Observation) -> tuple[Cut, dict[str, tuple[Cut, Cut | None]]]:
    """The whole update, and for each layer: it alone, and the update without it (None if all)."""
    name, payload = update_of(seen)
    layers = layers_of(payload.tensors)

    def cut(which: Sequence[str]) -> Cut:
        names = tuple(f"{name}:{prefix}" for layer in which for prefix in layers[layer])
        return Cut(names, labels=True)

    cuts: dict[str, tuple[Cut, Cut | None]] = {}
    for layer in layers:
        rest = [other for other in layers if other != layer]
        cuts[layer] = cut([layer]), cut(rest) if rest else None
    return cut(list(layers)), cuts


def measurements(subject: Subject) -> list[Measurement[Leak | None]]:
    """Every layer of `subject.targets` updates, alone and left out, with controls."""
    whole, layers = cuts_of(subject.captured(0).seen)
    cuts = [whole, *[cut for pair in layers.values() for cut in pair if cut is not None]]
    targets = range(subject.targets)
    audits = [subject.leak(cut, target) for cut in cuts for target in targets]
    return audits + [subject.leak(c, t, role="invented") for c in cuts for t in targets]


def explain(subject: Subject) -> Layers:
    """What each layer gives alone, and what is lost without it.

    Alone is what a layer gives to an attacker who has nothing else. Left out is what remains
    without it: a layer that leaks alone and is not missed is redundant, and holding it back
    would protect nobody.
    """
    seen = subject.captured(0).seen
    whole, layers = cuts_of(seen)
    _, payload = update_of(seen)
    prefixes = layers_of(payload.tensors)
    full = _audit_and_control(subject, whole)
    if full is None:
        raise AttackError("none of the scenario's attacks reads model updates")
    rows = []
    for name, (alone, without) in layers.items():
        mine = prefixes[name]
        one = _audit_and_control(subject, alone)
        rest = _audit_and_control(subject, without) if without else None
        rows.append(
            Layer(
                name=name,
                parameters=mine,
                values=sum(t.numel() for n, t in payload.tensors.items() if n.startswith(mine)),
                alone=leakage(*one, subject.people) if one else None,
                without=leakage(*rest, subject.people) if rest else None,
                lost=difference(full[0], rest[0]) if rest else None,
            )
        )
    return Layers(leakage(*full, subject.people), tuple(rows))


def _audit_and_control(subject: Subject, cut: Cut) -> tuple[list[Leak], list[Leak]] | None:
    """Leaks of every target and of its control; None where no attack can read so little."""
    targets = range(subject.targets)
    audit = [leak for t in targets if (leak := subject.get(subject.leak(cut, t)))]
    if len(audit) < subject.targets:
        return None
    controls = (subject.get(subject.leak(cut, t, role="invented")) for t in targets)
    control = [leak for leak in controls if leak]
    return (audit, control) if len(control) == len(audit) else None
