"""Auxiliary faces' gradients through the client's model and defense, made short.

Each parameter's part is brought to length 1 and hashed (Weinberger et al., ICML 2009): entries are
added up in buckets under random signs, which keeps inner products. The layer that the feature map
enters is not: its right singular vector is the map, whatever the label, or an image of it where
only signs or the largest entries were sent.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from fedaudit.core.errors import AttackError
from fedaudit.defenses.gradient_transforms import Batch, Replayed
from fedaudit.models.facenet import FaceNet, criterion_of
from fedaudit.models.functional import functional_call
from fedaudit.models.soft_labels import loss_on

CHUNK = 48
"""Gradients side by side: some hundred MB for a small face network."""


class Sketch:
    """Gradients by name, `[M, …]` each → `[M, front + width]`.

    Args:
        shapes: By parameter name.
        width: Numbers that are kept in all, about.
        seed: Of buckets and signs.
        entry: Name of the weights that the feature map enters; "" where they were not shared.

    Attributes:
        front: How many numbers at the front are the first fully connected layer's singular vector.
    """

    def __init__(
        self, shapes: Mapping[str, torch.Size], width: int, seed: int, entry: str = ""
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._entry = entry
        self.front = shapes[entry][1] if entry else 0
        shapes = {name: shape for name, shape in shapes.items() if name != entry}
        share = _even_share([shape.numel() for shape in shapes.values()], width)
        self._plans: dict[str, tuple[int, Tensor, Tensor] | None] = {}
        for name, shape in shapes.items():
            count = shape.numel()
            if count <= share:
                self._plans[name] = None
                continue
            buckets = torch.randint(share, (count,), generator=generator)
            signs = torch.randint(2, (count,), generator=generator).float() * 2 - 1
            self._plans[name] = (share, buckets, signs)

    def __call__(self, batch: Batch) -> Tensor:
        """See the class; each parameter's part has a root mean square of about 1."""
        parts = [leading(batch[self._entry])] if self._entry else []
        for name, plan in self._plans.items():
            flat = batch[name].flatten(1)
            flat = flat / (flat.norm(dim=1, keepdim=True) + 1e-20)
            if plan is not None:
                width, buckets, signs = plan
                flat = flat.new_zeros(len(flat), width).index_add_(
                    1, buckets.to(flat.device), flat * signs.to(flat)
                )
            parts.append(flat * flat.shape[1] ** 0.5)
        return torch.cat(parts, 1)


def first_fc_name(model: nn.Module) -> str | None:
    """Name of the weights that a `FaceNet`'s feature map enters, where the layer is linear."""
    if not isinstance(model, FaceNet):
        return None
    return model.first_fc_name if isinstance(model.first_fc_layer, nn.Linear) else None


def leading(matrices: Tensor, steps: int = 8) -> Tensor:
    """The first right singular vector of each of `[M, D, F]`, at a root mean square of 1.

    By power iteration. Its sign is that of its sum: maps after (P)ReLU are positive on the whole.
    """
    # The row of largest norm is a start with a share of the wanted vector, and no randomness.
    norms = matrices.norm(dim=2)
    rows = matrices[torch.arange(len(matrices)), norms.argmax(1)]
    for _ in range(steps):
        rows = rows / (rows.norm(dim=1, keepdim=True) + 1e-20)
        rows = torch.einsum("mdf,md->mf", matrices, torch.einsum("mdf,mf->md", matrices, rows))
    rows = rows / (rows.square().mean(1, keepdim=True).sqrt() + 1e-20)
    sign: Tensor = rows.sum(1, keepdim=True).sign()
    return rows * sign


def _even_share(counts: list[int], width: int) -> int:
    """The number of buckets for each long parameter, so that all together fill `width`."""
    left, rest = width, sorted(counts)
    while rest and rest[0] * len(rest) <= left:
        left -= rest.pop(0)
    return max(1, left // len(rest)) if rest else max(counts)


def image_gradients(
    model: nn.Module, names: tuple[str, ...], images: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """The gradient of each image's loss, `[M, …]` by parameter name.

    Raises:
        AttackError: The network couples the images of a batch.
    """
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules()):
        raise AttackError(
            "learned inversion needs gradients of single images, and batch norm in training mode "
            "mixes them: use a network with group norm, or an attack that searches"
        )
    criterion = criterion_of(model)
    every = dict(model.named_parameters())
    rest = {name: p.detach() for name, p in every.items() if name not in names}
    rest |= {name: b.detach() for name, b in model.named_buffers()}

    def loss(parameters: Mapping[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        scores = functional_call(model, {**rest, **parameters}, (image[None],))
        return loss_on(criterion, scores, label[None])

    gradients: dict[str, Tensor] = vmap(grad(loss), in_dims=(None, 0, 0))(
        {name: every[name].detach() for name in names}, images, labels
    )
    return gradients


@dataclass(frozen=True)
class SimulatedClient:
    """The client's step on faces of the attacker's own.

    Attributes:
        model: The network for a chunk's number: what the server never sees is drawn anew each time.
        names: Parameters that are shared.
        classes: K; labels are drawn from all of them.
        count: Images behind an update.
        defense: Replayed on the gradients.
        sketch: Makes them short.
    """

    model: Callable[[int], nn.Module]
    names: tuple[str, ...]
    classes: int
    count: int
    defense: Replayed
    sketch: Sketch

    def updates(self, faces: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Sketches `[m, width]` of defended updates, and the positions `[m, count]` of their faces.

        As many updates as `faces` `[M, C, H, W]`, each face in about `count` of them.
        """
        for number, which in enumerate(torch.arange(len(faces)).split(CHUNK)):  # type: ignore[no-untyped-call]
            labels = torch.randint(self.classes, (len(which),), generator=generator)
            images = faces[which]
            for change in self.defense.images:
                images, labels = change(images, labels, generator)
            batch = image_gradients(
                self.model(number), self.names, images, labels.to(images.device)
            )
            copies = len(images) // len(which)
            if copies > 1:  # of one photo, side by side
                batch = {n: v.view(-1, copies, *v.shape[1:]).mean(1) for n, v in batch.items()}
            for transform in self.defense.each:
                batch = transform(batch, generator)
            mine = which[:, None]
            if self.count > 1:
                mine, batch = self._mix(which, batch, generator)
            for transform in self.defense.mean:
                batch = transform(batch, generator)
            yield self.sketch(batch), mine

    def _mix(
        self, which: Tensor, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Means over random companies of `count` different faces of a chunk."""
        size = len(which)
        groups = torch.stack(
            [torch.randperm(size, generator=generator)[: self.count] for _ in range(size)]
        )
        if groups.shape[1] < self.count:  # the last chunk may be smaller than a batch
            groups = torch.randint(size, (size, self.count), generator=generator)
        weights = torch.zeros(size, size)
        for row, faces in enumerate(groups.tolist()):
            for face in faces:
                weights[row, face] += 1 / self.count
        mean = {
            name: (weights.to(value) @ value.flatten(1)).view_as(value)
            for name, value in batch.items()
        }
        return which[groups], mean
