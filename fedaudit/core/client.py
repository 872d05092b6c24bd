"""A client's step in a round: what it is asked to do and what it returns. Defenses wrap it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from fedaudit.core.claims import Claim, Gap
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.shared import Shared


@dataclass(frozen=True)
class Loop:
    """What a client's training loop runs on; each part may be wrapped.

    Attributes:
        network: Images to scores.
        optimizer: Steps once a batch.
        loader: Gives (images, labels) batches.
        criterion: Scores and labels to a loss that has `backward` and `detach`.
    """

    network: Any
    optimizer: Any
    loader: Any
    criterion: Callable[[Tensor, Tensor], Any]


Prepare = Callable[[Loop], Loop]


@dataclass(frozen=True)
class ClientTask:
    """What a client is asked to do in a round.

    Attributes:
        model: Network to build.
        before: Global parameters that were received.
        kept: Parameters that stay on this device, from its earlier rounds.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]` int64, or `[N, k]` probabilities of the first k classes.
        training: Optimizer settings; a batch is of images, all `copies` of a photo together.
        share: "gradient" (FedSGD) or "delta" (FedAvg).
        generator: All randomness of the step.
        prepare: Wraps the training loop before it runs; set by defenses such as DP-SGD.
        withheld: Parameter-name prefixes that must not leave the device; set by defenses.
        owned: Number of each of the client's own classes among everybody's, in the order of its
            head; () where all clients share one head.
        unlabelled: `[M, C, H, W]` further photos of the client that train without labels; None
            where the method uses none.
        memory: What the defenses remember on this device from its earlier rounds, by names of
            their own.
        others: `[M, C, H, W]` further photos of the client, which do not train in this round unless
            a defense takes them; None where they have no labels.
        other_labels: `[M]` int64.
        copies: Images that were made of each photo, side by side in `images` and `unlabelled`; they
            train in one step.
    """

    model: ModelSpec
    before: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]
    images: Tensor
    labels: Tensor
    training: LocalTraining
    share: Literal["gradient", "delta"]
    generator: torch.Generator
    prepare: Prepare | None = None
    withheld: tuple[str, ...] = ()
    owned: tuple[int, ...] = ()
    unlabelled: Tensor | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    others: Tensor | None = None
    other_labels: Tensor | None = None
    copies: int = 1


@dataclass(frozen=True)
class ClientReturn:
    """What a client's step ends in: what is sent, and what stays.

    Attributes:
        shared: What is sent.
        kept: What stays on the device, by parameter name.
        loss: Of the last step.
        claims: The guarantees that defenses give, one for each unit.
        of_weights: Kinds of `shared` that are computed of the trained weights and of nothing else,
            so that noise in training covers them.
        unnoised: What was made of the photos beside that, and reaches the server without noise.
        labels: Of all images behind the update, where the client added images to its photos.
        memory: What the defenses remember for the next round.
    """

    shared: tuple[Shared, ...]
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    loss: float = float("nan")
    claims: tuple[Claim, ...] = ()
    of_weights: tuple[str, ...] = ()
    unnoised: tuple[Gap, ...] = ()
    labels: Tensor | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)


ClientStep = Callable[[ClientTask], ClientReturn]
