"""`fedaudit scan`: does a broadcast model look tampered with?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedaudit.cli.ending import GATE, OK
from fedaudit.cli.options import examples
from fedaudit.cli.say import say, say_json
from fedaudit.core.errors import ConfigError
from fedaudit.core.printable import printable

if TYPE_CHECKING:
    from torch import Tensor

    from fedaudit.attacks.malicious.tampering import Trace

SHOWN = 80
"""Characters of a tensor's name that are shown: the file comes from a server one does not trust."""


@click.command(
    epilog=examples(
        "fedaudit scan global_model.safetensors",
        "fedaudit scan round_12.safetensors --reference round_11.safetensors",
        "fedaudit scan round_12.safetensors --json",
        note="Exit codes: 0 nothing found, 1 something suspicious, 2 a file that cannot be read. "
        "Nothing found is no proof: a server that knows these checks can avoid them.",
    )
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="The broadcast before this one: inserted layers and jumps show against it.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def scan(*, model: Path, reference: Path | None, as_json: bool) -> int:
    """Look for traces of malicious-server attacks in a MODEL that a server sent.

    Rows that are multiples of one another, thresholds in order, half-negated rows, filters that
    pass pixels on, a head with one odd class, inserted layers, jumps since the last round.
    """
    from fedaudit.attacks.malicious import tampering as scanner  # noqa: PLC0415 - imports torch

    tensors = _read(model)
    traces = scanner.scan(tensors, None if reference is None else _read(reference))
    if as_json:
        say_json(_report(model, reference, traces))
    else:
        for trace in traces:
            say(f"{trace.check}: {_safe(trace.parameter)}: {trace.sentence}")
        say(_summary(model, len(tensors), traces, reference=reference is not None))
    return GATE if traces else OK


def _read(path: Path) -> "dict[str, Tensor]":
    """Tensors of a safetensors file, which holds no code."""
    from safetensors import SafetensorError  # noqa: PLC0415 - slow
    from safetensors.torch import load_file  # noqa: PLC0415 - imports torch

    name = _safe(str(path))
    advice = "Save the model with safetensors.torch.save_file, which stores tensors and no code."
    if not path.is_file():
        raise ConfigError(f"{name}: no such file. Name a .safetensors file.")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except OSError as error:
        raise ConfigError(
            f"{name} cannot be read: {error.strerror or error}. Correct its permissions."
        ) from error
    # A hostile header may name any type or shape, so that torch fails in its own ways.
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        reason = _safe(" ".join(str(error).split())) or type(error).__name__
        raise ConfigError(f"{name} is no safetensors file: {reason}. {advice}") from error
    if not any(tensor.is_floating_point() and tensor.numel() for tensor in tensors.values()):
        raise ConfigError(f"{name} holds no weights, so there is nothing to scan. {advice}")
    return tensors


def _report(model: Path, reference: Path | None, traces: "tuple[Trace, ...]") -> dict[str, object]:
    return {
        "model": str(model),
        "reference": None if reference is None else str(reference),
        "suspicious": bool(traces),
        "findings": [
            {
                "check": trace.check,
                "parameter": trace.parameter,
                "sentence": trace.sentence,
                "evidence": {key: _number(value) for key, value in trace.evidence.items()},
            }
            for trace in traces
        ],
    }


def _summary(model: Path, tensors: int, traces: "tuple[Trace, ...]", *, reference: bool) -> str:
    where = f"{_safe(model.name)}: {tensors} tensors"
    if traces:
        checks = sorted({trace.check for trace in traces})
        return f"{where}, {len(traces)} suspicious ({', '.join(checks)})"
    hint = "" if reference else " With --reference, inserted layers and jumps are looked for, too."
    return f"{where}, nothing suspicious.{hint}"


def _number(value: float) -> float | str:
    """JSON has no infinity."""
    return value if abs(value) < float("inf") else str(value)


def _safe(text: str) -> str:
    """Text of a stranger, without what a terminal would obey."""
    safe = printable(text)
    return safe if len(safe) <= SHOWN * 2 else f"{safe[:SHOWN]} … {safe[-SHOWN:]}"
