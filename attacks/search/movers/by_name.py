"""Which mover goes with which name of an optimizer."""

from collections.abc import Callable, Mapping

from fedaudit.attacks.search.map_matching import MapMatching
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.movers.evolution import Evolution
from fedaudit.attacks.search.movers.gauss_newton import GaussNewton
from fedaudit.attacks.search.movers.mover import Mover, Optimizer, Plan, Task
from fedaudit.attacks.search.movers.round_wise import Movement, OneByOne


def descent(task: Task, plan: Plan) -> Mover:
    """Gradient descent: restarts in one pass, or in turn where they cannot share it."""
    whole = Movement(task, plan)
    several = len(task.variables[0]) > 1
    return OneByOne(whole) if several and in_turn(plan.optimizer, task.matching) else whole


MOVERS: Mapping[Optimizer, Callable[[Task, Plan], Mover]] = {
    "adam": descent,
    "signed_adam": descent,
    "lbfgs": descent,
    "cma_es": Evolution,
    "gauss_newton": GaussNewton,
}


def in_turn(optimizer: Optimizer, matching: Matching | MapMatching) -> bool:
    """Whether restarts are searched one after the other: L-BFGS and replays cannot be mapped."""
    return optimizer == "lbfgs" or not matching.mappable


def expected_steps(plan: Plan, matching: Matching) -> int:
    """Steps that a mover will count, if nothing stops it."""
    image_by_image = plan.optimizer == "gauss_newton" or (plan.rounds and matching.separable)
    images = matching.evidence.count if image_by_image else 1
    return plan.steps * images * (matching.restarts if in_turn(plan.optimizer, matching) else 1)
