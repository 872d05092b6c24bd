"""What movers ask of whatever compares dummy images with the evidence."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from fedaudit.attacks.adaptive.per_example import Gradients


class Comparison(Protocol):
    """What a mover needs of a comparison of dummy images with the evidence, whichever it is.

    Attributes:
        evaluations: How many images it was asked for.
    """

    evaluations: int

    @property
    def free(self) -> tuple[Tensor, ...]:
        """What is searched beside the images: a leaf `[R, …]` an image, or ()."""
        ...

    @property
    def fixed(self) -> tuple[Tensor, ...]:
        """Surrogates for local layers that the comparison holds fixed, `[R, …]` each."""
        ...

    @property
    def separable(self) -> bool:
        """Whether the comparison of a batch is made of shares of its images."""
        ...

    @property
    def mappable(self) -> bool:
        """Whether restarts can share a pass (`vmap`)."""
        ...

    def gradients(
        self,
        images: Tensor,
        which: Sequence[int],
        free: Sequence[Tensor] | None = None,
        *,
        functional: bool = False,
        differentiable: bool = True,
        part: int | None = None,
    ) -> tuple[Gradients, Tensor]:
        """The dummy gradient of `images` `[n, C, H, W]` in the places `which`, and a distance.

        Args:
            images: In [0, 1].
            which: Their places in the batch.
            free: From `free_rows`.
            functional: Through `torch.func`, which can be mapped over restarts.
            differentiable: Build the graph of the gradient, for a search by derivatives.
            part: In which step of a turn of Adam, from 0, of a comparison whose steps go down parts
                of it one after the other; the first of a turn, and None, see all of it.
        """
        ...

    def objective(self, dummy: Gradients, feature_distance: Tensor) -> Tensor:
        """How far both are from explaining the update; 0 explains everything."""
        ...


def free_rows(comparison: Comparison, which: Sequence[int], restart: int) -> list[Tensor]:
    """The free variables of images `which`, then what stands in for local layers."""
    free = [comparison.free[i][restart] for i in which] if comparison.free else []
    return [*free, *(value[restart] for value in comparison.fixed)]
