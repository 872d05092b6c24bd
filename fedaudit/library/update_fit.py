"""Does an update fit the model that it is said to be of, and what else was said of it?"""

import math
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from fedaudit.core.errors import ConfigError, UsageError
from fedaudit.core.printable import first_few
from fedaudit.models.live_module import copy_module
from fedaudit.models.named_network import unborn_layer


def checked_shape(shape: Sequence[int] | None) -> tuple[int, int, int]:
    """`(C, H, W)`.

    Raises:
        UsageError: It is missing, or something else.
    """
    if shape is None:
        raise UsageError("image_shape is missing: say (C, H, W), such as image_shape=(3, 64, 64).")
    if len(shape) != 3 or min(shape) < 1:
        raise UsageError(f"image_shape = {tuple(shape)}: it is (C, H, W), such as (3, 64, 64).")
    channels, height, width = (int(n) for n in shape)
    return channels, height, width


def check_kinds(model: object, update: object, images: object) -> None:
    """Refuse arguments of another kind, as a mistake in their order makes them.

    Raises:
        UsageError: Says what each of them is.
    """
    if not isinstance(model, nn.Module):
        what = "a class: give an instance of it"
        if not isinstance(model, type):
            what = f"{type(model).__name__}: give the torch.nn.Module that the server sent"
        raise UsageError(f"the model is {what}.")
    if lazy := unborn_layer(model):
        raise UsageError(
            f"the model's layer {lazy} has no weights before it has seen an image: run the model "
            "once, as the server did before it sent it."
        )
    if not isinstance(update, Mapping):
        raise UsageError(
            f"the update is {type(update).__name__}: it maps the model's parameter names to "
            "tensors, such as dict(zip(dict(model.named_parameters()), gradients))."
        )
    if not isinstance(images, int) or isinstance(images, bool):
        raise UsageError(
            f"images is {type(images).__name__}: it is how many are behind the update."
        )


def check_fit(
    model: nn.Module,
    update: Mapping[str, Tensor],
    unshared: Collection[str],
) -> None:
    """Refuse an update whose names or shapes are not the model's.

    Raises:
        UsageError: Names what does not fit, and the closest name.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    if not own:
        raise UsageError("the model has no parameters: nothing was learned, nothing is shared.")
    if not update:
        raise UsageError("the update is empty: it maps the model's parameter names to tensors.")
    for name in (*update, *unshared):
        if name not in own:
            close = get_close_matches(name, own, n=1)
            few = first_few(own, quote=True)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {few}."
            hint += _prefix_hint(name, own)
            if name in dict(model.named_buffers()):
                hint = "that is a buffer, which goes into buffers={…}."
            if isinstance(update.get(name), Mapping):
                hint = f"it is a mapping, and the update may lie in it: give update[{name!r}]."
            raise UsageError(f"the model has no parameter {name!r}: {hint}")
        if name in update:
            _check_tensor(name, update[name], own[name])
    if both := [name for name in unshared if name in update]:
        raise UsageError(f"{both[0]!r} is in the update, so it is shared: take it off unshared.")


def check_complete(
    model: nn.Module,
    update: Mapping[str, Tensor],
    unshared: Collection[str],
    shape: tuple[int, int, int],
) -> None:
    """Refuse an update that lacks what the model was trained by.

    It may lack what is frozen, and what the model does not compute with: that has no gradient.

    Raises:
        UsageError: Names what is missing.
    """
    parameters = {n for n, p in model.named_parameters() if p.requires_grad}
    missing = [n for n in parameters if n not in update and n not in unshared]
    if missing and (missing := sorted(used_parameters(model, shape) & set(missing))):
        raise UsageError(
            f"the update lacks {first_few(missing, quote=True)}. If that stays on the device, say "
            "so: unshared=[…]; if it is frozen, set requires_grad = False on the model."
        )


def is_sparse(value: object) -> bool:
    """Whether a tensor lists the numbers that are not zero, as updates of few of them do."""
    return isinstance(value, Tensor) and value.layout != torch.strided


def _check_tensor(name: str, value: object, parameter: Tensor) -> None:
    """Refuse what is no finite number for each of a parameter's."""
    if not isinstance(value, Tensor):
        raise UsageError(
            f"the update's {name!r} is {type(value).__name__}, no tensor: give "
            "torch.as_tensor(…) of it."
        )
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise UsageError(
            f"the update's {name!r} is of {kind}: give the numbers that the server makes of it."
        )
    if value.shape != parameter.shape:
        raise UsageError(
            f"the update's {name!r} is {tuple(value.shape)}, and the model's "
            f"{tuple(parameter.shape)}: another number of classes or image size?"
        )
    if not bool(value.isfinite().all()):
        raise UsageError(f"the update's {name!r} holds values that are not finite numbers.")


def used_parameters(model: nn.Module, shape: tuple[int, int, int]) -> frozenset[str]:
    """Names of what the scores of images depend on; of all where the model takes no such images."""
    twin = copy_module(module=model).eval()
    parameters = dict(twin.named_parameters())
    try:
        scores = twin(
            torch.linspace(0, 1, 2 * math.prod(shape)).view(2, *shape).to(next(twin.parameters()))
        )
        slopes = torch.autograd.grad(scores.sum(), list(parameters.values()), allow_unused=True)
    except Exception:  # whatever is wrong with it is told where the model is checked
        return frozenset(parameters)
    return frozenset(n for n, s in zip(parameters, slopes, strict=True) if s is not None)


def _prefix_hint(name: str, own: Collection[str]) -> str:
    first, _, rest = name.partition(".")
    return f" Names in the update begin with {first!r}: take that off." if rest in own else ""


def checked_labels(
    labels: Tensor | Sequence[int] | None, images: int, classes: int
) -> Tensor | None:
    """`[N]` int64 on the CPU; None where they are not known.

    Raises:
        ConfigError: Not one a image, or none of the model's classes.
    """
    if labels is None:
        return None
    values = torch.as_tensor(labels).detach().cpu()
    if values.is_floating_point() or values.is_complex():
        raise ConfigError("labels are whole numbers: the class of each image.")
    values = values.long()
    if values.shape != (images,):
        raise ConfigError(f"labels are {tuple(values.shape)}: needed is one of each of {images}.")
    if values.min() < 0 or values.max() >= classes:
        raise ConfigError(
            f"labels go from {values.min()} to {values.max()}, and the model has {classes} classes."
        )
    return values
