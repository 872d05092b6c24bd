"""The prior-only control's clients: invented people in the place of those who are audited.

What an attack returns on their update it owes to its prior, to the model and to its own machinery:
color, labels, feature maps and the defense's traces are there as they are in an audit, and nothing
of this round is of the person by whom it is scored.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedaudit.attacks.templates.read_templates import HEAD_ROWS, KINDS
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Shared
from fedaudit.data.composites import composite_faces
from fedaudit.federation.abilities import Aggregates
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet

INVENTED = "the update of invented people"
OTHERS = "the update of other images of the set"
NOISE = "noise of the update's norm"


def without_clients(
    simulation: Simulation, state: State, clients: Collection[int], *, templates: bool
) -> tuple[Simulation, State, str]:
    """The federation with other photos at `clients`: same weights, labels and photos a person.

    Invented people, gray where the client's photos are; of a set that knows no people, other images
    of the set.

    Args:
        simulation: The federation that is audited.
        state: What server and clients hold before the round.
        clients: Whose update is the control's.
        templates: Whether what is shared is templates of faces (class embeddings, their centers).
            What clients and server remember of a person from earlier rounds goes into those, so
            it is replaced by the mean embedding of the invented person's photos.

    Returns:
        Federation and state, and what the control's update is of, in words.
    """
    faces = simulation.faces
    others: dict[int, Tensor] = {}
    for client in clients:
        photos = simulation.split.photos[client]
        draw = _invent if faces.has_identities else _of_the_set
        others |= dict(zip(photos, draw(simulation, client, photos), strict=True))
    simulation = replace(simulation, others=others)
    # What a defense left for the next round (error feedback) is of the photos of earlier rounds.
    fresh = {client: tensors for client, tensors in state.memory.items() if client not in clients}
    state = replace(state, memory=fresh)
    if templates:
        state = _with_their_rows(simulation, state, clients)
    return simulation, state, INVENTED if faces.has_identities else OTHERS


def without_target(
    simulation: Simulation, state: State, target: int, shared: Sequence[Shared]
) -> tuple[Simulation, State, str]:
    """The same without whoever is behind a target's update: a client, or all that are summed.

    `shared` is what is sent in the audit, which tells what clients and server remember.
    """
    everybody = len(simulation.split.clients)
    is_sum = simulation.aggregator or isinstance(simulation.method, Aggregates)
    clients = range(everybody) if is_sum else (target % everybody,)
    templates = any(type(payload) in KINDS for payload in shared)
    return without_clients(simulation, state, clients, templates=templates)


def is_gray(images: Tensor) -> bool:
    """Whether all channels of images `[N, C, H, W]` are equal."""
    return bool((images == images[:, :1]).all())


def _invent(simulation: Simulation, client: int, photos: Sequence[int]) -> Tensor:
    faces = simulation.faces
    images = faces.images[list(photos)]
    _, channels, height, width = images.shape
    own_photos = frozenset(simulation.split.clients[client])
    return composite_faces(
        tuple(faces.people[i] for i in photos),
        (channels, height, width),
        grayscale=is_gray(images),
        without=own_photos if faces.name == "openpeople" else frozenset(),
    )


def _of_the_set(simulation: Simulation, client: int, photos: Sequence[int]) -> Tensor:
    """Images that this client does not have, one for each of `photos`; of a lone client, its own
    in another order, in which none stays where it was.
    """
    faces = simulation.faces
    if faces.classes:
        return _of_the_classes(simulation, client, photos)
    left = sorted(set(range(len(faces.people))) - set(photos))
    if not left:
        half = len(photos) // 2
        return faces.images[[*photos[half:], *photos[:half]]]
    draw = generator_for("other images", faces.name, client)
    order = torch.randperm(len(left), generator=draw).tolist()
    return faces.images[[left[order[k % len(left)]] for k in range(len(photos))]]


def _of_the_classes(simulation: Simulation, client: int, photos: Sequence[int]) -> Tensor:
    """Pictures of the same classes that never train, one for each of `photos`."""
    faces = simulation.faces
    idle: dict[str, list[int]] = {}
    for k, name in enumerate(faces.people):
        if name in set(simulation.split.held_out):
            idle.setdefault(faces.classes[k], []).append(k)
    draw = generator_for("other images", faces.name, client)
    for label, numbers in idle.items():
        order = torch.randperm(len(numbers), generator=draw).tolist()
        idle[label] = [numbers[k] for k in order]
    counts = Counter[str]()
    substitutes = []
    for photo in photos:
        label = faces.classes[photo]
        substitutes.append(idle[label][counts[label] % len(idle[label])])
        counts[label] += 1
    return faces.images[substitutes]


def _with_their_rows(simulation: Simulation, state: State, clients: Collection[int]) -> State:
    """What server and clients hold, with class embeddings of the invented people."""
    server, local = dict(state.server), {c: dict(tensors) for c, tensors in state.kept.items()}
    for client in clients:
        own_rows, own = list(simulation.owned(client)), local.get(client, {})
        if own_rows and HEAD_ROWS in server and len(server[HEAD_ROWS]) > max(own_rows):
            rows = server[HEAD_ROWS].clone()
            rows[own_rows] = _rows(simulation, state, client, rows[own_rows])
            server[HEAD_ROWS] = rows
        if HEAD_ROWS in own:
            own[HEAD_ROWS] = _rows(simulation, state, client, own[HEAD_ROWS])
    return replace(state, server=server, kept=local)


def _rows(simulation: Simulation, state: State, client: int, rows: Tensor) -> Tensor:
    """Class embeddings `[k, D]` of the client's invented people, each as long as it was."""
    tensors: Mapping[str, Tensor] = {
        **simulation.received(state, client),
        **state.kept.get(client, {}),
    }
    model = build(simulation.spec(client), tensors).eval()
    photos = simulation.split.photos[client]
    labels = [simulation.label_of(client, photo) for photo in photos]
    means = torch.randn(rows.shape, generator=generator_for("invented rows", client))
    if isinstance(model, FaceNet):
        with torch.no_grad():
            features = model.embed(simulation.images(photos))
        if features.shape[1] == rows.shape[1]:
            for k in set(labels) & set(range(len(rows))):
                means[k] = features[[i for i, label in enumerate(labels) if label == k]].mean(0)
    means *= rows.norm(dim=1, keepdim=True) / means.norm(dim=1, keepdim=True)
    return means
