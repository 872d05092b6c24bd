"""What each client's update in a round says of candidate photos: loss and gradient alignment.

The server knows every client's update and the model that it started from, so it knows every
client's local model, too. It does not know the class of a candidate, who may have none: the class
that the round's mean update gives is taken, for members and others alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.core.errors import AttackError
from fedaudit.core.observation import Observation
from fedaudit.core.shared import Update
from fedaudit.models.batch_norm import running_statistics
from fedaudit.models.zoo import build, parameters_of

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
    """

    loss: Tensor
    alignment: Tensor

    def of(self, photos: Sequence[int]) -> "Measurements":
        """Of these photos only."""
        index = torch.tensor(list(photos), dtype=torch.long)
        return Measurements(self.loss[..., index], self.alignment[..., index])


def joined(rounds: Sequence[Measurements]) -> Measurements:
    """Measurements of several rounds, in order, of the same clients and photos."""
    return Measurements(
        torch.cat([one.loss for one in rounds]), torch.cat([one.alignment for one in rounds])
    )


def measure_round(seen: Sequence[Observation], photos: Tensor) -> Measurements:
    """Measure candidate photos against one round.

    Args:
        seen: What the server saw of each client in this round, in the order of the clients. All
            started from the same model.
        photos: `[N, C, H, W]` in [0, 1].

    Returns:
        Measurements of one round.

    Raises:
        AttackError: A client sent no update of the whole model: a sum hides who sent what, and
            without the head there is no class.
    """
    first = seen[0]
    model = build(first.model, first.before).eval()
    before = {name: value.detach() for name, value in parameters_of(model).items()}
    fixed = {name: value.detach() for name, value in running_statistics(model).items()}
    steps = [_step(one, before) for one in seen]
    mean = {name: torch.stack([step[name] for step in steps]).mean(0) for name in before}
    labels = _log_probabilities(model, _moved(before, mean) | fixed, photos).argmax(1)
    each = torch.arange(len(photos))
    losses = [
        _log_probabilities(model, _moved(before, step) | fixed, photos)[each, labels]
        for step in steps
    ]
    alignment = _alignment(model, before, fixed, steps, photos, labels)
    return Measurements(torch.stack(losses)[None], alignment[None])


def _moved(before: Mapping[str, Tensor], step: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value + step[name] for name, value in before.items()}


def _step(one: Observation, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How the client's update moves each parameter."""
    update = next((sent for sent in one.shared if isinstance(sent, Update)), None)
    if update is None:
        raise AttackError(
            "membership is read off each client's update, and the server has none of this client "
            "alone. In a study, leave out secure aggregation and methods that share no update."
        )
    missing = [name for name in before if name not in update.tensors or name not in one.before]
    if missing:
        raise AttackError(
            f"{missing[0]} and {len(missing) - 1} other tensors stay on the devices, and membership"
            " is read off updates of the whole model. Use a method with one head for all, such as "
            "fedavg."
        )
    lr = one.training.lr if one.training else 0.1  # of a gradient; only its size depends on it
    factor = -lr if update.kind == "gradient" else 1.0
    return {name: factor * update.tensors[name].detach() for name in before}


@torch.no_grad()
def _log_probabilities(model: nn.Module, weights: Mapping[str, Tensor], photos: Tensor) -> Tensor:
    """`[N, K]`."""
    parts = [
        torch.func.functional_call(model, dict(weights), (part,))
        for part in torch.split(photos, PASS)
    ]
    return F.log_softmax(torch.cat(parts), 1)


def _alignment(
    model: nn.Module,
    before: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    steps: Sequence[Mapping[str, Tensor]],
    photos: Tensor,
    labels: Tensor,
) -> Tensor:
    """`[clients, N]`: cosine of each client's step with the descent direction of each photo."""

    def loss(weights: dict[str, Tensor], photo: Tensor, label: Tensor) -> Tensor:
        scores = torch.func.functional_call(model, {**weights, **fixed}, (photo[None],))
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
