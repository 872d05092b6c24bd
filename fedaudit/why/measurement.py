"""One measurement of an explanation: a kind of job that a study's executor runs."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from fedaudit.study.run_folder import MEASUREMENTS

if TYPE_CHECKING:
    from fedaudit.why.subject import Subject

T = TypeVar("T")


@dataclass(frozen=True)
class Measurement(Generic[T]):
    """Something to measure once; its value stands in the run folder, under its key.

    Attributes:
        scenario, seed: Of the explanation that it belongs to.
        name: What is measured, its kind first ("leak/r1/t0/…"): the same name, the same value.
        type: Of the value, as pydantic takes it.
        take: Measures it; picklable.
    """

    scenario: str
    seed: int
    name: str
    type: Any
    take: "Callable[[Subject], T]"
    kind: ClassVar[str] = MEASUREMENTS
    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def key(self) -> str:
        """A safe file name."""
        whole = f"{self.scenario}/s{self.seed}/{self.name}"
        readable = re.sub(r"[^A-Za-z0-9]+", "-", whole)[:64]
        return f"{readable}--{hashlib.sha256(whole.encode()).hexdigest()[:16]}"

    @property
    def group(self) -> str:
        """Measurements of one kind take about equally long."""
        return self.name.partition("/")[0]
