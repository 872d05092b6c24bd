"""The dummy update of several local steps, in the layout and scale of what the client shared."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor, nn

from fedaudit.attacks.training.replay import Course, replay
from fedaudit.attacks.training.schedule import Order, Pace, fixed_order, scale_of, steady_pace
from fedaudit.attacks.training.trained_parameters import is_still
from fedaudit.core.choices import check_choices
from fedaudit.core.errors import AttackError, KnowledgeError
from fedaudit.core.observation import LocalTraining, Observation
from fedaudit.core.shared import Update

Mode = Literal["replay", "path", "start"]


@dataclass(frozen=True, kw_only=True)
class DummyUpdate:
    """What dummy images would have made a client share.

    `gradients` compares with `target`, parameter by parameter, in the scale of a mean gradient: any
    distance between gradients applies. `training` says how the client trained; a shared gradient is
    one plain step.

    Args:
        model: In the client's mode (`fedaudit.models.batch_norm.client_mode`), with the broadcast
            parameters.
        before: What the server broadcast, by name.
        update: What the client shared.
        training: Its local training.
        count: N, images behind the update.
        names: Parameters that are matched, in this order; None matches all that were shared.
        mode: "replay": the steps themselves (Geiping et al., NeurIPS 2020), each where the dummy
            images' own steps lead. "path": each at its place on the straight line between the
            global and the local weights; the server knows both. "start": one gradient, at the
            global weights, as if there had been one step.
        points: "path" only: at how many places at most gradients are taken; steps share them. 0
            gives every step its own, 1 costs what "start" does.
        pace: "path" only: where on the line each step begins. None takes a steady pace, which is
            right for small steps; `simulated_training` finds the client's.
        softening: Of Adam, as in `replay`; 0 is exact and can hardly be searched.
    """

    model: nn.Module
    before: Mapping[str, Tensor]
    update: Update
    training: LocalTraining
    count: int
    names: tuple[str, ...] | None = None
    mode: Mode = "replay"
    points: int = 0
    pace: Pace | None = None
    softening: float = 1.0

    def __post_init__(self) -> None:
        check_choices(self)

    @cached_property
    def matched(self) -> tuple[str, ...]:
        """Names of the parameters that are matched."""
        own = tuple(name for name, _ in self.model.named_parameters())
        names = own if self.names is None else self.names
        common = tuple(name for name in names if name in self.update.tensors)
        if not common:
            raise AttackError("nothing to match: the client shared none of these parameters")
        return common

    @cached_property
    def target(self) -> tuple[Tensor, ...]:
        """What the client shared, in the scale of a mean gradient, a tensor for each `matched`."""
        scale = 1.0 if self.update.kind == "gradient" else -1 / scale_of(self._training)
        return tuple(self.update.tensors[name].detach() * scale for name in self.matched)

    @cached_property
    def still(self) -> frozenset[str]:
        """Names of parameters that the client did not train."""
        names = (name for name, _ in self.model.named_parameters())
        return frozenset(n for n in names if is_still(n, self.before, self.update.tensors))

    @property
    def passes(self) -> int:
        """Single images' forward-backward passes that one call takes."""
        order, course = self._plan
        if course is None:
            return sum(len(which) for which in order)
        # Steps at one place over the same images share a gradient.
        pairs = zip(course.places, order, strict=True)
        return sum(len(which) for _, which in {(place, tuple(which)) for place, which in pairs})

    def gradients(
        self, images: Tensor, labels: Tensor, *, create_graph: bool = True
    ) -> tuple[Tensor, ...]:
        """The dummy update of images `[N, C, H, W]`, a tensor for each of `names`, in `target`'s
        scale.
        """
        if len(images) != self.count:
            raise AttackError(f"the replay takes {self.count} images, not {len(images)}")
        order, course = self._plan
        delta = replay(
            self.model,
            self.before,
            images,
            labels,
            self._training,
            order=order,
            create_graph=create_graph,
            names=self.matched,
            softening=self.softening,
            course=course,
            still=self.still,
        )
        return tuple(delta[name] * (-1 / scale_of(self._training)) for name in self.matched)

    @cached_property
    def _training(self) -> LocalTraining:
        if self.update.kind == "delta":
            return self.training
        # One step whose delta is minus the gradient.
        return LocalTraining(lr=1.0, batch_size=self.count, batch_norm=self.training.batch_norm)

    @cached_property
    def _plan(self) -> tuple[Order, Course | None]:
        """Steps in groups; a group's gradient is of all its images, at its mean place."""
        order: Order = fixed_order(self.count, self._training)
        steps = len(order)
        if self.mode == "replay" or steps == 1:
            return order, None
        pace = self.pace or steady_pace(self._training)
        spans = [range(s, s + 1) for s in range(steps)]
        if self.mode == "start":
            spans = [range(steps)]
        elif self.points and self.points < steps:
            spans = pace.groups(self.points)
        places: list[float] = []
        batches: list[list[int]] = []
        for span in spans:
            place = pace.center(span) if self.mode == "path" else 0.0
            places += [place] * len(span)
            batches += [sorted({i for s in span for i in order[s]})] * len(span)
        return batches, Course(self.update.tensors, places)


def dummy_update_for(
    seen: Observation,
    model: nn.Module,
    training: LocalTraining | None = None,
    *,
    mode: Mode = "replay",
) -> DummyUpdate:
    """The `DummyUpdate` of an observation, with the model in the client's mode.

    `training` stands in for what the threat model grants, as guessed by `guess_training`.

    Raises:
        KnowledgeError: Neither granted nor guessed how the client trained, or how many images.
        AttackError: No model update among what was shared.
    """
    if seen.update is None:
        raise AttackError("nothing to match: the client shared no model update")
    training = training or seen.training
    if training is None and seen.update.kind == "gradient":
        training = LocalTraining()
    if training is None or seen.batch_size is None:
        raise KnowledgeError(
            "replaying local training needs its settings and the number of images: use threat "
            'model C or above, grant = ["training"], or have them guessed.'
        )
    return DummyUpdate(
        model=model,
        before=seen.before,
        update=seen.update,
        training=training,
        count=seen.batch_size,
        mode=mode,
    )
