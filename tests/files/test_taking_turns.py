import threading
import time
from pathlib import Path

import pytest
import torch

from fedaudit.files.cache import load_or_learn
from fedaudit.files.taking_turns import in_turn


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDAUDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_two_need_at_once_is_learned_once() -> None:
    learned = []
    found = []

    def learn() -> dict[str, torch.Tensor]:
        learned.append(1)
        time.sleep(0.3)
        return {"it": torch.ones(2)}

    def need() -> None:
        found.append(load_or_learn("key", learn, None, what="a test", valid=("it",)))

    both = [threading.Thread(target=need) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(learned) == 1
    assert [entry["it"].tolist() for entry in found] == [[1, 1], [1, 1]]


def test_who_waits_long_goes_on_without_a_turn() -> None:
    with in_turn("it"):
        start = time.monotonic()
        with in_turn("it", wait=0.2):
            assert 0.1 < time.monotonic() - start < 5
        with in_turn("another"):  # at once
            pass


def test_a_turn_ends_with_its_block_and_leaves_no_file(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), in_turn("it"):
        raise ZeroDivisionError
    with in_turn("it", wait=0):
        assert len(list((home / "turns").iterdir())) == 1
    assert not list((home / "turns").iterdir())


def test_without_a_place_for_locks_all_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDAUDIT_CACHE", str(tmp_path / "file"))
    with in_turn("it"):
        pass
