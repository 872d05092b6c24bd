"""What runs on each device."""

from typing import Any

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from faces_app.task import Net, load_data, train


def fit(message: Message, context: Context) -> Message:
    """Train the received network and send it back."""
    config = message.content["config"]
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    where = context.node_config
    images, labels = load_data(where["partition-id"], where["num-partitions"])
    steps, batch = config["local-steps"], config["batch-size"]
    loss = train(net, images, labels, steps=steps, batch=batch, lr=config["lr"],
                 round=config["server-round"])  # fmt: skip
    metrics = MetricRecord(
        {
            "train-loss": loss,
            "num-examples": steps * batch,
            "partition-id": where["partition-id"],  # whose photos these are: `--photos` asks
        }
    )
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


def make_app(*mods: Any) -> ClientApp:
    """The client, with Flower's modifiers of what it sends."""
    made = ClientApp(mods=list(mods))
    made.train()(fit)
    return made


app = make_app()
