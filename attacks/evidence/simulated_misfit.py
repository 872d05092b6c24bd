"""How far the true images are from what several local steps say that layers' inputs span.

While a client trains, what enters a layer changes: its weights move, and batch norm in training
mode sees the photo among others in each epoch. So the rows of the update are missed by the client's
own images, too: of two epochs over sixteen photos by 1e-3 in a ResNet-18's second stage and by 0.1
in its last. By how much in which layer depends on the network and the settings far more than on
what the images show: the server trains on smooth noise, and measures it.
"""

from dataclasses import replace

import torch

from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.reading import Reading
from fedaudit.attacks.evidence.span_spectrum import find_spans
from fedaudit.attacks.training.replay import replay
from fedaudit.attacks.training.simulated_training import smooth_noise
from fedaudit.attacks.training.trained_parameters import is_still
from fedaudit.core.observation import Observation

LEAST = 1e-4
"""Mean squared sine below which layers are believed alike; else one that sees pixels, which do not
drift, leaves the others no weight."""


def simulated_misfit(reading: Reading, seen: Observation) -> dict[str, float]:
    """Mean squared sine by weight, of noise that a simulated client trained on.

    Args:
        reading: Of the update.
        seen: The observation.

    Returns:
        {} of one photo or step, of signs, where the settings of local training are not granted, and
        where such training diverges.
    """
    training, update, reader = seen.training, seen.update, reading.reader
    if training is None or update is None or update.kind == "gradient":
        return {}
    if training.steps == 1 or reading.count == 1 or reading.signs:
        return {}
    generator = torch.Generator().manual_seed(0)
    images = smooth_noise(reader.count, reader.shape, generator).to(reading.like)
    reader.positions(reading.private)  # or one clear error
    labels = torch.arange(reader.count, device=images.device)
    labels = labels % (seen.num_classes or reading.classes)
    size, order = min(training.batch_size, reader.count), list[list[int]]()
    while len(order) < training.steps:  # shuffled anew in each epoch
        shuffled = torch.randperm(reader.count, generator=generator)
        order += [part.tolist() for part in torch.split(shuffled, size)]
    named = dict(reading.model.named_parameters())
    still = {name for name in named if is_still(name, seen.before, update.tensors)}
    delta = replay(
        reading.model,
        seen.before,
        images,
        labels,
        training,
        order=order[: training.steps],
        create_graph=False,
        names=[name for name in named if name not in still],
        still=still,
    )
    if not all(bool(change.isfinite().all()) for change in delta.values()):
        return {}
    if reading.followed is not None:
        midway = replace(reading.followed, delta=delta).midway(reading.model)
        reader = InputReader(midway, reader.shape, reader.count)
    spans = find_spans(reader, delta, private=reading.private)
    with torch.no_grad():
        uses = reader.inputs([span.name for span in spans], images)
        return {s.name: max(float(s.distance(s.rows(uses[s.name]))), LEAST) for s in spans}
