"""What cannot be recorded is a warning, and never an error: training does not depend on it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from fedaudit.core.errors import FedauditError


def warning_of(why: Exception | str) -> str:
    """The warning of what cannot be recorded: training does not depend on its auditor."""
    if isinstance(why, Exception) and not isinstance(why, FedauditError):
        why = f"{type(why).__name__}: {why}"
    return f"fedaudit does not record everything: {why}"


@contextmanager
def failures_as_warnings() -> Iterator[None]:
    """What fails inside is a warning: training goes on."""
    try:
        yield
    except Exception as error:
        warnings.warn(warning_of(error), stacklevel=3)
