"""Local training, replayed inside an objective: what dummy images would have made of the weights.

A client that takes several steps shares the sum of gradients at weights that its own steps moved.
`replay` follows them exactly; with a `Course` it follows the straight line between the two known
ends instead, which costs less and can be searched from further away.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedaudit.attacks.training.schedule import Order, step_factors
from fedaudit.core.errors import AttackError
from fedaudit.core.observation import LocalTraining
from fedaudit.models.batch_norm import copy_buffers
from fedaudit.models.facenet import criterion_of
from fedaudit.models.functional import functional_call

Named = dict[str, Tensor]

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass(frozen=True)
class Course:
    """Where the weights are taken to be at each step, in place of where a replay leads.

    Attributes:
        delta: Local weights − global weights, by name; what is absent does not move.
        places: One fraction of `delta` a step, in [0, 1].
    """

    delta: Mapping[str, Tensor]
    places: Sequence[float]


def replay(
    model: nn.Module,
    before: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor,
    training: LocalTraining,
    *,
    order: Order,
    create_graph: bool = True,
    names: Sequence[str] | None = None,
    softening: float = 0.0,
    course: Course | None = None,
    visit: Callable[[Named], None] | None = None,
    still: Collection[str] = (),
) -> Named:
    """The weight delta of a client that trains on `images`, by name and differentiable in them.

    Equal to the client's own to float precision where images, labels and order are (Geiping et al.,
    NeurIPS 2020, section 6, for plain SGD; here with momentum, weight decay, Adam and FedProx).
    Pure: neither the model's parameters nor its buffers are touched.

    Args:
        model: Architecture, in the mode that the client trains in (`client_mode`); its own
            parameters and buffers stand in for what `before` does not have.
        before: Global parameters by name.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]` int64.
        training: The client's settings.
        order: For each step the indices of its images.
        create_graph: Keep what the derivative by `images` needs.
        names: The parameters whose delta is wanted, all if None; only they are computed at the end.
        softening: Root mean squares of √v that Adam's ε grows by: √v + ε in its first step is the
            sign of the gradient, which has no derivative.
        course: Follow this instead of the replayed weights.
        visit: Called after each replayed step with the delta so far.
        still: Names of parameters that the client did not train.

    Raises:
        AttackError: `order` has another number of steps than `training`.
    """
    if len(order) != training.steps or (course and len(course.places) != training.steps):
        raise AttackError(
            f"the replay has {len(order)} mini-batches for {training.steps} steps: build the order "
            "with fixed_order(count, training)."
        )
    parameters = dict(model.named_parameters())
    start = {n: before.get(n, p).detach() for n, p in parameters.items()}
    buffers = copy_buffers(model)
    for name in buffers:
        buffers[name] = before.get(name, buffers[name]).detach().clone()
    outputs = list(parameters if names is None else names)
    criterion = criterion_of(model)

    def slope(weights: Named, which: Sequence[int], among: Sequence[str]) -> Named:
        index = torch.as_tensor(which, device=images.device)
        scores = functional_call(model, {**weights, **buffers}, (images[index],))
        loss = criterion(scores, labels[index])
        slopes = torch.autograd.grad(
            loss, [weights[n] for n in among], create_graph=create_graph, materialize_grads=True
        )
        return dict(zip(among, slopes, strict=True))

    if course is not None:
        return _follow(course, start, outputs, training, order, slope, softening)
    rule = _Rule(training, start, softening)
    weights = {n: value.clone().requires_grad_(n not in still) for n, value in start.items()}
    delta: Named = {}
    for number, which in enumerate(order):
        last = number == len(order) - 1
        among = outputs if last else [n for n in weights if n not in still]
        change = rule.step(rule.pulled(slope(weights, which, among), weights), weights)
        # The last step may change some parameters only; the others' way is of no use then.
        delta = _sum(delta, change)
        if visit:
            visit(delta)
        if not last:
            now = {n: start[n] + d for n, d in delta.items()}
            if not create_graph:
                now = {n: w.detach().requires_grad_() for n, w in now.items()}
            weights |= now
    return {n: delta[n] if create_graph else delta[n].detach() for n in outputs}


def _follow(
    course: Course,
    start: Named,
    outputs: list[str],
    training: LocalTraining,
    order: Order,
    slope: Callable[[Named, Sequence[int], Sequence[str]], Named],
    softening: float,
) -> Named:
    """The delta with gradients taken at known weights; steps are no longer chained."""
    rule = _Rule(training, start, softening)
    keys = [(place, tuple(which)) for place, which in zip(course.places, order, strict=True)]
    slopes: dict[tuple[float, tuple[int, ...]], Named] = {}
    met: dict[float, Named] = {}
    for place, which in dict.fromkeys(keys):
        weights = {
            n: w + place * course.delta[n] if n in course.delta else w for n, w in start.items()
        }
        for n in outputs:
            weights[n] = weights[n].detach().clone().requires_grad_()
        slopes[place, which] = rule.pulled(slope(weights, which, outputs), weights)
        met[place] = weights
    delta: Named = {}
    if training.optimizer == "sgd":  # linear: each slope's steps are taken at once
        factors = dict.fromkeys(slopes, 0.0)
        for key, factor in zip(keys, step_factors(training), strict=True):
            factors[key] += factor
        for key, factor in factors.items():
            delta = _sum(delta, {n: -factor * value for n, value in slopes[key].items()})
        return delta
    for key in keys:
        delta = _sum(delta, rule.step(slopes[key], met[key[0]]))
    return delta


def _sum(one: Named, two: Named) -> Named:
    return {n: one[n] + value if n in one else value for n, value in two.items()}


class _Rule:
    """One optimizer's arithmetic, differentiable; the order of operations is torch's."""

    def __init__(self, training: LocalTraining, start: Named, softening: float) -> None:
        self.training, self.start, self.softening = training, start, softening
        self.count = 0
        self.first: Named = {}
        self.second: Named = {}

    def pulled(self, slopes: Named, weights: Named) -> Named:
        """Slopes of the whole objective: FedProx's proximal term and weight decay added."""
        training, result = self.training, dict(slopes)
        for name, slope in slopes.items():
            if training.proximal:
                pull = training.proximal * (weights[name] - self.start[name])
                result[name] = slope + pull
            if training.penalty:
                result[name] = result[name] + training.penalty * weights[name]
        return result

    def step(self, slopes: Named, weights: Named) -> Named:
        """The change that each parameter of `slopes` makes."""
        self.count += 1
        move = self._adam if self.training.by_adam else self._sgd
        changes = {name: move(name, slope) for name, slope in slopes.items()}
        if decay := self.training.lr * self.training.decoupled_decay:
            changes = {name: change - decay * weights[name] for name, change in changes.items()}
        return changes

    def _sgd(self, name: str, slope: Tensor) -> Tensor:
        if self.training.momentum and name in self.first:
            slope = self.training.momentum * self.first[name] + slope
        self.first[name] = slope
        return -self.training.lr * slope

    def _adam(self, name: str, slope: Tensor) -> Tensor:
        one, two = BETAS
        first = self.first.get(name, torch.zeros_like(slope))
        second = self.second.get(name, torch.zeros_like(slope))
        self.first[name] = first = one * first + (1 - one) * slope
        self.second[name] = second = two * second + (1 - two) * slope.square()
        # √0 has no derivative, and parameters that no image reaches have v = 0.
        tiny = torch.finfo(slope.dtype).tiny
        size = (second / (1 - two**self.count) + tiny).sqrt()
        epsilon = EPSILON + self.softening * size.detach().square().mean().sqrt()
        return -self.training.lr / (1 - one**self.count) * first / (size + epsilon)
