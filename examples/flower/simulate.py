"""Run the app in Flower's simulation, from Python: `python simulate.py capture --clients 8`."""

import argparse
from pathlib import Path
from typing import Any

from faces_app.client_app import app
from faces_app.photos import write_photos
from faces_app.protected import claim, private_app, secret_app, serve_secretly
from faces_app.server_app import facts_of, serve
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation


def main() -> None:
    """Parse, run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capture", nargs="?", default="", help="folder to record into")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--local-steps", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--model", default="", help="where to save the trained network")
    parser.add_argument("--photos", default="", help="write a gallery and each client's photos")
    protection = parser.add_mutually_exclusive_group()
    protection.add_argument("--secagg", action="store_true", help="Flower's SecAgg+")
    protection.add_argument("--dp", type=float, metavar="EPSILON", help="Flower's LocalDpMod")
    options = parser.parse_args()
    settings: dict[str, Any] = {
        "clients": options.clients,
        "num-server-rounds": options.rounds,
        "local-steps": options.local_steps,
        "batch-size": options.batch_size,
        "lr": options.lr,
        "capture": options.capture and str(Path(options.capture).resolve()),
        "model": options.model and str(Path(options.model).resolve()),
    }
    facts = facts_of(settings)
    if options.dp:
        facts["dp"] = claim(options.dp)
    server = ServerApp()

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        # `run_simulation` has no run_config, which `flwr run` reads from pyproject.toml
        if options.secagg:
            serve_secretly(grid, context, settings, facts)
        else:
            serve(grid, settings, facts)

    client = secret_app if options.secagg else private_app(options.dp) if options.dp else app
    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, num_supernodes=options.clients, backend_config=backend)
    if options.photos:
        write_photos(Path(options.photos), options.clients, settings)


if __name__ == "__main__":
    main()
