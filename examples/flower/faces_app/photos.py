"""Photos for `fedaudit audit`: a gallery of people, and what each client trained on."""

from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from faces_app.task import SIZE, chosen, load_data
from fedaudit.captures.format.capture_reader import StoredCapture
from fedaudit.data.orl import orl

TRAINED = 5
"""Photos of a person that a client may have; the others are the gallery's."""


def write_photos(folder: Path, clients: int, settings: dict[str, Any]) -> None:
    """Write `gallery/PERSON/` and, of a capture's clients, `truth/CLIENT/round-N/PERSON/`.

    Args:
        folder: Where to.
        clients: Of the simulation.
        settings: Of the run; its capture says which client is which partition.
    """
    faces = orl(size=112)
    for image, source in zip(faces.images, faces.sources, strict=True):
        person, number = source.split("/")
        if int(number) > TRAINED:
            save(image, folder / "gallery" / person / f"{number}.png")
    if not settings["capture"]:
        return
    capture = StoredCapture(settings["capture"])
    small = orl(size=SIZE)
    for round in capture.rounds():
        for stored in capture.messages(round):
            client = stored.message.client
            images, labels = load_data(int(stored.message.metrics["partition-id"]), clients)
            people = sorted(set(small.people))
            for k in dict.fromkeys(
                chosen(len(images), settings["local-steps"], settings["batch-size"], round)
            ):
                place = folder / "truth" / str(client) / f"round-{round}" / people[labels[k]]
                save(images[k], place / f"{k}.png")


def save(image: Tensor, path: Path) -> None:
    """Write an image `[3, H, W]` in [0, 1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).mul(255).round().byte().numpy()).save(path)
