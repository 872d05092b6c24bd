"""The prior-only control of recorded runs: the update of invented people, made by the auditor."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.attacks.adaptive.defense_replay import installed_defense
from fedaudit.attacks.gathering.gather import gather
from fedaudit.captures.audit.auditor_steps import retrain
from fedaudit.captures.simulate.invented_clients import INVENTED
from fedaudit.core.errors import FedauditError
from fedaudit.core.observation import DefenseFacts, LocalTraining, Observation
from fedaudit.core.protocols import Defense
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Aggregate, Buffers, Shared, Update
from fedaudit.core.trial import Cell
from fedaudit.data.composites import composite_faces
from fedaudit.defenses.chain import Chain
from fedaudit.federation.abilities import Secures
from fedaudit.models.build_network import build


def of_invented_people(seen: Observation, cell: Cell) -> tuple[Observation, str] | None:
    """A recorded update's twin, of invented people, and what it is of, in words.

    At the same weights, of as many photos, trained as is stated (else in one step), with the labels
    and the color that the update shows, through those of its protections that are known.

    Returns:
        None where a client's round cannot be repeated: something else than updates and batch-norm
        buffers was shared, the number or size of the images is not known, or training fails.
    """
    if seen.update is None or seen.batch_size is None or seen.image_shape is None:
        return None
    count, shape = seen.batch_size, seen.image_shape
    try:
        labels, gray = _labels_and_color(seen, count, shape, cell)
        people = tuple(f"{cell.scenario} {cell.target} {int(label)}" for label in labels)
        images = composite_faces(people, shape, grayscale=gray)
        training = seen.mode or LocalTraining(batch_size=count)
        defense, left_out = _known_defense(seen.defense or ())
        payloads = retrain(seen, seen.update.kind, images, labels, training, "invented", defense)
        shared = tuple(_twin(one, payloads, seen.before) for one in seen.shared)
    except (FedauditError, RuntimeError, ValueError, LookupError):
        return None
    words = f"{INVENTED}, without {', '.join(left_out)}" if left_out else INVENTED
    return replace(seen, shared=shared, statistics=None, earlier=()), words


def _labels_and_color(
    seen: Observation, count: int, shape: tuple[int, int, int], cell: Cell
) -> tuple[Tensor, bool]:
    """Labels `[count]`, and whether the images are gray, as the update shows; else any labels."""
    try:
        evidence = gather(seen)
    except (FedauditError, RuntimeError):
        gray, labels = False, None
    else:
        gray, labels = evidence.grayscale, evidence.labels
    if labels is not None and len(labels) == count:
        return labels.cpu().long(), gray
    with torch.no_grad():
        scores = build(seen.model, seen.before).eval()(torch.full((1, *shape), 0.5))
    draw = generator_for("invented labels", cell.scenario, cell.target)
    return torch.randint(scores.shape[1], (count,), generator=draw), gray


def _known_defense(facts: Sequence[DefenseFacts]) -> tuple[Defense | None, list[str]]:
    """The protections that can be put on an update again, in order, and names of the others."""
    tables: list[dict[str, object]] = []
    left_out = []
    for one in facts:
        defense = installed_defense(one)
        if defense is None or isinstance(defense, Secures):
            left_out.append(one.name)
        elif one.name != "none":
            tables.append({"name": one.name, **one.settings})
    return (Chain(of=tuple(tables)) if tables else None), left_out


def _twin(one: Shared, payloads: Sequence[Shared], before: Mapping[str, Tensor]) -> Shared:
    """A recorded thing with another round's tensors: of those names that were recorded.

    Raises:
        LookupError: Of a kind, or with a name, that a client's round does not give.
    """
    if not isinstance(one, Update | Buffers | Aggregate) or getattr(one, "kind", "") == "weights":
        raise LookupError(f"no client's round gives {type(one).__name__}")
    weight = sum(one.weights) if isinstance(one, Aggregate) else 1.0
    is_buffers = isinstance(one, Buffers) or one.kind == "buffers"
    kind = Buffers if is_buffers else Update
    tensors = next((s.tensors for s in payloads if isinstance(s, kind)), {})
    tensors = {**before, **tensors} if is_buffers else tensors
    own = {name: tensors[name] * weight for name in one.tensors}
    return replace(one, tensors=own)
