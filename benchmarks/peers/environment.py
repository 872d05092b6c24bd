"""The peer's own environment: made once in fedaudit's cache folder, reuses torch from this one.

python benchmarks/peers/environment.py     # make it, print its interpreter
"""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from fedaudit.files.asset_store import cache_dir

PEER = "breaching==0.1.2"
NEEDS = ("hydra-core==1.3.2", "omegaconf==2.3.0", "antlr4-python3-runtime==4.9.3", "PyYAML>=6")
"""What it imports beyond torch, torchvision, scipy and lpips, which this environment has."""


def peer_python() -> Path:
    """The interpreter of the peer's environment, made on first use."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder: Path = cache_dir() / "peers" / f"{PEER.replace('==', '-')}-py{version}"
    python, ready = folder / "bin" / "python", folder / "ready"
    here = sysconfig.get_paths()["purelib"]
    if ready.exists() and ready.read_text() == here:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, PEER, *NEEDS], check=True)
    places = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    # Torch is large; the peer's environment reads it, and what else both need, from this one.
    reused = f"import site; site.addsitedir({here!r})\n"  # with the folders that it names itself
    (Path(places["purelib"]) / "reused.pth").write_text(reused)
    subprocess.run([str(python), "-W", "ignore", "-c", "import breaching"], check=True)
    ready.write_text(here)
    return python


if __name__ == "__main__":
    print(peer_python())
