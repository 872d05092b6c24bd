"""A recorded run as a study attacks it: its targets, and the protections that its updates show."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter

RECORDED = "capture"
"""Name of the data of studies that `fedaudit audit` makes of a recorded run."""


@dataclass(frozen=True)
class Protection:
    """A protection that recorded updates show, or a fault in one.

    Attributes:
        name: What it is called: "aggregate", "clipping", "noise", "sparsity", "quantization",
            "missing layers", "frozen layers", "buffers in clear", "counters in the clipping norm",
            "inconsistent sensitivity", "less noise than claimed", "noise that repeats",
            "encrypted or masked", "a privacy claim that does not hold".
        fault: Whether it is a way to get a protection wrong.
        evidence: What was seen, with numbers.
        round: Where; None where it is about the whole capture.
        clients: How many updates of the round show it.
        value: The number that it comes down to: a norm, a standard deviation, a share, a count.
        names: Of the layers, where it is about some of them.
    """

    name: str
    fault: bool
    evidence: str
    round: int | None = None
    clients: int = 0
    value: float | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecordedTarget:
    """A recorded update that is attacked.

    Attributes:
        scenario: Of the study.
        round: Of the capture.
        file: Name of the message's file.
        client: Who sent it, as text to show.
        sha256: Of the file.
        images: Behind the update; 0 where that is not known.
        truth: Client and folder of each client behind it whose photos are known.
    """

    scenario: str
    round: int
    file: str
    client: str
    sha256: str
    images: int = 0
    truth: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """A capture as a study attacks it: what is decided about it, and what is known of it.

    A study file holds it as the settings of its data; a report needs the capture itself no more.

    Attributes:
        path: Folder of the capture.
        gallery: Folder of the people to look for; "" without one.
        shape: `(C, H, W)` of the clients' images; () where it is not known.
        targets: The updates that are attacked, scenario by scenario.
        positive: Faces on which the auditor's own undefended step is attacked.
        seen: Protections that the updates show.
        framework: Name and version; "" where it is not known.
        training: How clients trained, in words.
        unidentified: People of the originals of whom the gallery has no photo.
        assumed: Settings of local training that nobody stated.
        left_out: Attacks that miss something (`attack`), and what (`missing`).
        anomalies, problems: What is unusual about the capture, and what cannot be used.
        model: The model that the auditor named; "" takes the capture's.
        model_sha256: Of a model file; "" where the model is none.
        rename: Names of the capture and those of the model, by their first parts.
        naming: What was found about names, a sentence each.
    """

    path: str
    gallery: str
    shape: tuple[int, ...]
    targets: tuple[RecordedTarget, ...]
    positive: int = 0
    seen: tuple[Protection, ...] = ()
    framework: str = ""
    training: str = ""
    unidentified: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    left_out: tuple[Mapping[str, str], ...] = ()
    anomalies: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    model: str = ""
    model_sha256: str = ""
    rename: tuple[tuple[str, str], ...] = ()
    naming: tuple[str, ...] = ()

    def targets_of(self, scenario: str) -> tuple[RecordedTarget, ...]:
        """The targets of a scenario, in order."""
        return tuple(target for target in self.targets if target.scenario == scenario)

    def settings(self) -> dict[str, Any]:
        """Settings of a study's data: plain values without nulls, which TOML cannot hold."""
        return {name: _plain(part) for name, part in asdict(self).items()}

    @staticmethod
    def from_settings(settings: Mapping[str, Any]) -> "RecordedRun":
        """The inverse of `settings`; a `ValidationError` for other settings."""
        return _adapter().validate_python(dict(settings))


@cache
def _adapter() -> TypeAdapter[RecordedRun]:
    return TypeAdapter(RecordedRun)


def _plain(value: Any) -> Any:
    """Lists for tuples, and tables without what is None."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items() if part is not None}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
