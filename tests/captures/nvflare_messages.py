"""Messages of NVFlare and the filter in its chain, without a job."""

from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.filter import FilterChainType, FilterContextKey
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.captures.record.nvflare import RecordFilter

TASK, RESULT = FilterChainType.TASK_DATA_CHAIN, FilterChainType.TASK_RESULT_CHAIN


def state(value: float = 1.0) -> dict[str, Any]:
    return {"w": np.full((2, 3), value, np.float32), "b": np.zeros(2, np.float32)}


def message(
    data: dict[str, Any],
    meta: dict[str, Any] | None = None,
    *,
    kind: str = DataKind.WEIGHTS,
    round: int | None = 3,
) -> Shareable:
    shareable = DXO(kind, data, meta).to_shareable()
    if round is not None:
        shareable.set_header("current_round", round)
    return shareable


def context(peer: str | None = "site-1", *, direction: str = FilterKey.IN) -> FLContext:
    found = FLContext()
    found.set_prop(ReservedKey.IDENTITY_NAME, "server", private=False, sticky=False)
    found.set_prop(FLContextKey.FILTER_DIRECTION, direction, private=True, sticky=False)
    if peer is not None:
        theirs = FLContext()
        theirs.set_prop(ReservedKey.IDENTITY_NAME, peer, private=False, sticky=False)
        found.set_peer_context(theirs)
    return found


def chained(chain: str, folder: Path, *args: Any, **kwargs: Any) -> RecordFilter:
    """A filter as NVFlare puts it into a chain."""
    made = RecordFilter(str(folder), *args, **kwargs)
    made.set_prop(FilterContextKey.CHAIN_TYPE, chain)
    return made


def updates(folder: Path, round: int = 3) -> list[Any]:
    capture = StoredCapture(folder)
    assert not capture.problems
    return list(capture.messages(round))
