"""Jobs, apps and scripts that claim differential privacy, as files; none of them may be run."""

import json
from pathlib import Path
from typing import Any

from fedaudit.captures.claims.claim_verdict import ClaimVerdict
from fedaudit.captures.claims.stated_mechanism import RunSize
from fedaudit.study.read_claims import read_claims

FILTERS = "nvflare.app_common.filters"
APP = """
from flwr.clientapp.mod import LocalDpMod, {imports}
DELTA = 1e-5

def client(context):
    config = context.run_config
    return ClientApp(mods=[LocalDpMod({arguments}), {mods}])
"""


def write_job(folder: Path, *filters: tuple[str, dict[str, Any]], version: int = 2) -> Path:
    """A job as NVFlare's recipes export it."""
    config = folder / "faces" / "app" / "config"
    config.mkdir(parents=True)
    chain = [{"path": f"{FILTERS}.{path}", "args": arguments} for path, arguments in filters]
    client = {
        "format_version": version,
        "executors": [],
        "task_result_filters": [{"tasks": ["train"], "filters": chain}],
    }
    workflow = {"path": "nvflare.app_common.workflows.fedavg.FedAvg"}
    server = {
        "format_version": 2,
        "workflows": [{**workflow, "args": {"num_clients": 4, "num_rounds": 3}}],
    }
    (config / "config_fed_client.json").write_text(json.dumps(client))
    (config / "config_fed_server.json").write_text(json.dumps(server))
    return folder


def write_app(folder: Path, arguments: str, *, config: str = "", mods: str = "") -> Path:
    """A Flower app; it must never be imported, so that it fails where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "app"\n[tool.flwr.app.config]\nnum-server-rounds = 2\n' + config
    )
    source = APP.format(arguments=arguments, mods=mods, imports=mods or "LocalDpMod")
    (folder / "client_app.py").write_text(f"raise SystemExit('this was run')\n{source}")
    return folder


def only(folder: Path, **size: Any) -> ClaimVerdict:
    (verdict,) = read_claims(folder, RunSize(**size)).verdicts
    return verdict


def script(folder: Path, call: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(f"model, optimizer, loader = engine.{call}\n")
    return folder
