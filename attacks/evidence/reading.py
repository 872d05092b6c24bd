"""What one client's update says before any search: a mean gradient, and what follows from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.feature_maps.first_fully_connected import FirstFullyConnected
from fedaudit.attacks.evidence.followed_training import FollowedTraining
from fedaudit.attacks.evidence.known_entries import KnownEntries
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.unshared_layers import precedes_private

NON_SMOOTH = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.LeakyReLU, nn.RReLU, nn.Hardtanh, nn.MaxPool2d)
"""Layers whose second derivative is zero or missing."""


@dataclass(frozen=True)
class Reading:
    """What an update says of the images behind it.

    Attributes:
        model: The client's network with the broadcast parameters, in the mode that it trains in;
            what is private is random.
        target: The client's mean gradient by parameter name, as far as it was shared.
        count: Number of images N.
        shape: `(C, H, W)`.
        labels: `[N]`; None where the head was not shared.
        grayscale: The update proves that the channels of every image were equal.
        first_fc: What the first fully connected layer gives away; None where it gives nothing.
        private: Names of the parameters that stay on the device.
        clean: The update is one exact gradient: no noise, no drift over several steps.
        untrained: Names of parameters on which no image left a trace: frozen, or not used.
        unused: What of the update or of local training cannot be used; a sentence each.
        soft: `[N, K]` class probabilities, where a defense gave images such labels.
        every_round: What was sent of each parameter in every round, `[R, …]` by name, newest first,
            where a search is led by all of it; else {}.
        misfit: How far the true images are expected from what layers' inputs span, by weight, after
            several local steps (`simulated_misfit`); else {}.
        followed: Local training of several steps, where the weights in between are nearly known.
        signs: Of most numbers of the gradient little but the sign is left.
        known: Those numbers that a step of Adam left whole (`adam_magnitudes`), or that pruning
            kept of one gradient, by parameter.
        draws: What is random (dropout, stochastic depth) was so when the client trained.
        completed: Names of the weights whose gradient followed from these; {} where none was asked
            for. Spans are then of these alone.
    """

    model: nn.Module
    target: Mapping[str, Tensor]
    count: int
    shape: tuple[int, int, int]
    labels: Tensor | None
    grayscale: bool
    first_fc: FirstFullyConnected | None
    private: frozenset[str] = frozenset()
    clean: bool = False
    soft: Tensor | None = None
    every_round: Mapping[str, Tensor] = field(default_factory=dict)
    untrained: frozenset[str] = frozenset()
    unused: tuple[str, ...] = ()
    misfit: Mapping[str, float] = field(default_factory=dict)
    followed: FollowedTraining | None = None
    signs: bool = False
    known: Mapping[str, KnownEntries] = field(default_factory=dict)
    completed: frozenset[str] = frozenset()
    draws: bool = False

    @property
    def blind(self) -> bool:
        """Whether the client's loss cannot be computed: no labels, or a head that is not known."""
        return self.labels is None or bool(self.private)

    @cached_property
    def reader(self) -> InputReader:
        """Reads what images send to the network's layers, in the middle of training."""
        model = self.model if self.followed is None else self.followed.midway(self.model)
        return InputReader(model, self.shape, self.count, draws=self.draws)

    @property
    def trains_body(self) -> bool:
        """Whether something before the feature map was trained: else all is behind the map."""
        return precedes_private(self.model, frozenset(), self.target, self.shape)

    @property
    def smooth(self) -> bool:
        """Whether all activations are smooth, so that a search may trust second derivatives."""
        return not any(isinstance(module, NON_SMOOTH) for module in self.model.modules())

    @property
    def coupled(self) -> bool:
        """Whether images see each other: batch norm in training mode, several images."""
        return self.count > 1 and any(
            isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
            for module in self.model.modules()
        )

    @property
    def free_shape(self) -> tuple[int, int, int]:
        """`(c, H, W)` of what is unknown of an image: one channel where the images are gray."""
        return (1 if self.grayscale else self.shape[0], *self.shape[1:])

    @property
    def pixels(self) -> int:
        """Unknown numbers of one image."""
        return math.prod(self.free_shape)

    @property
    def like(self) -> Tensor:
        """A tensor on the device and of the type of the update."""
        return next(iter(self.target.values()))

    @property
    def known_labels(self) -> Tensor:
        """The labels `[N]`, -1 where they are not known."""
        return torch.full((self.count,), -1) if self.labels is None else self.labels

    @property
    def classes(self) -> int:
        """K, the number of the network's scores."""
        with torch.no_grad():
            return int(self.model(self.like.new_zeros(2, *self.shape)).shape[1])

    def to(self, dtype: torch.dtype) -> Self:
        """The same in another precision; the model is converted in place."""
        first_fc = self.first_fc
        if first_fc is not None:
            tensors: dict[str, Any] = {f.name: getattr(first_fc, f.name) for f in fields(first_fc)}
            for name, value in tensors.items():
                tensors[name] = value if value is None else value.to(dtype)
            first_fc = replace(first_fc, **tensors)
        return replace(
            self,
            model=self.model.to(dtype),
            target={name: value.to(dtype) for name, value in self.target.items()},
            first_fc=first_fc,
            every_round={name: value.to(dtype) for name, value in self.every_round.items()},
        )
