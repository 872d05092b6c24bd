"""What a client does in a round: train on its own photos, return what it shares.

Defenses wrap this step; it knows none of them. It only honors the two places that they set in the
task: `prepare` (around the optimizer) and `withheld` (what may not leave the device).
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedaudit.errors import AttackError
from fedaudit.models.facenet import criterion_of
from fedaudit.models.zoo import build, parameters_of
from fedaudit.types import Update
from fedaudit.verbs import ClientReturn, ClientTask


def is_withheld(name: str, withheld: tuple[str, ...]) -> bool:
    """Whether parameter `name` stays on the device; `withheld` are name prefixes."""
    return name.startswith(withheld) if withheld else False


def train_locally(task: ClientTask) -> ClientReturn:
    """One client's round: `task.training.steps` steps of SGD, and what is shared of them.

    With `share="gradient"` there is one step, and the (possibly privatized) gradient is shared;
    with "delta", the change of the weights. Parameters in `task.withheld` are kept, not shared.

    Raises:
        AttackError: Training diverged, or the network takes no part of what was received.
    """
    # The client's own start of what the server never sends; it differs from client to client.
    seed = int(torch.randint(2**62, (1,), generator=task.generator))
    model = build(task.model, {**task.before, **task.kept}, seed=seed)
    before = parameters_of(model)
    grads, loss = _train(model, task)
    after = parameters_of(model)
    sent = [name for name in before if not is_withheld(name, task.withheld)]
    if task.share == "gradient":
        tensors = {name: grads[name] for name in sent}
    else:
        tensors = {name: after[name] - before[name] for name in sent}
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise AttackError(
            "local training diverged (NaN or infinity in the update): lower lr or local_steps"
        )
    kept = {name: after[name] for name in before if is_withheld(name, task.withheld)}
    return ClientReturn((Update(task.share, tensors, len(task.images)),), kept, loss)


def _train(model: nn.Module, task: ClientTask) -> tuple[Mapping[str, Tensor], float]:
    """Train in place; returns the last step's gradients by name, and the last loss."""
    training = task.training
    parameters = dict(model.named_parameters())
    optimizer: torch.optim.Optimizer = torch.optim.SGD(
        parameters.values(), training.lr, momentum=training.momentum
    )
    loader: DataLoader[tuple[Tensor, ...]] = DataLoader(
        TensorDataset(task.images, task.labels),
        batch_size=min(training.batch_size, len(task.images)),
        shuffle=len(task.images) > training.batch_size,
        generator=task.generator,
    )
    criterion = criterion_of(model)
    network = model
    if task.prepare:
        network, optimizer, loader = task.prepare(model, optimizer, loader)
    loss = torch.tensor(float("nan"))
    for images, labels in _batches(loader, training.steps):
        optimizer.zero_grad()
        loss = criterion(network(images), labels)
        torch.autograd.backward(loss)
        optimizer.step()
    # Read after the step: a private optimizer replaces the gradients during it.
    grads = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
        for name, p in parameters.items()
    }
    return grads, float(loss.detach())


def _batches(loader: DataLoader[tuple[Tensor, ...]], steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` batches, starting over as often as needed."""
    done = 0
    while done < steps:
        for images, labels in loader:
            yield images, labels
            done += 1
            if done == steps:
                return
