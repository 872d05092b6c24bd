"""The process that reads strangers' files: a question a line, answered by a line and a file."""

import gc
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fedaudit.captures.format.readers.formats import read_here
from fedaudit.captures.format.readers.limits import Limits
from fedaudit.core.errors import CaptureError

try:
    import resource
except ImportError:  # Windows: time is limited all the same
    resource = None  # type: ignore[assignment]

_BASE = 1 << 30
_COPIES = 6
"""Of what a file holds: as it is unpacked, converted, and written for whoever asks."""
_ZIPPED = (".npz", ".pt", ".pth")


def serve() -> None:
    """Answer questions on standard input until it ends."""
    torch.set_num_threads(1)
    # What a library prints must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    gc.freeze()  # what is loaded by now is never looked through again
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)
        gc.collect()


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    path, limits = Path(question["path"]), Limits(**question["limits"])
    try:
        _limit_memory(path, limits)
        tensors = read_here(path, limits)
        # By number, for a name may be one that safetensors keeps for itself.
        save_file({str(n): t for n, t in enumerate(_apart(tensors))}, question["target"])
        return {"names": list(tensors)}
    except CaptureError as error:
        return {"reason": error.reason, "key": error.key}
    except MemoryError:
        return {"reason": "there is not enough memory for its tensors"}
    except Exception as error:
        return {"reason": f"its tensors cannot be handed on ({type(error).__name__})"}


def _apart(tensors: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """The tensors, each alone in its storage, as safetensors wants them."""
    seen = set()
    for tensor in tensors.values():
        storage = tensor.untyped_storage()
        alone = storage.nbytes() == tensor.numel() * tensor.element_size()
        if alone and tensor.is_contiguous() and storage.data_ptr() not in seen:
            yield tensor
        else:
            yield tensor.clone(memory_format=torch.contiguous_format)
        seen.add(storage.data_ptr())


def _limit_memory(path: Path, limits: Limits) -> None:
    """Let this process take so much more than it has now."""
    if resource is None or not Path("/proc/self/statm").exists():
        return
    size = path.stat().st_size
    if path.suffix.lower() in _ZIPPED:
        size = int(min(limits.total_bytes, size * limits.ratio))
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    bound = now + _BASE + _COPIES * size
    if hard == resource.RLIM_INFINITY or bound < hard:
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
