"""A real run folder for the tests of folders that were tampered with."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sound_run import make_run


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, evidence full; copy it before you change it."""
    return make_run(tmp_path_factory.mktemp("sound"))
