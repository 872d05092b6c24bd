"""What runs on the server. The audit is the three lines that are marked."""

from collections.abc import Mapping
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

import fedaudit  # 1
from faces_app.task import CLASSES, SIZE, Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What `flwr run` starts."""
    serve(grid, context.run_config, facts_of(context.run_config))


def facts_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an attack needs to know besides the messages."""
    return {
        "model": "faces_app.task:Net",
        "image_shape": (3, SIZE, SIZE),
        "classes": CLASSES,
        "local_steps": settings["local-steps"],
        "batch_size": settings["batch-size"],
    }


def serve(grid: Grid, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Average, round after round."""
    torch.manual_seed(0)
    local = {name: settings[name] for name in ("lr", "local-steps", "batch-size")}
    if settings["capture"]:
        grid = fedaudit.tap(grid, settings["capture"], **facts)  # 2
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=2)
    result = strategy.start(
        grid=grid,  # 3
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=settings["num-server-rounds"],
        train_config=ConfigRecord(local),
    )
    if settings["model"]:
        torch.save(result.arrays.to_torch_state_dict(), settings["model"])
