"""A search that dies while it saves, and goes on from what was kept."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from fedaudit.attacks.search.checkpoint import Checkpoint
from fedaudit.core.reconstruction import Reconstruction


def seeded() -> torch.Generator:
    """The randomness of a search, the same each time."""
    return torch.Generator().manual_seed(5)


def assert_goes_on(attack: Any, seen: Any, whole: Reconstruction, saves: int, folder: Path) -> None:
    """A search that dies after so many saves ends as the one in one piece did, by `seeded`."""
    checkpoint = Checkpoint(folder / "kept.safetensors", every=0)
    save, count = checkpoint.save, iter(range(saves))

    def save_or_die(*what: Any) -> None:
        save(*what)
        if next(count, None) is None:
            raise InterruptedError

    dying = SimpleNamespace(save=save_or_die, load=checkpoint.load, every=0, clear=None)
    with pytest.raises(InterruptedError):
        attack(seen, generator=seeded(), checkpoint=cast("Checkpoint", dying))
    again = attack(seen, generator=seeded(), checkpoint=checkpoint)
    assert torch.equal(again.images, whole.images)
    assert again.objective == whole.objective
    assert again.iterations == whole.iterations
