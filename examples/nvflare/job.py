"""Simulate a job of NVFlare that is recorded: `python job.py capture --clients 2`."""

import argparse
from pathlib import Path

import torch
from faces import CLASSES, SIZE, Net
from nvflare.app_common.filters.percentile_privacy import PercentilePrivacy
from nvflare.app_common.filters.svt_privacy import SVTPrivacy
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.client.config import TransferType
from nvflare.recipe import SimEnv

from fedaudit.captures.record.nvflare import tap

FILTERS = {"percentile": PercentilePrivacy, "svt": SVTPrivacy}


def main() -> None:
    """Parse, run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capture", nargs="?", default="", help="folder to record into")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--local-steps", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--diff", action="store_true", help="clients send local - global")
    parser.add_argument("--privacy", choices=FILTERS, help="a filter of NVFlare's on each client")
    parser.add_argument("--workspace", default="workspace", help="of NVFlare's simulator")
    options = parser.parse_args()

    workspace = Path(options.workspace).resolve()
    workspace.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    start = workspace / "start.pt"
    torch.save(Net().state_dict(), start)
    local = f"--local-steps {options.local_steps} --batch-size {options.batch_size}"
    recipe = FedAvgRecipe(
        name="faces",
        model=Net(),  # of which the server makes another one
        initial_ckpt=str(start),
        min_clients=options.clients,
        num_rounds=options.rounds,
        train_script=str(Path(__file__).with_name("client.py")),
        train_args=f"--clients {options.clients} --lr {options.lr} {local}",
        params_transfer_type=TransferType.DIFF if options.diff else TransferType.FULL,
    )
    if options.privacy:
        recipe.add_client_output_filter(FILTERS[options.privacy](), tasks=["train"])
    if options.capture:
        tap(
            recipe,
            Path(options.capture).resolve(),
            counted="steps",
            model="faces:Net",
            image_shape=(3, SIZE, SIZE),
            classes=CLASSES,
            lr=options.lr,
            local_steps=options.local_steps,
            batch_size=options.batch_size,
        )
    recipe.execute(SimEnv(num_clients=options.clients, workspace_root=str(workspace)))


if __name__ == "__main__":
    main()
