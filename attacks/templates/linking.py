"""Which templates, seen under fresh pseudonyms, are of the same person."""

from collections.abc import Sequence
from typing import get_args

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fedaudit.core.errors import AttackError, UnknownNameError
from fedaudit.core.observation import Observation
from fedaudit.core.shared import ClassEmbeddings, ClusterCenters, Update
from fedaudit.models.build_network import build
from fedaudit.models.facenet import require_face_net
from fedaudit.scoring.linkage import Drift, Links

# Set by hand; what it reaches is measured by benchmarks/template_linkage.py.
ENOUGH = 8
"""Templates from which on their mean says what they have in common, not who they are."""
PART = 256
DRIFTS: tuple[Drift, ...] = get_args(Drift)


def link(
    first: Tensor,
    second: Tensor,
    *,
    anchors: tuple[Tensor, Tensor] | None = None,
    drift: Drift | None = None,
) -> Links:
    """Pair templates `[a, D]` and `[b, D]` of two rounds, or of two clients.

    Cosines, and the one-to-one assignment of their greatest sum. Between two rounds the space that
    templates live in has moved. What all templates of a set have in common tells nobody apart, and
    is taken away ("center"); and where the server's own faces show how the space has turned, the
    orthogonal Procrustes rotation (Schönemann, Psychometrika 1966) turns it back ("rotate"). No
    pair of templates is known to be one person's. This combination is our own.

    Args:
        first: `[a, D]`.
        second: `[b, D]`.
        anchors: `[m, D]` twice, the same faces of the server's own in the space of either set; None
            where both are of one space.
        drift: Which of the three; None takes the one whose chosen pairs stand out most.

    Raises:
        UnknownNameError: No such drift.
        AttackError: The sets are not of one width, or one is empty; or "rotate" without anchors.
    """
    if drift is not None and drift not in DRIFTS:
        raise UnknownNameError("drift", drift, DRIFTS)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise AttackError(
            f"templates must be [k, D] of one width D, not {tuple(first.shape)} and "
            f"{tuple(second.shape)}. Link templates of one network."
        )
    if not len(first) or not len(second):
        raise AttackError("there is nothing to link: one of the two sets has no template.")
    if drift == "rotate" and anchors is None:
        raise AttackError('drift = "rotate" needs anchors: faces of the server\'s own, embedded.')
    kinds = [drift] if drift else [d for d in DRIFTS if d != "rotate" or anchors is not None]
    candidates = [_link(first.double(), second.double(), anchors, kind) for kind in kinds]
    return max(candidates, key=lambda links: links.clarity)


def link_observations(
    first: Sequence[Observation],
    second: Sequence[Observation],
    *,
    faces: Tensor | None = None,
    drift: Drift | None = None,
) -> Links:
    """Link all templates in two sets of observations, in the order of `templates`.

    Args:
        first: What clients sent in one round, or one client in one; names and owners are not read.
        second: What was sent in another round, or by other clients.
        faces: `[m, C, H, W]` the server's own, where the sets are of two rounds.
        drift: As in `link`.

    Raises:
        AttackError: Nothing to link was sent.
    """
    anchors = None
    if faces is not None:
        anchors = (embed(first[0], faces), embed(second[0], faces))
    ours, theirs = (torch.cat([templates(seen) for seen in side]) for side in (first, second))
    return link(ours, theirs, anchors=anchors, drift=drift)


def templates(seen: Observation) -> Tensor:
    """The face templates in an observation, `[k, D]`: class embeddings, centers or a head.

    Class embeddings, one a person (FedFace, FedGC); else cluster centers, one a group
    (PrivacyFace); else the change of the shared head: which rows it has moved says who a client's
    people are.

    Raises:
        AttackError: None of these was sent.
    """
    for payload in seen.shared:
        if isinstance(payload, ClassEmbeddings):
            return payload.rows
        if isinstance(payload, ClusterCenters):
            return payload.centers
    for payload in seen.shared:
        if isinstance(payload, Update) and "head.weight" in payload.tensors:
            return payload.tensors["head.weight"].flatten()[None]
    raise AttackError(
        "linkage reads class embeddings, cluster centers, or the change of a shared head, and "
        f"client {seen.client!r} sent none of them in round {seen.round}."
    )


@torch.no_grad()
def embed(seen: Observation, faces: Tensor) -> Tensor:
    """Faces of the server's own in the space of a round's templates, unit rows `[m, D]`."""
    network = require_face_net(build(seen.model, seen.before), "linkage").eval()
    return torch.cat([network.embed(part) for part in torch.split(faces, PART)])


def _link(
    first: Tensor, second: Tensor, anchors: tuple[Tensor, Tensor] | None, drift: Drift
) -> Links:
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    if drift != "none":
        first, second = _center(first), _center(second)
    if drift == "rotate":
        assert anchors is not None
        before, after = (a.double() - a.double().mean(0) for a in anchors)
        u, _, v = torch.linalg.svd(before.T @ after)
        first = first @ u @ v
    scores = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T
    rows, columns = linear_sum_assignment(scores.numpy(), maximize=True)
    partner = torch.full((len(first),), -1)
    partner[torch.from_numpy(rows)] = torch.from_numpy(columns)
    match = scores[rows, columns].mean()
    spread = scores.std() if scores.numel() > 1 else scores.new_tensor(0.0)
    clarity = float((match - scores.mean()) / spread.clamp_min(1e-12))
    return Links(scores, partner, drift, clarity)


def _center(rows: Tensor) -> Tensor:
    return rows - rows.mean(0) if len(rows) >= ENOUGH else rows
