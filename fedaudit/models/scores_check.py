"""Whether a network is one that gives scores of images, and has a loss of them; says what to do."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedaudit.core.errors import UsageError, first_line
from fedaudit.models.facenet import criterion_of
from fedaudit.models.faulty_layer import failing_layer


@torch.no_grad()
def scores_of(network: nn.Module, images: Tensor) -> Tensor:
    """Scores `[N, K]` of images `[N, C, H, W]`, N ≥ 2, by a network in evaluation mode.

    Raises:
        UsageError: It takes no such images, writes into them, or gives something else.
    """
    given, shape = images.clone(), list(images.shape[1:])
    try:
        scores = network(given)
    except Exception as error:  # a stranger's network may raise anything
        if others := _other_arguments(network):
            raise UsageError(
                f"the model's forward pass asks for {' and '.join(map(repr, others))} beside the "
                "images: let it take images alone, and move what needs labels into a method "
                "criterion(scores, labels)."
            ) from error
        if "dtype" in str(error) or "scalar type" in str(error):
            raise UsageError(
                f"layer {failing_layer(network, images)} of the model fails: "
                f"{first_line(error).rstrip('.')}. Attacks compute in one precision: take casts "
                "such as x.half() out of the forward pass, or let them follow the layer, as "
                "x.to(self.layer.weight)."
            ) from error
        raise UsageError(
            f"the model does not take images {shape}: layer {failing_layer(network, images)} "
            f"fails: {first_line(error).rstrip('.')}. Check image_shape, or name another --model."
        ) from error
    if not torch.equal(given, images):
        raise UsageError(
            "the model writes into the images that it is given (as images.sub_(mean) does), and "
            "an attack has to look at them again: let its forward pass begin with a copy, "
            "images = images.clone()."
        )
    for count, found in ((len(images), scores), (1, network(images[:1].clone()))):
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != count:
            what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            number = "one image" if count == 1 else "two images"
            raise UsageError(
                f"the model gives {what} for {number}; needed are scores [N, classes]. "
                + _how_to_take(found, count)
            )
    return scores  # type: ignore[no-any-return]


def check_loss(network: nn.Module, scores: Tensor) -> None:
    """Try the loss that an attack would compute, on scores `[N, K]`.

    Raises:
        UsageError: There is none of a single score, or it fails, or is not one number.
    """
    own = callable(getattr(network, "criterion", None))
    if scores.shape[1] == 1 and not own:
        raise UsageError(
            "the model gives one score an image, of which cross-entropy is 0 whatever it is, as "
            "if nothing had been learned. Give it the loss of its training, a method "
            "criterion(scores, labels)."
        )
    if not own:
        return
    labels, sizes = torch.zeros(len(scores), dtype=torch.int64), list(scores.shape)
    needed = "Let it take scores [N, K] and labels [N], whole numbers, and give their mean loss"
    try:
        loss = criterion_of(network)(scores, labels)
    except Exception as error:  # whatever a stranger's loss raises
        raise UsageError(
            f"the model's criterion(scores, labels) fails on scores {sizes} and labels "
            f"{list(labels.shape)}: {first_line(error).rstrip('.')}. {needed}."
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise UsageError(
            f"the model's criterion(scores, labels) gives {what}, and one number is needed. "
            f"{needed}."
        )


def _other_arguments(network: nn.Module) -> list[str]:
    """What a forward pass must be given beside its first argument."""
    try:
        parameters = list(inspect.signature(network.forward).parameters.values())
    except (TypeError, ValueError):  # built in C
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters[1:] if p.kind in kinds and p.default is p.empty]


def _how_to_take(outputs: Any, count: int) -> str:
    """How scores could be taken out of what a network gives; which of several they are is a guess.

    A hook, as it leaves the names of parameters as they are, which a wrapper would not.
    """
    keys: list[str] = []
    if isinstance(outputs, Mapping):
        keys = [f"[{key!r}]" for key, value in outputs.items() if _are_rows(value, count)]
    elif isinstance(outputs, tuple | list):
        keys = [f"[{place}]" for place, value in enumerate(outputs) if _are_rows(value, count)]
    elif not isinstance(outputs, Tensor):
        values = getattr(outputs, "__dict__", {})
        keys = [f".{name}" for name, value in values.items() if _are_rows(value, count)]
    if not keys:
        return "Let its forward pass give these alone."
    some = f"(it has {', '.join(keys)}) " if len(keys) > 1 else ""
    return (
        f"Take them out of it {some}by a hook: model.register_forward_hook(lambda module, inputs, "
        f"outputs: outputs{keys[0]})."
    )


def _are_rows(value: object, count: int) -> bool:
    return isinstance(value, Tensor) and value.dim() == 2 and len(value) == count
