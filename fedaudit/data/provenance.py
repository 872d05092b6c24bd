"""Where a run's numbers come from: software, machine, data."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedaudit.data.face_set import FaceSet

PACKAGES = ("torch", "torchvision", "opacus", "lpips", "scikit-image", "numpy", "scipy")


def facts(faces: FaceSet) -> dict[str, Any]:
    """What the report's provenance section says, taken where the work is done."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count() or 0,
        "versions": {name: version(name) for name in PACKAGES},
        "git_commit": commit(),
        "terms": faces.terms,
        "public": faces.public,
        "hashes": {"faces": hashlib.sha256(faces.images.numpy().tobytes()).hexdigest()},
    }


@cache
def commit() -> str | None:
    """The commit of the checkout that this code runs from; None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(  # constant words, the user's own git  # nosec B603 B607
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
