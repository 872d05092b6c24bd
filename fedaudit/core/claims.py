"""Privacy guarantees as they are claimed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """A differential-privacy guarantee as its accountant states it.

    Attributes:
        epsilon: ε.
        delta: δ.
        unit: What is protected ("one image", "one class center").
        mechanism: What gives it, with its settings.
        accountant: Who computed ε.
    """

    epsilon: float
    delta: float
    unit: str
    mechanism: str
    accountant: str
