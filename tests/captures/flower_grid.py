"""Three nodes of Flower in this process, which add their numbers to what they are sent."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

EXAMPLES = {1: 8, 2: 8, 3: 16}
"""Of each node: sums weighted by these are exact, in whatever order they are made."""
START = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}


class Loop(Grid):
    """Three nodes in this process; node k adds k to every number."""

    def __init__(self) -> None:
        self.waiting: dict[str, Message] = {}
        self.extra = "a member that Grid does not have"

    def set_run(self, run: Any) -> None:
        del run

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise AssertionError("the tap makes no messages of its own")

    def get_node_ids(self) -> Iterable[int]:
        return [1, 2, 3]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"{len(self.waiting)}-{number}"
            self.waiting[message.metadata.message_id] = message
            yield message.metadata.message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.answer(self.waiting[i]) for i in message_ids]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        del timeout
        return self.pull_messages(list(self.push_messages(messages)))

    def answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        arrays = {k: a.numpy() + node for k, a in message.content["arrays"].items()}
        content = RecordDict(
            {
                "arrays": ArrayRecord({k: fresh(a) for k, a in arrays.items()}),
                "metrics": MetricRecord({"num-examples": EXAMPLES[node], "train-loss": 1.5}),
            }
        )
        return Message(content=content, reply_to=message)


def fresh(array: Any) -> Any:
    from flwr.app import Array

    return Array(array)


def start(strategy: Any, grid: Any) -> dict[str, Any]:
    arrays = ArrayRecord({k: fresh(a) for k, a in START.items()})
    config = ConfigRecord({"lr": 0.25})
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=2, train_config=config)
    return {k: a.numpy() for k, a in result.arrays.items()}


def average() -> FedAvg:
    return FedAvg(fraction_evaluate=0.0, min_available_nodes=3, min_train_nodes=3)
