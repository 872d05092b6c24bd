"""The settings of a client's local training."""

from dataclasses import dataclass
from typing import Literal

Optimizer = Literal["sgd", "adam", "adamw"]
BatchNormMode = Literal["train", "eval"]
Augmentation = Literal["flip", "crop", "jitter"]


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains before it shares.

    Attributes:
        lr: Learning rate.
        steps: Local optimizer steps; 1 with `kind="gradient"` is FedSGD. Where the client has more
            images than a step takes, they are shuffled anew in every epoch.
        batch_size: Images a step; the last step of an epoch takes what is left.
        momentum: Of SGD.
        optimizer: "sgd", "adam" or "adamw" (β = 0.9, 0.999; ε = 1e-8).
        weight_decay: As torch's `weight_decay`: of "adamw" what weights lose beside each step, in
            units of the learning rate (Loshchilov & Hutter, ICLR 2019); else an L2 penalty.
        proximal: μ of FedProx's term μ/2·‖w − w_global‖² (Li et al., MLSys 2020).
        batch_norm: Mode of batch-norm layers while the client trains: "train" couples the batch.
        augmentation: How each photo is changed at random before each step, in this order
            (`federation.augmentation`); () not at all. A network sees what became of the photos.
    """

    lr: float = 0.1
    steps: int = 1
    batch_size: int = 1
    momentum: float = 0.0
    optimizer: Optimizer = "sgd"
    weight_decay: float = 0.0
    proximal: float = 0.0
    batch_norm: BatchNormMode = "train"
    augmentation: tuple[Augmentation, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "augmentation", tuple(self.augmentation))

    @property
    def by_adam(self) -> bool:
        """Whether steps divide each number of the gradient by its own usual size."""
        return self.optimizer in {"adam", "adamw"}

    @property
    def penalty(self) -> float:
        """Weight of the L2 penalty in the slopes that the optimizer gets."""
        return 0.0 if self.optimizer == "adamw" else self.weight_decay

    @property
    def decoupled_decay(self) -> float:
        """What weights lose beside each step, in units of the learning rate."""
        return self.weight_decay if self.optimizer == "adamw" else 0.0
