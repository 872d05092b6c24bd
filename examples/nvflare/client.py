"""What runs on each device: NVFlare's client API round plain PyTorch."""

import argparse

import nvflare.client as flare
import torch
from faces import Net, load_data, train


def main() -> None:
    """Train what is received, and send it back, round after round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--local-steps", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    flare.init()
    number = int(flare.get_site_name().removeprefix("site-")) - 1
    images, labels = load_data(number, options.clients)
    net = Net()
    while flare.is_running():
        received = flare.receive()
        net.load_state_dict(received.params)
        loss = train(net, images, labels, steps=options.local_steps, batch=options.batch_size,
                     lr=options.lr, round=received.current_round)  # fmt: skip
        flare.send(
            flare.FLModel(
                params=net.state_dict(),
                metrics={"loss": loss},
                meta={"NUM_STEPS_CURRENT_ROUND": options.local_steps},
            )
        )


if __name__ == "__main__":
    main()
