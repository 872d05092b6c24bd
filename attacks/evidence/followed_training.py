"""What enters layers while a client takes several steps: the network at moments in between.

The gradient of a step is made of what its mini-batch sends to the layers of the network as it was
by then: at weights that earlier steps moved, behind batch norm that saw that mini-batch alone. The
weights lie near the line to those that were shared, at places that momentum says; which photos
shared a mini-batch the update says once they are nearly known (`mini_batches`). Until then they are
read all together, in the middle of the way. Of two epochs over sixteen photos of p01 and p02,
mini-batches of eight, the true ones miss the surest of what the update says of a ResNet-18's third
stage by 0.04 to 0.07 as they enter the network that was broadcast, and by 1e-8 as they entered it
(`benchmarks/subspace.py --only "two epochs" --misfits` prints what they miss midway).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.training.replay import replay
from fedaudit.attacks.training.schedule import fixed_order, steady_pace
from fedaudit.attacks.training.trained_parameters import is_still
from fedaudit.core.training import LocalTraining
from fedaudit.models.module_copy import copy_detached

MOST = 3
"""Epochs that are told apart: each adds a pass to every step of a search."""


@dataclass(frozen=True)
class FollowedTraining:
    """Several steps of SGD whose settings and both ends are known.

    Attributes:
        model: The network that was broadcast, in the client's mode.
        training: The client's settings.
        before: What was broadcast, by name.
        delta: Local weights − global weights, by name.
    """

    model: nn.Module
    training: LocalTraining
    before: Mapping[str, Tensor]
    delta: Mapping[str, Tensor]

    def order(self, count: int) -> list[list[int]]:
        """The mini-batches of `count` images as they would be if no epoch were shuffled."""
        return fixed_order(count, self.training)

    def epochs(self, count: int) -> list[range]:
        """The steps of each epoch over `count` images; the last may be cut short."""
        size = -(-count // min(self.training.batch_size, count))
        steps = self.training.steps
        return [range(first, min(first + size, steps)) for first in range(0, steps, size)]

    def is_told_apart(self, count: int) -> bool:
        """Whether all epochs are whole, and few enough that each is looked at."""
        epochs = self.epochs(count)
        return len(epochs) <= MOST and len(epochs[-1]) == len(epochs[0])

    def midway(self, model: nn.Module) -> nn.Module:
        """The network in the middle of training, by what each step contributes.

        What enters its layers is nearer to what entered them at each step than what enters those
        of the network that was broadcast, to first order in the distance.
        """
        center = steady_pace(self.training).center(range(self.training.steps))
        return _moved(model, self._between(center))

    def at(
        self,
        reader: InputReader,
        weights: Sequence[Mapping[str, Tensor]],
        order: Sequence[Sequence[int]],
    ) -> InputReader:
        """Reads what mini-batches send to the network at weights of their own.

        Args:
            reader: Of the images' number and size.
            weights: What was added to the broadcast ones, by name, of each moment.
            order: The images that each moment saw together.
        """
        moments = []
        for change, which in zip(weights, order, strict=True):
            model = _moved(self.model, change)
            moments.append((InputReader(model, reader.shape, reader.count), tuple(which)))
        return InputReader(self.model, reader.shape, reader.count, tuple(moments))

    def on_the_line(self) -> list[dict[str, Tensor]]:
        """What was added to the weights as each step begins, at a steady pace."""
        return [self._between(place) for place in steady_pace(self.training).places]

    def replayed(
        self, images: Tensor, labels: Tensor, order: Sequence[Sequence[int]]
    ) -> list[dict[str, Tensor]]:
        """What was added to the weights as each step begins, by training on images.

        What such training leaves open of the known end is put on the straight line to it.

        Args:
            images: `[N, C, H, W]` in [0, 1].
            labels: `[N]`.
            order: The images of each step.

        Returns:
            By name, for each step; `on_the_line` where such training diverges.
        """
        named = dict(self.model.named_parameters())
        still = {name for name in named if is_still(name, self.before, self.delta)}
        ends: list[dict[str, Tensor]] = []
        replay(
            self.model,
            self.before,
            images,
            labels,
            self.training,
            order=order,
            create_graph=False,
            names=[name for name in named if name not in still],
            still=still,
            visit=lambda delta: ends.append({n: d.detach().clone() for n, d in delta.items()}),
        )
        line = self.on_the_line()
        if not all(bool(value.isfinite().all()) for value in ends[-1].values()):
            return line
        places, known = steady_pace(self.training).places, ends[-1]
        for end, on_line, place in zip(ends, line[1:], places[1:], strict=False):
            for name in end.keys() & on_line.keys():
                on_line[name] = end[name] + place * (self.delta[name].to(end[name]) - known[name])
        return line

    def _between(self, place: float) -> dict[str, Tensor]:
        """What was added at a fraction of the way."""
        return {name: place * value for name, value in self.delta.items()}


def _moved(model: nn.Module, change: Mapping[str, Tensor]) -> nn.Module:
    """A copy whose parameters are changed by so much."""
    moved = copy_detached(model)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if name in change:
                parameter.add_(change[name].to(parameter))
    return moved
