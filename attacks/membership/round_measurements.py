"""What each client's update in a round says of candidate photos: loss and gradient alignment.

The server knows every client's update and the model that it started from, so it knows every
client's local model, too. It does not know the class of a candidate, who may have none: the class
that the round's mean update gives is taken, for members and others alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.membership.client_steps import step_of
from fedaudit.attacks.membership.shadow_clients import Shadows
from fedaudit.core.observation import Observation
from fedaudit.models.batch_norm import running_statistics
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.functional import functional_call

PASS = 128
"""Photos of one forward pass."""
LARGEST = 10_000_000
"""Numbers in the gradients of single photos that are held at once."""


@dataclass(frozen=True)
class Measurements:
    """What updates say of photos; higher speaks for membership.

    Attributes:
        loss: `[rounds, clients, photos]`, at most 0: logarithm of the probability that the client's
            local model gives the photo's class.
        alignment: The same shape, in [-1, 1]: cosine between the update and the step that the
            photo alone asks for.
        shadows: `[rounds, shadows, photos]`, as `loss`, of the local models of shadow clients; NaN
            where one trained on the photo's person. None without shadow clients.
        strangers: `[photos, photos]`, in each row of whom the server knows that they are in
            nobody's data, the row's own person aside. None without shadow clients.
    """

    loss: Tensor
    alignment: Tensor
    shadows: Tensor | None = None
    strangers: Tensor | None = None


def join(rounds: Sequence[Measurements]) -> Measurements:
    """Measurements of several rounds, in order, of the same clients and photos."""
    shadows = [one.shadows for one in rounds if one.shadows is not None]
    return Measurements(
        torch.cat([one.loss for one in rounds]),
        torch.cat([one.alignment for one in rounds]),
        torch.cat(shadows) if len(shadows) == len(rounds) else None,
        rounds[0].strangers,
    )


def measure_round(
    seen: Sequence[Observation],
    photos: Tensor,
    *,
    people: Sequence[str] = (),
    shadows: Shadows | None = None,
) -> Measurements:
    """Measure candidate photos against one round.

    Args:
        seen: What the server saw of each client in this round, in the order of the clients. All
            started from the same model.
        photos: `[N, C, H, W]` in [0, 1].
        people: `[N]` whom each shows, by the names that `shadows` has.
        shadows: Shadow clients of the same round.

    Returns:
        Measurements of one round.

    Raises:
        AttackError: A client sent no update of the whole model: a sum hides who sent what, and
            without the head there is no class.
    """
    first = seen[0]
    model = build(first.model, first.before).eval()
    before = {name: value.detach() for name, value in parameters_of(model).items()}
    constants = {name: value.detach() for name, value in running_statistics(model).items()}
    steps = [step_of(one, before) for one in seen]
    mean = {name: torch.stack([step[name] for step in steps]).mean(0) for name in before}
    labels = _log_probabilities(model, _move(before, mean) | constants, photos).argmax(1)
    each = torch.arange(len(photos))
    losses = [
        _log_probabilities(model, _move(before, step) | constants, photos)[each, labels]
        for step in steps
    ]
    alignment = _alignment(model, before, constants, steps, photos, labels)
    found = Measurements(torch.stack(losses)[None], alignment[None])
    if shadows is None:
        return found
    of_shadows = torch.stack(
        [
            _log_probabilities(model, _move(before, step_of(one, before)) | constants, photos)[
                each, labels
            ]
            for one in shadows.seen
        ]
    )
    of_shadows[shadows.trained_on(people)] = torch.nan
    everybody = frozenset().union(*shadows.people)
    strangers = [[one in everybody and one != other for one in people] for other in people]
    return replace(found, shadows=of_shadows[None], strangers=torch.tensor(strangers))


def _move(before: Mapping[str, Tensor], step: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value + step[name] for name, value in before.items()}


@torch.no_grad()
def _log_probabilities(model: nn.Module, weights: Mapping[str, Tensor], photos: Tensor) -> Tensor:
    """`[N, K]`."""
    parts = [functional_call(model, dict(weights), (part,)) for part in torch.split(photos, PASS)]
    return F.log_softmax(torch.cat(parts), 1)


def _alignment(
    model: nn.Module,
    before: Mapping[str, Tensor],
    constants: Mapping[str, Tensor],
    steps: Sequence[Mapping[str, Tensor]],
    photos: Tensor,
    labels: Tensor,
) -> Tensor:
    """`[clients, N]`: cosine of each client's step with the descent direction of each photo."""

    def loss(weights: dict[str, Tensor], photo: Tensor, label: Tensor) -> Tensor:
        scores = functional_call(model, {**weights, **constants}, (photo[None],))
        return F.cross_entropy(scores, label[None])

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    moves = {name: torch.stack([step[name].flatten() for step in steps]) for name in before}
    lengths = torch.stack([move.square().sum(1) for move in moves.values()]).sum(0).sqrt()
    chunk = max(1, LARGEST // sum(value.numel() for value in before.values()))
    cosines = []
    for some, of in zip(torch.split(photos, chunk), torch.split(labels, chunk), strict=True):
        each = {name: value.flatten(1) for name, value in gradients(dict(before), some, of).items()}
        along = torch.stack([moves[name] @ value.T for name, value in each.items()]).sum(0)
        own = torch.stack([value.square().sum(1) for value in each.values()]).sum(0).sqrt()
        cosines.append(-along / (lengths[:, None] * own).clamp_min(1e-30))
    return torch.cat(cosines, 1)
