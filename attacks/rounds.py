"""Round-wise optimization: one image of the batch at a time, the others held (Liu et al. 2021).

Without batch norm in training mode the batch gradient is the mean of per-image gradients. So while
one image moves, the sum of the *others'* gradients is a constant: a step of a round costs one
single-image step, and a sweep over a batch of B costs B of them, not B batch steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaudit.attacks.matching import Gradients, Matching, total
from fedaudit.attacks.search import Search

FREE_LR = 0.1
"""Learning rate of the free arriving gradients, which start each stage at unit length."""

Decode = Callable[[Tensor], Tensor]
Prior = Callable[[Tensor, Tensor], Tensor]
"""(variable, images) → penalty added to the match."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one stage moves its variables.

    Args:
        steps: Steps an image gets in all.
        lr: Peak learning rate.
        rounds: Sweeps over the batch; each round gives one image steps/rounds steps. 0 moves all
            images at once (joint search).
        signed, box: As in `Search`.
    """

    steps: int
    lr: float
    rounds: int = 4
    signed: bool = False
    box: tuple[float, float] | None = None


def optimize(
    matching: Matching,
    variables: Sequence[Tensor],
    decode: Decode,
    plan: Plan,
    prior: Prior,
    report: Callable[[float], None] = lambda _: None,
) -> None:
    """Move `variables` (a leaf `[1, …]` an image) toward the evidence, in place.

    One image at a time needs shares that add up; where they do not, all move at once.

    Args:
        matching: The engine.
        variables: One leaf tensor an image, in the order of the batch.
        decode: Variable `[n, …]` → images `[n, C, H, W]`.
        plan: Steps, rounds, rates.
        prior: Penalty on variable and images.
        report: Called with the objective after every step.
    """
    if plan.steps < 1:
        return
    if plan.rounds and len(variables) > 1 and matching.separable:
        _round_wise(matching, variables, decode, plan, prior, report)
    else:
        _jointly(matching, variables, decode, plan, prior, report)


def held(parts: Sequence[Gradients], moving: int) -> Gradients:
    """The sum of all shares but one."""
    return total([part for i, part in enumerate(parts) if i != moving])


def _search(
    matching: Matching, variables: Sequence[Tensor], which: Sequence[int], plan: Plan
) -> Search:
    free = matching.fresh_free(which)
    return Search(
        [*variables, *free],
        [plan.lr] * len(variables) + [FREE_LR] * len(free),
        plan.steps,
        signed=plan.signed,
        box=plan.box,
        boxed=len(variables),
    )


def _jointly(
    matching: Matching,
    variables: Sequence[Tensor],
    decode: Decode,
    plan: Plan,
    prior: Prior,
    report: Callable[[float], None],
) -> None:
    every = range(len(variables))
    search = _search(matching, variables, every, plan)
    for _ in range(plan.steps):
        variable = torch.cat(list(variables))
        images = decode(variable)
        trial, distance = matching.gradients(images, every)
        report(search.step(matching.objective(trial, distance) + prior(variable, images)))
    search.restore()


def _round_wise(
    matching: Matching,
    variables: Sequence[Tensor],
    decode: Decode,
    plan: Plan,
    prior: Prior,
    report: Callable[[float], None],
) -> None:
    count = len(variables)
    searches = [_search(matching, [v], [i], plan) for i, v in enumerate(variables)]
    parts = [_detached(matching.gradients(decode(v), [i])[0]) for i, v in enumerate(variables)]
    for number in range(plan.rounds):
        # Spread evenly, also where the steps do not divide by the rounds.
        steps = plan.steps * (number + 1) // plan.rounds - plan.steps * number // plan.rounds
        for moving in range(count):
            others = held(parts, moving)
            for _ in range(steps):
                images = decode(variables[moving])
                own, distance = matching.gradients(images, [moving])
                loss = matching.objective(total([others, own]), distance)
                report(searches[moving].step(loss + prior(variables[moving], images)))
                parts[moving] = _detached(own)


def _detached(gradients: Gradients) -> Gradients:
    return tuple(g.detach() for g in gradients)
