"""The peers' own environments: made once in fedaudit's cache folder, reuse torch from this one.

python benchmarks/peers/environment.py     # make breaching's, print its interpreter
"""

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

from fedaudit.files.asset_store import cache_dir

BREACHING = "breaching==0.1.2"
NEEDS = ("hydra-core==1.3.2", "omegaconf==2.3.0", "antlr4-python3-runtime==4.9.3", "PyYAML>=6")
"""What it imports beyond torch, torchvision, scipy and lpips, which this environment has."""
LEAKPRO_NEEDS = (
    *("optuna", "colorlog", "alembic", "mako", "sqlalchemy", "greenlet", "tqdm", "dotmap"),
    *("pytorch-ignite", "torchmetrics", "lightning-utilities", "pandas", "python-dateutil", "six"),
    *("scikit-learn", "joblib", "threadpoolctl", "seaborn", "matplotlib", "contourpy", "cycler"),
    *("fonttools", "kiwisolver", "pillow", "pyparsing", "numba", "llvmlite"),
)
"""What its inversion of gradients imports besides, by way of its other attacks."""


def peer_python() -> Path:
    """The interpreter of breaching's environment, made on first use."""
    return _python(BREACHING.replace("==", "-"), (BREACHING, *NEEDS), "import breaching")


def leakpro_python() -> Path:
    """The interpreter in which a checkout of LeakPro runs, made on first use."""
    return _python("leakpro", LEAKPRO_NEEDS, "import optuna, ignite, torchmetrics, seaborn")


def _python(name: str, packages: Sequence[str], trial: str) -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder: Path = cache_dir() / "peers" / f"{name}-py{version}"
    python, ready = folder / "bin" / "python", folder / "ready"
    here = sysconfig.get_paths()["purelib"]
    made = "\n".join([here, *packages])
    if ready.exists() and ready.read_text() == made:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, *packages], check=True)
    places = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    # Torch is large; the peer's environment reads it, and what else both need, from this one.
    reused = f"import site; site.addsitedir({here!r})\n"  # with the folders that it names itself
    (Path(places["purelib"]) / "reused.pth").write_text(reused)
    subprocess.run([str(python), "-W", "ignore", "-c", trial], check=True)
    ready.write_text(made)
    return python


if __name__ == "__main__":
    print(peer_python())
