"""One part of a search, as data: what varies, how it moves, what is added to the match."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fedaudit.attacks.search.image_priors import GroupConsistency, ImagePrior, total_variation
from fedaudit.attacks.search.matching import Matching
from fedaudit.attacks.search.movers.by_name import MOVERS, expected_steps
from fedaudit.attacks.search.movers.gradient_descent import Schedule
from fedaudit.attacks.search.movers.mover import Mover, Optimizer, Plan, Task
from fedaudit.attacks.search.variables import Pixels, Varies
from fedaudit.core.choices import check_choices


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a search: what varies, and how it moves.

    Args:
        varies: Pixels, a latent vector, inner feature maps, weights (`attacks.varies`).
        steps: Steps an image.
        lr: Peak learning rate.
        optimizer: "adam", "signed_adam", "lbfgs"; "cma_es", whose `steps` are generations and whose
            `lr` is the first standard deviation; or "gauss_newton", which solves for pixels where
            feature maps are known, and whose `lr` is the first damping.
        schedule: Of the learning rate; a name in `search.SCHEDULES`.
        rounds: Sweeps that move one image at a time (Liu et al. 2021); 0 moves all at once.
        total_variation: Weight of the total variation of the images.
        square_norm: Weight of the mean square of the variable (keeps latents where the generator
            was trained).
        priors: Further scores of images.
        group: Agreement between restarts.
        patience: Stop when this many steps brought nothing; 0 never.
        keep: How many restarts go on to the next stage, best first; None keeps all.
        population: Candidates a generation of CMA-ES; None for its own rule.
        smooth_only: Leave the stage out on networks with non-smooth activations (ReLU,
            max-pooling).
        match: "update", or "maps": the images' known maps alone (`map_matching`); the stage is
            left out where they are not known.
    """

    varies: Varies
    steps: int
    lr: float
    optimizer: Optimizer = "adam"
    schedule: Schedule = "cosine"
    rounds: int = 0
    total_variation: float = 0.0
    square_norm: float = 0.0
    priors: tuple[ImagePrior, ...] = ()
    group: GroupConsistency | None = None
    patience: int = 0
    keep: int | None = None
    population: int | None = None
    smooth_only: bool = False
    match: Literal["update", "maps"] = "update"

    def __post_init__(self) -> None:
        check_choices(self)
        if self.steps < 0 or self.rounds < 0 or self.patience < 0:
            raise ValueError("steps, rounds and patience must be at least 0")
        if self.lr <= 0:
            raise ValueError("lr must be > 0")
        if self.total_variation < 0 or self.square_norm < 0:
            raise ValueError("the weights of priors must be ≥ 0")
        if self.optimizer == "gauss_newton" and not isinstance(self.varies, Pixels):
            raise ValueError("gauss_newton solves for pixels: varies must be Pixels(…)")
        if self.optimizer == "gauss_newton" and self.match == "maps":
            raise ValueError("gauss_newton finds the known maps itself: leave match='maps' out")

    def penalty(self, variable: Tensor, images: Tensor) -> Tensor:
        """What is added to the match."""
        penalty = images.new_zeros(())
        if self.total_variation:
            penalty = penalty + self.total_variation * total_variation(images)
        if self.square_norm:
            penalty = penalty + self.square_norm * variable.square().mean()
        for prior in self.priors:
            penalty = penalty + prior(images)
        return penalty

    def expected_steps(self, matching: Matching) -> int:
        """Steps that its mover will count, if nothing stops it."""
        return expected_steps(self._plan(None, 0), matching)

    def mover(self, task: Task, seed: int) -> Mover:
        """What moves the variables of the task; `seed` as in `Plan`."""
        project: Callable[[Tensor, Tensor], Tensor] | None = getattr(self.varies, "project", None)
        if project is None:
            return MOVERS[self.optimizer](task, self._plan(None, seed))
        # Starts that are not written to: projections measure distances from them.
        starts, bound = [v.detach().clone() for v in task.variables], project
        plan = self._plan(lambda image, value: bound(starts[image], value), seed)
        return MOVERS[self.optimizer](task, plan)

    def _plan(self, project: Callable[[int, Tensor], Tensor] | None, seed: int) -> Plan:
        return Plan(
            steps=self.steps,
            lr=self.lr,
            rounds=self.rounds,
            optimizer=self.optimizer,
            schedule=self.schedule,
            project=project,
            patience=self.patience,
            group=self.group,
            population=self.population,
            seed=seed,
        )


def solving_stages(steps: int, damping: float) -> tuple[Stage, ...]:
    """Gauss–Newton on pixels, to end a search where feature maps are known; () without steps.

    Args:
        steps: At most, an image.
        damping: First damping, relative.
    """
    if not steps:
        return ()
    varies = Pixels(start="previous", clamp=False)
    return (Stage(varies=varies, steps=steps, lr=damping, optimizer="gauss_newton"),)
