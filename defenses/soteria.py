"""Soteria: zeros where a fully connected layer's input says most about the photos."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from fedaudit.core.client import ClientReturn, ClientStep, ClientTask
from fedaudit.core.errors import ConfigError
from fedaudit.core.shared import Update
from fedaudit.defenses.client_network import all_photos, received_network
from fedaudit.defenses.gradient_transforms import Batch, Replayed, keep_inputs
from fedaudit.defenses.on_update import on_sending
from fedaudit.defenses.settings import public_settings, require

CHUNK = 16
"""Derivatives that are computed at once; bounds memory."""
FEWEST = 4
"""Probes of each photo where there are many."""


@dataclass(frozen=True, kw_only=True)
class Soteria:
    """Zero the columns of one layer's update that belong to the inputs that give most away.

    Sun et al. (CVPR 2021, arXiv 2012.06043). The inputs r of the defended fully connected layer, in
    the received network, are ranked by ‖r_i‖ / ‖∂r_i/∂X‖, as in the authors' code, and the layer's
    weight update is zero in the columns of the largest. Of several photos the quotients are added
    up (their code adds up the inverses, which are infinite where a photo leaves a unit silent).

    Guarantee: none, it is a heuristic: the paper's bound is on one linear layer. The other layers'
    update travels as it is, and the choice shows as columns of zeros. Attacks that leave the
    defended layer out of their objective undo it (Balunović et al., ICLR 2022, arXiv 2111.04706;
    recalled).

    Args:
        layer: Module name of the layer, such as "embedding". "": the embedding, or the head of a
            network without; of networks of other makes, the first whose weight is a matrix.
        pruned: Share of the layer's inputs; in [0, 1).
        probes: Random directions from which each ‖∂r_i/∂X‖ is estimated: a forward pass or two
            each. Where a client has several photos they share them, with four each at least. 0
            computes the derivative itself, a backward pass an input.
    """

    layer: str = ""
    pruned: float = 0.6
    probes: int = 64

    def __post_init__(self) -> None:
        require(0 <= self.pruned < 1, "pruned must lie in [0, 1)", self.pruned)
        require(self.probes >= 0, "probes must be ≥ 0", self.probes)

    def __call__(self, step: ClientStep) -> ClientStep:
        """Prune the layer in what the step shares."""

        def guarded(task: ClientTask) -> ClientReturn:
            reply = step(task)
            model = received_network(task, reply)
            name = f"{defended_layer(model, self.layer)}.weight"
            updates = [s.tensors for s in reply.shared if isinstance(s, Update)]
            if not self.pruned or not any(name in tensors for tensors in updates):
                return reply  # the layer stays on the device
            mask = self.kept(model, all_photos(task), task.generator)
            return on_sending(lambda _: reply, (keep_inputs(name, mask),))(task)

        return guarded

    def kept(self, model: nn.Module, images: Tensor, generator: torch.Generator) -> Tensor:
        """Which inputs of the layer are left in the update, `[D]` bool.

        The model is in evaluation mode; refused where its layer does not get one row a photo.
        """
        represent = input_of(model, defended_layer(model, self.layer))
        scores = torch.stack(
            [
                leakage(represent, part, self.probes, generator)
                for part in torch.split(images, CHUNK)
            ]
        ).sum(0)
        return self._without_largest(scores)

    def replay(self, count: int) -> Replayed:
        """The same share of columns on an attacker's gradients, drawn: the update shows which."""
        return Replayed(mean=(self._hide_any,))

    def _hide_any(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        matrices = [name.removesuffix(".weight") for name, v in batch.items() if v.dim() == 3]
        name = f"{self.layer or usual(matrices)}.weight"
        if name not in batch:  # the layer stays on the device
            return dict(batch)
        scores = torch.rand(batch[name].shape[2], generator=generator)
        return keep_inputs(name, self._without_largest(scores))(batch, generator)

    def _without_largest(self, scores: Tensor) -> Tensor:
        mask = torch.ones(len(scores), dtype=torch.bool)
        order = scores.argsort(descending=True, stable=True)
        mask[order[: round(self.pruned * len(scores))]] = False
        return mask

    keeps_claims = False
    facts = public_settings("soteria")


class _ReachedError(Exception):
    """The forward pass got to the layer."""


def defended_layer(model: nn.Module, layer: str = "") -> str:
    """Module name of the defended layer (`Soteria.layer`); refuses one without a matrix."""
    matrices = [
        name
        for name, module in model.named_modules()
        if isinstance(weight := getattr(module, "weight", None), Tensor) and weight.dim() == 2
    ]
    layer = layer or usual(matrices)
    if layer not in matrices:
        raise ConfigError(
            f"soteria: the network has no fully connected layer {layer!r}. Set layer to one of "
            f"{', '.join(matrices) or 'the layers of another network: this one has none'}."
        )
    return layer


def usual(matrices: Sequence[str]) -> str:
    """The layer that is defended where none is named, of those whose weight is a matrix."""
    return next((name for name in ("embedding", "head", *matrices) if name in matrices), "")


def input_of(model: nn.Module, layer: str) -> Callable[[Tensor], Tensor]:
    """Images `[N, C, H, W]` → what enters the layer, `[N, D]`."""

    def represent(images: Tensor) -> Tensor:
        caught: list[Tensor] = []

        def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            caught.append(inputs[0])
            raise _ReachedError  # what comes behind the layer is not needed

        handle = model.get_submodule(layer).register_forward_pre_hook(stop)
        try:
            model(images)
        except _ReachedError:
            pass
        finally:
            handle.remove()
        if not caught or caught[0].dim() != 2 or len(caught[0]) != len(images):
            raise ConfigError(
                f"soteria: the layer {layer!r} does not get one row for each photo, so that no "
                "input of it belongs to one. Defend another layer, or use dual_pruning."
            )
        return caught[0]

    return represent


def leakage(
    represent: Callable[[Tensor], Tensor], images: Tensor, probes: int, generator: torch.Generator
) -> Tensor:
    """‖r_i‖ / ‖∂r_i/∂X‖ of each input i, added up over images, `[D]`."""
    if probes:
        # Scores add up over photos, and with them the probes' errors average out.
        probes = max(min(probes, FEWEST), probes // len(images))
        # E (∂r_i/∂X · v)² = ‖∂r_i/∂X‖² for v of independent unit normals.
        directions = torch.randn(probes, *images.shape, generator=generator).to(images)
        with torch.no_grad():
            inputs = represent(images)
            slopes: Tensor = vmap(lambda v: jvp(represent, (images,), (v,))[1], chunk_size=CHUNK)(
                directions
            )
        steep = slopes.square().mean(0).sqrt()
    else:
        inputs, steep = _exact(represent, images)
    return (inputs.abs() / steep.clamp_min(torch.finfo(steep.dtype).tiny)).sum(0)


def _exact(represent: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs r and ‖∂r_i/∂X‖, `[N, D]` each."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        inputs = represent(images)
        units = torch.eye(inputs.shape[1]).to(inputs)
        norms = [
            torch.autograd.grad(
                inputs,
                images,
                part[:, None].expand(-1, len(images), -1),
                retain_graph=True,
                is_grads_batched=True,
            )[0]
            .flatten(2)
            .norm(dim=2)
            for part in torch.split(units, CHUNK)
        ]
    return inputs.detach(), torch.cat(norms).T
