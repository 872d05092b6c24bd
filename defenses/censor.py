"""CENSOR: a random update at right angles to the true one."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.shared import Update
from fedaudit.defenses.client_network import received_network
from fedaudit.defenses.gradient_transforms import Batch, Replayed
from fedaudit.defenses.on_update import with_changed_updates
from fedaudit.defenses.settings import public_settings, require
from fedaudit.models.facenet import criterion_of
from fedaudit.models.functional import functional_call
from fedaudit.models.soft_labels import loss_on


@dataclass(frozen=True, kw_only=True)
class Censor:
    """Send, of several random updates orthogonal to the true one, that of lowest loss.

    CENSOR (Zhang et al., NDSS 2025, arXiv 2501.15718). For each parameter a Gaussian vector is made
    orthogonal to the gradient and given its norm; of several draws, the one after whose step the
    client's photos have the lowest loss is sent. The authors' code divides the projection by the
    norm once, which is orthogonal only at norm 1; and its trial step has a fixed rate of 1e-4, ours
    the rate at which the server steps. Of several local steps, the whole delta is the true update.
    A parameter of a single number has no orthogonal direction, and zero is sent.

    Guarantee: none, it is a heuristic. The norm of each parameter's gradient is sent exactly, and
    an attacker knows a direction that the gradient does not have. To first order an orthogonal step
    does not change the loss: what the model learns, it learns from the choice among the draws.
    No paper that breaks it is known to us. For one photo of a fresh network the norms often give
    its label away (`attacks.adaptive.label_by_lengths`).

    Args:
        trials: Draws to choose from; ≥ 1. Each costs a forward pass over the client's photos.
    """

    trials: int = 20

    def __post_init__(self) -> None:
        require(self.trials >= 1, "trials must be ≥ 1", self.trials)

    def __call__(self, step: ClientStep) -> ClientStep:
        """Replace what the step shares."""
        return with_changed_updates(step, self._replace)

    def replay(self, count: int) -> Replayed:
        """One draw for each of an attacker's gradients, without the choice among several."""
        return Replayed(mean=(orthogonal_gradients,))

    keeps_claims = False
    facts = public_settings("censor")

    def _replace(
        self, update: Update, task: ClientTask, reply: ClientReturn
    ) -> Mapping[str, Tensor]:
        model = received_network(task, reply)
        criterion, start = criterion_of(model), dict(model.named_parameters())
        rate = 1.0 if update.kind == "delta" else -task.training.lr
        best: tuple[float, dict[str, Tensor]] | None = None
        for _ in range(self.trials):
            guess = {n: orthogonal_to(value, task.generator) for n, value in update.tensors.items()}
            with torch.no_grad():
                weights = {name: start[name] + rate * value for name, value in guess.items()}
                scores = functional_call(model, weights, (task.images,))
                loss = loss_on(criterion, scores, task.labels)
            if best is None or float(loss) < best[0]:
                best = (float(loss), guess)
        return best[1] if best else update.tensors


def orthogonal_gradients(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """Random gradients, orthogonal to those of the batch and as long, parameter by parameter."""
    return {
        name: torch.stack([orthogonal_to(one, generator) for one in value])
        for name, value in batch.items()
    }


def orthogonal_to(value: Tensor, generator: torch.Generator) -> Tensor:
    """A random tensor at right angles to `value` and of its norm; zeros where there is none.

    Computed in double precision: the angle is right to within the rounding of `value`'s type.
    """
    true = value.detach().double().flatten()
    sample = torch.randn(true.shape, generator=generator, dtype=torch.float64).to(true.device)
    size = true.norm()
    along = true / size if float(size) else true
    rest = sample - (sample @ along) * along
    if float(rest.norm()) <= 1e-9 * float(sample.norm()):
        return torch.zeros_like(value)
    result: Tensor = rest * (size / rest.norm())
    return result.view_as(value).to(value.dtype)
