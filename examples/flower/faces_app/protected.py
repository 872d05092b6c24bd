"""The same training under Flower's own protections: local differential privacy, and SecAgg+."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from flwr.app import Context
from flwr.client import Client, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid

import fedaudit
from faces_app.client_app import make_app
from faces_app.task import Net, load_data, train
from fedaudit.captures.format.capture_facts import DpClaim

CLIP, DELTA = 1.0, 1e-5


def private_app(epsilon: float) -> ClientApp:
    """Clients that clip their update to C, and add noise for ε in each round."""
    return make_app(LocalDpMod(CLIP, CLIP, epsilon, DELTA))


def claim(epsilon: float) -> DpClaim:
    """What such a federation says of itself; σ is what Flower's LocalDpMod makes of ε and δ."""
    return DpClaim(
        clip=CLIP,
        sensitivity=CLIP,
        noise=math.sqrt(2 * math.log(1.25 / DELTA)) / epsilon,
        epsilon=epsilon,
        delta=DELTA,
        unit="client",
        where="client",
    )


class Trainer(NumPyClient):
    """The client in Flower's older API, which SecAgg+ asks for."""

    def __init__(self, client: int, clients: int) -> None:
        self.client, self.clients = client, clients

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> Any:
        """Train the received network and send it back."""
        net = Net()
        names = net.state_dict()
        net.load_state_dict({n: torch.tensor(a) for n, a in zip(names, parameters, strict=True)})
        images, labels = load_data(self.client, self.clients)
        steps, batch = config["local-steps"], config["batch-size"]
        train(net, images, labels, steps=steps, batch=batch, lr=config["lr"],
              round=config["server-round"])  # fmt: skip
        sent = [value.numpy() for value in net.state_dict().values()]
        return sent, steps * batch, {"partition-id": self.client}


def client_of(context: Context) -> Client:
    """The client of a node."""
    where = context.node_config
    return Trainer(where["partition-id"], where["num-partitions"]).to_client()


secret_app = ClientApp(client_fn=client_of, mods=[secaggplus_mod])


def serve_secretly(
    grid: Grid, context: Context, settings: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Average through SecAgg+: the server sees sums alone. The tap goes round the strategy."""
    torch.manual_seed(0)
    local = {name: settings[name] for name in ("lr", "local-steps", "batch-size")}
    state = Net().state_dict()
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_available_clients=settings["clients"],
        initial_parameters=ndarrays_to_parameters([value.numpy() for value in state.values()]),
        on_fit_config_fn=lambda number: {**local, "server-round": number},
    )
    if settings["capture"]:
        strategy = fedaudit.tap(
            strategy,
            settings["capture"],
            lr=local["lr"],
            parameter_names=tuple(state),  # the older API sends arrays without names
            **facts,
        )
    rounds = ServerConfig(num_rounds=settings["num-server-rounds"])
    legacy = LegacyContext(context=context, config=rounds, strategy=strategy)
    # A weight is at most the images of a client: larger bounds cost precision.
    weight = local["local-steps"] * local["batch-size"]
    secagg = SecAggPlusWorkflow(1.0, 0.5, max_weight=weight)
    DefaultWorkflow(fit_workflow=secagg)(grid, legacy)
