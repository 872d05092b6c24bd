"""Local layers, which stay on the device: where they begin, and surrogates for them.

`benchmarks/unknown_head.py` measures how well surrogates do, on ORL with three clients.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedaudit.attacks.generators.auxiliary import Auxiliary, vary
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import ModelSpec
from fedaudit.models.batch_norm import evaluating
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet, criterion_of
from fedaudit.models.functional import functional_call

PHOTOS = 8
"""Views of each made-up person."""
STEPS = 200
"""Optimizer steps of learned local layers."""
BATCH = 32
"""Faces a step."""
LR = 3e-3
"""Of Adam."""


def unshared_names(model: nn.Module, before: Mapping[str, Tensor]) -> frozenset[str]:
    """Parameters that the server does not have."""
    return frozenset(name for name, _ in model.named_parameters() if name not in before)


class PublicModule(nn.Module):
    """What a network computes before any local layer: images `[N, C, H, W]` → rows `[N, F]`.

    Args:
        network: Its modules are shared, not copied.
        depth: How many modules of the body come before the first local parameter; None for all,
            followed by the pooling.
    """

    def __init__(self, network: FaceNet, depth: int | None) -> None:
        super().__init__()
        self.network, self.depth = network, depth

    def forward(self, images: Tensor) -> Tensor:
        """Rows `[N, F]`."""
        if self.depth is None:
            return self.network.features(images)
        assert isinstance(self.network.body, nn.Sequential)
        maps: Tensor = self.network.body[: self.depth](images)
        return maps.flatten(1)


def public_depth(model: nn.Module, private: frozenset[str]) -> int | None:
    """How many modules of the body are public; None for all of them, 0 where that is not known."""
    inside = [name for name in private if name.startswith("body.")]
    if not inside:
        return None if isinstance(model, FaceNet) else 0
    if not isinstance(model, FaceNet) or not isinstance(model.body, nn.Sequential):
        return 0
    numbers = {name: k for k, (name, _) in enumerate(model.body.named_children())}
    return min(numbers[name.split(".")[1]] for name in inside)


def guess_local_layers(
    spec: ModelSpec, private: frozenset[str], count: int, seed: int
) -> dict[str, Tensor]:
    """`count` random sets of local layers, as devices draw theirs; `[count, …]` by name."""
    models = [build(spec, seed=(seed + k) % 2**31) for k in range(count)]
    parts = [
        {n: p.detach() for n, p in model.named_parameters() if n in private} for model in models
    ]
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def learn_local_layers(
    model: nn.Module,
    parts: Mapping[str, Tensor],
    shape: tuple[int, int, int],
    *,
    source: str,
    grayscale: bool,
    seed: int,
) -> dict[str, Tensor]:
    """Local layers that tell made-up people apart, on the public module as it was broadcast.

    Each person is one generated face, seen in several views; there are as many as the head has
    classes. What a device's own layers have learned for its people, these have for them. They start
    at `parts`, from `guess_local_layers`; the model is not changed.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    with torch.no_grad():
        people = model(torch.zeros(2, *shape, device=device)).shape[1]
    faces = Auxiliary(source=source, real=False).faces(
        people, (3, max(64, shape[1]), max(64, shape[2])), generator, grayscale=grayscale
    )
    views = vary(faces.repeat_interleave(PHOTOS, 0), generator)[:, : shape[0]]
    views = F.interpolate(views, shape[1:], mode="bilinear", antialias=True).clamp(0, 1)
    labels = torch.arange(people).repeat_interleave(PHOTOS)
    views, labels = views.to(device), labels.to(device)
    constants = {n: p.detach() for n, p in model.named_parameters() if n not in parts}
    layers = [
        _train(model, constants, {n: p[r] for n, p in parts.items()}, views, labels, generator)
        for r in range(len(next(iter(parts.values()))))
    ]
    return {name: torch.stack([one[name] for one in layers]) for name in parts}


def _train(
    model: nn.Module,
    constants: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    views: Tensor,
    labels: Tensor,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    criterion = criterion_of(model)
    part = {name: value.to(views).clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(list(part.values()), lr=LR)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    for _ in range(STEPS):
        rows = torch.randint(len(views), (BATCH,), generator=generator).to(views.device)
        scores = functional_call(model, {**constants, **buffers, **part}, (views[rows],))
        optimizer.zero_grad()
        criterion(scores, labels[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: value.detach() for name, value in part.items()}


def precedes_private(
    model: nn.Module,
    private: frozenset[str],
    shared: Mapping[str, Tensor],
    shape: tuple[int, int, int],
) -> bool:
    """Whether something that was `shared` comes before the local layers."""
    if not isinstance(model, FaceNet):
        return True
    parameters = {n: p for n, p in model.named_parameters() if n in shared}
    return bool(_computing(PublicModule(model, public_depth(model, private)), parameters, shape))


def used_by(
    public: PublicModule, named: Mapping[str, nn.Parameter], shape: tuple[int, int, int]
) -> dict[str, nn.Parameter]:
    """Those parameters that the public module computes with, of which there must be some."""
    parameters_in_use = _computing(public, named, shape)
    if not parameters_in_use:
        raise AttackError(
            "nothing that was shared comes before the part that stays on the device, so the images "
            'cannot be matched without that part: use unknown = "guessed" or "learned"'
        )
    return parameters_in_use


def _computing(
    public: PublicModule, parameters: Mapping[str, nn.Parameter], shape: tuple[int, int, int]
) -> dict[str, nn.Parameter]:
    like = next(iter(parameters.values()))
    images = torch.linspace(0, 1, shape[0] * shape[1] * shape[2]).to(like).view(1, *shape)
    with evaluating(public):
        total = public(images).sum()
    if not total.requires_grad:
        slopes: tuple[Tensor | None, ...] = (None,) * len(parameters)
    else:
        slopes = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return {n: p for (n, p), g in zip(parameters.items(), slopes, strict=True) if g is not None}
