"""Which of a network's parameters a client's images moved: trained, used, and shared."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.printable import first_few
from fedaudit.models.batch_norm import values_per_channel
from fedaudit.models.facenet import criterion_of

DRAWING = frozenset({"Dropout", "Dropout1d", "Dropout2d", "StochasticDepth", "DropPath"})
"""Classes of torch, torchvision and timm whose layers draw while they train."""
TRIED = 2
"""Images that show which parameters a network uses."""


def is_still(name: str, before: Mapping[str, Tensor], sent: Mapping[str, Tensor]) -> bool:
    """Whether a parameter stayed where the server put it: frozen, or used by nothing."""
    return name in before and not (name in sent and bool(sent[name].any()))


def changed(sent: Mapping[str, Tensor]) -> set[str]:
    """Names of what is not zero everywhere.

    Raises:
        AttackError: Nothing is.
    """
    changes = {name for name, value in sent.items() if bool(value.any())}
    if not changes:
        raise AttackError(
            "the update is zero everywhere: nothing was trained in this round, or it was masked. "
            "Attack another round."
        )
    return changes


def trained_part(
    model: nn.Module, sent: Mapping[str, Tensor], image_shape: tuple[int, int, int]
) -> frozenset[str]:
    """Names among `sent` of what images moved: used by the loss, and not zero everywhere.

    A zero gradient is no evidence of a frozen layer's inputs: matched, it would draw dummy images
    to a gradient that nobody computed.

    Raises:
        AttackError: None is left; says why.
    """
    changes = changed(sent)
    parameters = {n: p for n, p in model.named_parameters(remove_duplicate=False) if n in changes}
    like = next(model.parameters())
    size = TRIED, *image_shape
    images = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(like)
    scores = model(images)
    labels = torch.zeros(TRIED, dtype=torch.int64, device=images.device)
    loss = criterion_of(model)(scores, labels)
    slopes = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    names = {n for n, slope in zip(parameters, slopes, strict=True) if slope is not None}
    if not names:
        raise AttackError(
            f"the network does not compute with {min(changes)!r}, nor with anything else that was "
            "sent: was the update made with another network?"
        )
    return frozenset(names)


def possible_training(model: nn.Module, seen: Observation) -> LocalTraining | None:
    """The client's local training, its batch norm in evaluation mode where no other can be.

    In training mode torch refuses a step of one image whose map has shrunk to one pixel: a client
    that took such a step had batch norm fixed, whatever is said or not said of it.
    """
    training, count, shape = seen.mode, seen.batch_size, seen.image_shape
    assert count is not None
    assert shape is not None
    size = count if training is None else min(training.batch_size, count)
    if size > 1 or (training is not None and training.batch_norm == "eval"):
        return training
    model.eval()  # in which no layer refuses anything
    if all(values > 1 for values in values_per_channel(model, shape, size).values()):
        return training
    return replace(training or LocalTraining(batch_size=size), batch_norm="eval")


def unused_parts(
    model: nn.Module,
    untrained: Collection[str],
    training: LocalTraining | None,
    *,
    has_labels: bool,
) -> tuple[str, ...]:
    """What an attack on this update does without, a sentence each.

    Args:
        model: The network.
        untrained: Names of parameters that stayed as sent.
        training: The client's, as far as it is known.
        has_labels: Labels are known, or are not asked for yet.
    """
    parts = []
    drawing = [name for name, module in model.named_modules() if _draws(module)]
    if drawing:
        parts.append(
            f"what {first_few(drawing, 1, quote=True)} drew while the client trained is not known: "
            "what they do on average was computed instead"
        )
    if training is not None and training.augmentation:
        parts.append(
            f"photos are changed at random ({', '.join(training.augmentation)}) before each step: "
            "what comes back is what the network saw of them"
        )
    if untrained:
        names = first_few(sorted(untrained), 1, quote=True)
        parts.append(f"{names} stayed as sent, frozen or not used: left out")
    if not has_labels:
        parts.append("labels are neither granted nor to be read off the head")
    return tuple(parts)


def _draws(module: nn.Module) -> bool:
    """Whether a layer draws random numbers in training mode: dropout, stochastic depth, by name."""
    if type(module).__name__ not in DRAWING:
        return False
    shares = (getattr(module, name, None) for name in ("p", "drop_prob"))
    return any(isinstance(share, float | int) and share > 0 for share in shares)
