"""Flower's nodes in this process: real client apps with their real modifiers, and no Ray."""

from collections.abc import Iterable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import Tensor, nn

from fedaudit.core.observation import ModelSpec
from fedaudit.models.build_network import build

LR = 0.05


class Nodes(Grid):
    """Nodes 1 to `count` that run one client app, each with a state of its own."""

    def __init__(self, app: ClientApp, count: int) -> None:
        self.app, self.count = app, count
        self.contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": count},
                state=RecordDict(),
                run_config={},
            )
            for node in self.get_node_ids()
        }
        self.waiting: dict[str, Message] = {}
        self.pushed = 0

    def set_run(self, run: Any) -> None:
        del run

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=1)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise AssertionError("the tap makes no messages of its own")

    def get_node_ids(self) -> Iterable[int]:
        return list(range(1, self.count + 1))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            self.pushed += 1
            message.metadata.__dict__["_message_id"] = str(self.pushed)
            self.waiting[message.metadata.message_id] = deepcopy(message)  # the wire copies
            yield message.metadata.message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        messages = [self.waiting.pop(i) for i in message_ids]
        return [self.app(m, self.contexts[m.metadata.dst_node_id]) for m in messages]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        del timeout
        return self.pull_messages(list(self.push_messages(messages)))


def network(norm: str) -> nn.Module:
    return build(spec_of(norm))


def spec_of(norm: str) -> ModelSpec:
    return ModelSpec("convnet", {"classes": 5, "image_size": 16, "width": 8, "norm": norm})


def train(norm: str, state: dict[str, Tensor], node: int, steps: int) -> dict[str, Tensor]:
    """SGD steps on images of the node's own."""
    net = network(norm)
    net.load_state_dict(state)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    generator = torch.Generator().manual_seed(node)
    for _ in range(steps):
        images = torch.rand(4, 3, 16, 16, generator=generator)
        labels = torch.randint(5, (4,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.state_dict()


def client_app(norm: str, steps: int, *mods: Any) -> ClientApp:
    """A client of the Message API."""

    def fit(message: Message, context: Context) -> Message:
        state = message.content["arrays"].to_torch_state_dict()
        sent = train(norm, state, context.node_id, steps)
        content = RecordDict(
            {
                "arrays": ArrayRecord(sent),
                "metrics": MetricRecord({"num-examples": 4 * steps}),
            }
        )
        return Message(content=content, reply_to=message)

    app = ClientApp(mods=list(mods))
    app.train()(fit)
    return app


def older_app(norm: str, steps: int, *mods: Any) -> ClientApp:
    """A client of the older API."""

    class Trainer(NumPyClient):
        def __init__(self, node: int) -> None:
            self.node = node

        def fit(self, parameters: Any, config: Any) -> Any:
            del config
            names = network(norm).state_dict()
            state = {n: torch.tensor(a) for n, a in zip(names, parameters, strict=True)}
            sent = train(norm, state, self.node, steps)
            return [value.numpy() for value in sent.values()], 4 * steps, {}

    return ClientApp(client_fn=lambda c: Trainer(c.node_id).to_client(), mods=list(mods))
