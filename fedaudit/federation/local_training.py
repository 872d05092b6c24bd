"""What a client does in a round: train on its own photos, return what it shares.

Defenses wrap this step; it knows none of them. It only honors the two places that they set in the
task: `prepare` (around the optimizer) and `withheld` (what may not leave the device).
"""

from collections.abc import Mapping
from functools import partial
from itertools import chain, islice, repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedaudit.core.client import ClientReturn, ClientTask, Loop
from fedaudit.core.errors import AttackError, ConfigError
from fedaudit.core.observation import LocalTraining
from fedaudit.core.seeds import seed_torch
from fedaudit.core.shared import Buffers, Shared, Update
from fedaudit.federation.augmentation import augment
from fedaudit.models.batch_norm import client_mode, collect_buffers
from fedaudit.models.build_network import build, parameters_of
from fedaudit.models.facenet import criterion_of
from fedaudit.models.soft_labels import loss_on
from fedaudit.models.variational_bottleneck import give_noise


def is_withheld(name: str, withheld: tuple[str, ...]) -> bool:
    """Whether parameter `name` stays on the device; `withheld` are name prefixes."""
    return name.startswith(withheld) if withheld else False


def train_locally(task: ClientTask) -> ClientReturn:
    """One client's round: `task.training.steps` optimizer steps, and what is shared of them.

    With `share="gradient"` there is one step, and the (possibly privatized) gradient is shared;
    with "delta", the change of the weights. A client whose batch-norm layers train also shares
    their buffers. What `task.withheld` names is kept, not shared.

    Raises:
        AttackError: Training diverged, or the network takes no part of what was received.
    """
    # The client's own start of what the server never sends; it differs from client to client.
    seed = int(torch.randint(2**62, (1,), generator=task.generator))
    model = client_mode(build(task.model, {**task.before, **task.kept}, seed=seed), task.training)
    give_noise(model, task.generator)
    before = parameters_of(model)
    with torch.random.fork_rng(devices=[]):  # what dropout and stochastic depth draw from
        seed_torch(task.generator.initial_seed())
        grads, loss = _train(model, task)
    after = parameters_of(model)
    public_names = [name for name in before if not is_withheld(name, task.withheld)]
    if task.share == "gradient":
        tensors = {name: grads[name] for name in public_names}
    else:
        tensors = {name: after[name] - before[name] for name in public_names}
    buffers = collect_buffers(model) if task.training.batch_norm == "train" else {}
    everything = [*tensors.values(), *buffers.values()]
    if not all(bool(torch.isfinite(t).all()) for t in everything):
        raise AttackError(
            "local training diverged (NaN or infinity in the update): lower lr or local_steps"
        )
    shared: list[Shared] = [Update(task.share, tensors, len(task.images))]
    public = {n: b for n, b in buffers.items() if not is_withheld(n, task.withheld)}
    if public:
        shared.append(Buffers(public, len(task.images)))
    local = {n: t for n, t in {**after, **buffers}.items() if is_withheld(n, task.withheld)}
    return ClientReturn(tuple(shared), local, loss, of_weights=("update",))


def _train(model: nn.Module, task: ClientTask) -> tuple[Mapping[str, Tensor], float]:
    """Train in place; returns the last step's gradients by name, and the last loss."""
    training = task.training
    parameters = dict(model.named_parameters())
    optimizer = _optimizer(list(parameters.values()), training)
    both = (task.images, task.labels)
    photos = TensorDataset(*(t.reshape(-1, task.copies, *t.shape[1:]) for t in both))
    size = max(1, training.batch_size // task.copies)
    loader: DataLoader[tuple[Tensor, ...]] = DataLoader(
        photos,
        batch_size=min(size, len(photos)),
        shuffle=len(photos) > size,
        generator=task.generator,
    )
    loop = Loop(model, optimizer, loader, partial(loss_on, criterion_of(model)))
    if task.prepare:
        loop = task.prepare(loop)
    loss = torch.tensor(float("nan"))
    batches = chain.from_iterable(repeat(loop.loader))  # starts over as often as needed
    for photos_of_step, labels in islice(batches, training.steps):
        images = augment(photos_of_step.flatten(0, 1), training.augmentation)
        loop.optimizer.zero_grad()
        loss = loop.criterion(_scores(loop.network, images), labels.flatten(0, 1))
        loss.backward()
        loop.optimizer.step()
    # Read after the step: a private optimizer replaces the gradients during it.
    grads = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
        for name, p in parameters.items()
    }
    return grads, float(loss.detach())


def _scores(network: nn.Module, images: Tensor) -> Tensor:
    """Scores `[N, K]` of a mini-batch; the last of an epoch may be a single image."""
    try:
        scores: Tensor = network(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"a mini-batch of {len(images)} image leaves batch norm in training mode one value a "
            'channel: write batch_norm = "eval", or a batch_size that leaves no image over.'
        ) from error
    return scores


def _optimizer(parameters: list[nn.Parameter], training: LocalTraining) -> torch.optim.Optimizer:
    """The client's optimizer; FedProx's term acts in its step.

    The term's gradient μ(w − w_global) knows no image. Added as the step begins, it comes after a
    private optimizer has clipped and noised what the images say.
    """
    optimizer: torch.optim.Optimizer
    if training.by_adam:
        rule = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
        optimizer = rule(parameters, training.lr, weight_decay=training.weight_decay, foreach=False)
    else:
        optimizer = torch.optim.SGD(
            parameters, training.lr, momentum=training.momentum, weight_decay=training.weight_decay
        )
    if training.proximal:
        start = [p.detach().clone() for p in parameters]

        def pull_back(*_: Any) -> None:
            with torch.no_grad():
                for p, s in zip(parameters, start, strict=True):
                    if p.grad is not None:
                        p.grad.add_(p - s, alpha=training.proximal)

        optimizer.register_step_pre_hook(pull_back)
    return optimizer
