"""What an attack returns."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Adaptive = Literal["known", "estimated", "no", "none needed"]
SearchedBy = Literal[
    "", "closed form", "spans", "signs", "completed spans", "pruned spans", "maps", "gradients"
]

NOT_RECOVERED = 0.5
"""The pixels that stand for an image of the batch that an attack does not bring back."""


@dataclass(frozen=True)
class Reconstruction:
    """What an attack made of an observation.

    Attributes:
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]` int64; -1 where the attack has none.
        of: "photos" of the batch; or "people": one face a person, who is the class `labels` of the
            client's head (-1: any of its own). Those are scored against `Secret.portraits`.
        objective: What the attack reached of its own objective, lower is better.
        iterations: Optimization steps.
        gradient_evaluations: Single-image forward–backward–backward passes.
        seconds: CPU seconds of the process.
        adaptive: Whether the attack took the defense in use into account: "known", as it was told
            of it; "estimated", by what the update shows of it, where that shows anything that must
            be taken into account; "no", also of an attack that does not say; "none needed", where
            it was told that there is none.
        history: (step, objective) pairs to draw.
        restarts: Independent starts of the search.
        closed_form: The images follow by arithmetic, so that no number of steps would better them.
            The default counts against every clean word, unless the attack shows that it had
            converged (`fedaudit.core.protocols.Halves`).
        searched_by: By what the images were searched for that are returned, of an attack that has
            several ways: a "closed form", what layers' inputs "spans", what "signs", whole
            gradients that follow from some of their numbers ("completed spans") or the kept
            entries of a pruned update ("pruned spans") tell of these spans, known feature "maps"
            beside gradients, or "gradients" alone. That one way works says nothing of another. ""
            of an attack that has one way.
        unused: What of the update, or of how the client trained, it could not use; a sentence each.
    """

    images: Tensor
    labels: Tensor
    of: Literal["photos", "people"] = "photos"
    objective: float = float("nan")
    iterations: int = 0
    gradient_evaluations: int = 0
    seconds: float = 0.0
    adaptive: Adaptive = "no"
    history: tuple[tuple[int, float], ...] = ()
    restarts: int = 1
    closed_form: bool = False
    searched_by: SearchedBy = ""
    unused: tuple[str, ...] = ()
