"""What a defense costs a client: seconds of a round, and bytes of what it sends."""

import time
from dataclasses import dataclass, replace
from statistics import median

from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Shared, Update, tensors_in
from fedaudit.defenses.chain import parts_of
from fedaudit.defenses.gradient_transforms import Encodes
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.simulation import Simulation, State

REPEATS = 5
CLIENT = 0


@dataclass(frozen=True)
class StepCost:
    """One client's round with the defense and without.

    Attributes:
        seconds, plain_seconds: Median CPU seconds of the process, measured by turns.
        bytes, plain_bytes: Of all that is sent, in the encoding that the defense names, else as
            the tensors are.
    """

    seconds: float
    plain_seconds: float
    bytes: int
    plain_bytes: int


def step_cost(simulation: Simulation, state: State, *, repeats: int = REPEATS) -> StepCost:
    """Measure client 0's round from `state`, on the photos and settings of its training.

    The undefended round starts from what a federation without the defense would broadcast, where
    the defense changes the network or keeps parameters: from a fresh model. Where nothing defends,
    one measurement is both.
    """
    turns = [(simulation, state)]
    if not isinstance(simulation.defense, NoDefense):
        plain = replace(simulation, defense=NoDefense())
        turns.append((plain, plain.fresh()))
    seconds: tuple[list[float], list[float]] = ([], [])
    sizes = [0, 0]
    for number in range(repeats + 1):
        for k, (one, start) in enumerate(turns):
            generator = generator_for("cost", one.seed, number)
            photos = one.labelled(CLIENT)
            began = time.process_time()
            returned = one.step(start, CLIENT, photos, one.federation.training, generator)
            if number:  # the first turn pays for what is built once
                seconds[k].append(time.process_time() - began)
            sizes[k] = bytes_of(one, returned.shared)
    last = len(turns) - 1
    return StepCost(median(seconds[0]), median(seconds[last]), sizes[0], sizes[last])


def bytes_of(simulation: Simulation, shared: tuple[Shared, ...]) -> int:
    """Bytes of what one client sends; the last defense that encodes an update decides its size."""
    coders = [part for part in parts_of(simulation.defense) if isinstance(part, Encodes)]
    total = 0
    for sent in shared:
        if isinstance(sent, Update) and coders:
            total += coders[-1].encoded_bytes(sent.tensors)
        else:
            total += sum(t.numel() * t.element_size() for t in tensors_in(sent))
    return total
