"""Attack one model update from Python, as a curious server would."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedaudit.attacks.adaptive.assumptions import as_assumed
from fedaudit.captures.format.capture_network import NORMALIZED
from fedaudit.core.errors import KnowledgeError, UsageError
from fedaudit.core.knowledge import Knowledge
from fedaudit.core.observation import DefenseFacts, LocalTraining, ModelSpec, Observation
from fedaudit.core.protocols import Attack, Defense
from fedaudit.core.reconstruction import Reconstruction
from fedaudit.core.registry import create
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Buffers, Shared, Update
from fedaudit.defenses.chain import change_each
from fedaudit.library.given_model import (
    settings_without_prefix,
    try_model,
    unwrapped,
    warn_of_optimizer,
    warn_of_weights,
    without_prefix,
    without_prefix_in,
)
from fedaudit.library.update_fit import (
    check_complete,
    check_fit,
    check_kinds,
    checked_labels,
    checked_shape,
    is_sparse,
)
from fedaudit.models import live_module
from fedaudit.models.derivatives import twice_differentiable


def attack(
    model: nn.Module,
    update: Mapping[str, Tensor | None],
    name: str | Attack = "subspace_matching",
    *,
    images: int = 1,
    image_shape: Sequence[int] | None = None,
    labels: Tensor | Sequence[int] | None = None,
    kind: Literal["gradient", "delta"] = "gradient",
    training: LocalTraining | None = None,
    defense: Defense | Sequence[Defense] | None = None,
    unshared: Collection[str] = (),
    buffers: Mapping[str, Tensor] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Reconstruction:
    """Rebuild the images behind one model update.

    The attack knows the model, the update, and what the other arguments say; each fact that is left
    out, it must find out or do without. It computes on the model's device. Neither the model nor
    the update is changed.

    Args:
        model: The network as the server sent it, before the client trained: from images
            `[N, C, H, W]` in [0, 1] to scores `[N, K]`. Its loss is cross-entropy, or its method
            `criterion(scores, labels)`. Its mode (`model.training`) is the one that batch norm is
            taken to have trained in, unless `training` says it. torch's wrappers (DataParallel,
            torch.compile) are taken off, with what they put before names, here and in all other
            arguments; TorchScript is taken as the layers that it was made of.
        update: By parameter name: a gradient (the mean over the images), or a change of weights.
            Frozen parameters may be absent, None or zero; so may those that the model does not use.
        name: A registered attack (`fedaudit list attacks`), `package.module:Attack`, or an attack
            such as `fedaudit.attacks.gan_inversion(latent_steps=50)`.
        images: Number of images N behind the update, over all local steps.
        image_shape: `(C, H, W)`.
        labels: `[N]` classes of the images; None leaves them to the attack.
        kind: "gradient", or "delta": weights after local training − weights before.
        training: How the client trained; of a gradient, one step is known anyway.
        defense: In use and known to the attacker, such as `fedaudit.defenses.DPSGD()`; () says that
            there is none, None leaves it to the attack to see in the update.
        unshared: Names of parameters that stay on the device, which the server does not know.
        buffers: Batch-norm statistics that the client sent beside its update.
        mean: A channel, where the client normalizes images in [0, 1] outside the model.
        std: A channel, likewise.
        settings: Of the attack named by `name`, by keyword (`fedaudit explain NAME` lists them).
        seed: Of all that is drawn; the same seed gives the same images.
        generator: A CPU generator in place of `seed`.
        progress: Called with `(step, steps, objective)` now and then.

    Returns:
        Images `[N, C, H, W]` in [0, 1], the labels (−1 where they could not be told), the objective
        reached, and what it cost.

    Raises:
        UnknownNameError: No such attack or setting; names the closest.
        UsageError: The update does not fit the model, the model does not take such images, or an
            argument is missing or wrong.
        KnowledgeError: The attack does not work on an update alone.
        AttackError: The attack failed while it ran.

    Example:
        >>> import torch, fedaudit
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))
        >>> photo, label = torch.rand(1, 3, 8, 8), torch.tensor([2])
        >>> loss = torch.nn.functional.cross_entropy(model(photo), label)
        >>> gradients = torch.autograd.grad(loss, list(model.parameters()))
        >>> update = dict(zip(dict(model.named_parameters()), gradients))
        >>> rebuilt = fedaudit.attack(model, update, "analytic", image_shape=(3, 8, 8))
        >>> torch.allclose(rebuilt.images, photo, atol=1e-4)
        True
    """
    check_kinds(model, update, images)
    shape = checked_shape(image_shape)
    model, wrapper = unwrapped(model, shape)
    unshared = tuple(name.removeprefix(wrapper) for name in unshared)
    if images < 1:
        raise UsageError(f"images = {images}: an update is of one image or more.")
    if kind not in ("gradient", "delta"):
        raise UsageError(f'kind = {kind!r}: an update is a "gradient" or a "delta".')
    tensors = without_prefix({n: t for n, t in update.items() if t is not None}, wrapper)
    tensors = {n: t.to_dense() if is_sparse(t) else t for n, t in tensors.items()}
    check_fit(model, tensors, unshared)
    warn_of_weights(model, tensors, kind)
    if defense is None:
        warn_of_optimizer(tensors, kind, training)
    method = without_prefix_in(
        _resolve(name, settings_without_prefix(settings or {}, wrapper)), wrapper
    )
    spec = _spec(model, unshared, mean, std)
    with twice_differentiable():
        classes = try_model(spec, shape)
        check_complete(model, tensors, unshared, shape)
    if buffers is not None:
        buffers = without_prefix(buffers, wrapper)
    seen = Observation(
        model=spec,
        before=_broadcast(model, unshared),
        shared=_payloads(model, kind, tensors, buffers, images),
        image_shape=shape,
        batch_size=images,
        num_classes=classes,
        training=training or _one_step(model, kind, images),
        defense=_facts(defense, wrapper),
        labels=checked_labels(labels, images, classes),
    ).to(str(next(model.parameters()).device))
    with twice_differentiable():
        result = method(
            seen, generator=generator or generator_for("library", seed), progress=progress
        )
    return as_assumed(result, seen, "known")


def _resolve(name: str | Attack, settings: Mapping[str, Any] | None) -> Attack:
    """The attack, which must work on an update that is already there."""
    if not isinstance(name, str) and settings:
        raise UsageError("settings go with an attack's name; give those of an object to its maker.")
    method: Attack = create("attacks", name, settings or {}) if isinstance(name, str) else name
    if Knowledge.MANIPULATION in method.needs:
        raise KnowledgeError(
            f"{_quote(name)} chooses what the server sends before there is an update: audit it in "
            'a study with threat_model = "F" (fedaudit.audit).'
        )
    if Update not in method.reads:
        kinds = ", ".join(sorted(kind.__name__ for kind in method.reads))
        raise KnowledgeError(
            f"{_quote(name)} reads {kinds}, not a model update: audit it in a study whose method "
            "shares such things (fedaudit.audit)."
        )
    return method


def _quote(name: str | Attack) -> str:
    return f"attack {name!r}" if isinstance(name, str) else type(name).__name__


def _spec(
    model: nn.Module,
    local: Collection[str],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> ModelSpec:
    arguments = {"module": model, "redrawn": tuple(local)}
    spec = ModelSpec(live_module.FACTORY, arguments)
    if mean is None and std is None:
        return spec
    center = list(mean if mean is not None else [0.0] * len(std or ()))
    scale = list(std if std is not None else [1.0] * len(center))
    if len(center) != len(scale) or min(scale, default=0) <= 0:
        raise UsageError("mean and std are one number a channel each, std above 0.")
    settings = {"factory": spec.factory, "arguments": arguments, "mean": center, "std": scale}
    return ModelSpec(NORMALIZED, settings)


def _broadcast(model: nn.Module, local: Collection[str]) -> dict[str, Tensor]:
    """What the server sent: parameters but the unshared ones, and buffers."""
    state = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    return _copies({n: t for n, t in state.items() if n not in local}, model)


def _payloads(
    model: nn.Module,
    kind: Literal["gradient", "delta"],
    update: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor] | None,
    images: int,
) -> tuple[Shared, ...]:
    payload = Update(kind, _copies(update, model), images)
    return (payload,) if buffers is None else (payload, Buffers(_copies(buffers, model), images))


def _one_step(model: nn.Module, kind: str, images: int) -> LocalTraining | None:
    """What a gradient says by itself of how the client trained."""
    if kind != "gradient":
        return None
    return LocalTraining(batch_size=images, batch_norm="train" if model.training else "eval")


def _facts(
    defense: Defense | Sequence[Defense] | None, wrapper: str
) -> tuple[DefenseFacts, ...] | None:
    """What is public of the defenses, whose settings may name layers as the wrapper does."""
    if defense is None:
        return None
    parts = defense if isinstance(defense, Sequence) else (defense,)
    if wrong := [part for part in parts if not callable(getattr(part, "facts", None))]:
        raise UsageError(
            f"defense holds {wrong[0]!r}: give defenses, such as fedaudit.defenses.DPSGD(…)."
        )
    bare_names = partial(without_prefix_in, prefix=wrapper)
    return tuple(change_each(part, bare_names).facts() for part in parts)


def _copies(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Copies without history; numbers in the model's precision, single or better."""
    precision = torch.promote_types(next(model.parameters()).dtype, torch.float32)
    return {
        name: value.detach().to(precision if value.is_floating_point() else value.dtype, copy=True)
        for name, value in tensors.items()
    }
