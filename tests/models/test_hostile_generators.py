"""Files of generators that would run something when they are loaded."""

import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from fedaudit.core.errors import UsageError
from fedaudit.models.generator import load_generator

sys.path.insert(0, str(Path(__file__).parent))
from generator_files import Toy, exported


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("name", ["evil.pt", "evil.ts", "evil.pt2"])
def test_pickles_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": _Evil()}, name)
    with pytest.raises(UsageError):
        load_generator(name)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    "record",
    ["data/sample_inputs/model.pt", "data/constants/opaque_obj_0", "data/aotinductor/a.so"],
)
def test_exports_with_pickles_or_compiled_code_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    """A genuine export in which one record was replaced by, or got, something that would run."""
    monkeypatch.chdir(tmp_path)
    exported(Toy(), Path("toy.pt2"))
    torch.save(_Evil(), "evil.bin")
    payload = Path("evil.bin").read_bytes() if record.endswith(".pt") else pickle.dumps(_Evil())
    with zipfile.ZipFile("toy.pt2") as source, zipfile.ZipFile("evil.pt2", "w") as target:
        for name in source.namelist():
            if not name.endswith(record):
                target.writestr(name, source.read(name))
        target.writestr(f"toy/{record}", payload)
    with pytest.raises(UsageError):
        load_generator("evil.pt2")
    assert not Path("executed").exists()
