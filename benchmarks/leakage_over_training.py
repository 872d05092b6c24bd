"""What a client's update gives away as a network is trained, to the best attacker there is.

    python benchmarks/leakage_over_training.py            # about 20 CPU minutes
    python benchmarks/leakage_over_training.py --quick    # two targets, three rounds

The default face network at 32 px learns 20 people of ORL by FedAvg (2 clients of 10 people, 5
photos each). After 0, 1, 3, 6, 12 and 24 rounds (a round is 1.3 epochs), clients whose 20 people it
has *never* seen take one local step, and their updates are attacked. `training` and `new` are the
accuracies on the two groups of people: by round 24 it knows the first by heart, the second not at
all. Identity is judged by an independent embedder against other photos of all 40 people.
"""

import argparse
import json
from collections.abc import Sequence

import torch
from scoring import HEAD, Judge, shown, summary

from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.attacks.presets.map_inversion import MapInversion
from fedaudit.attacks.presets.subspace_matching import subspace_matching
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.protocols import Attack
from fedaudit.core.scenario import Federation, with_keys
from fedaudit.core.seeds import generator_for
from fedaudit.core.shared import Update
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import ImageScore
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.defenses.none import NoDefense
from fedaudit.federation.fedavg import FedAvg
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation
from fedaudit.federation.together import combine
from fedaudit.models.build_network import build
from fedaudit.models.facenet import require_face_net

ROUNDS = (0, 1, 3, 6, 12, 24)
LEARNED, NEW = (0, 1), (2, 3)
"""Clients whose people the network learns, and clients whose people it never sees."""
ATTACKS: dict[str, Attack] = {
    "inverting_gradients": inverting_gradients(),
    "gan_inversion": gan_inversion(),
    "subspace_matching": subspace_matching(),
    "map_inversion, descent": MapInversion(solve_steps=0),
    "map_inversion": MapInversion(),
}


def states(
    simulation: Simulation, wanted: Sequence[int], clients: Sequence[int]
) -> dict[int, State]:
    """The federation after each of the wanted rounds, trained by these clients only."""
    settings, state = simulation.federation, simulation.fresh()
    found = {0: state}
    training = settings.training
    for number in range(1, max(wanted) + 1):
        updates = []
        for client in clients:
            photos = photos_of(simulation, client)
            generator = generator_for("train", simulation.seed, number, client)
            shared = simulation.step(state, client, photos, training, generator).shared
            updates += [one for one in shared if isinstance(one, Update)]
        state = State(combine(simulation.method, state.server, updates, training), {})
        found[number] = state
    return {number: found[number] for number in wanted}


def photos_of(simulation: Simulation, client: int) -> tuple[int, ...]:
    """Training photos of a client, as indices into the face set."""
    people = simulation.split.clients[client]
    return tuple(i for person in people for i in simulation.split.train[person])


def accuracy(simulation: Simulation, state: State, clients: Sequence[int]) -> float:
    """Share of these clients' photos that the network labels right."""
    model = require_face_net(build(simulation.spec(0), state.server), "the benchmark")
    photos = [i for client in clients for i in photos_of(simulation, client)]
    people = simulation.labels_of(0)
    labels = torch.tensor([people.index(simulation.faces.people[i]) for i in photos])
    with torch.no_grad():
        right = model(simulation.faces.images[photos]).argmax(1) == labels
    return float(right.float().mean())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two targets, rounds 0, 3 and 24")
    parser.add_argument("--targets", type=int, default=6, help="attacked updates a line")
    parser.add_argument("--batch", type=int, default=1, help="images an update")
    parser.add_argument("--rounds", type=int, nargs="+", default=list(ROUNDS))
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--network", default="face", help="a registered name")
    parser.add_argument("--swap", action="store_true", help="learn the others, attack the first")
    parser.add_argument("--seed", type=int, default=0, help="of the network and its training")
    parser.add_argument("--local-steps", type=int, default=1, help="of the attacked clients")
    parser.add_argument("--lr", type=float, default=0.1, help="of the attacked clients")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = (0, 3, 24) if options.quick else tuple(options.rounds)
    targets = 2 if options.quick else options.targets
    federation = with_keys(Federation(clients=4, rounds=max(rounds), held_out=0), {"lr": 0.05})
    faces = orl(size=32)
    parts = split(faces, federation)
    judge = Judge.of(faces, parts)
    spec = ModelSpec(options.network)
    simulation = Simulation(
        spec, faces, parts, federation, FedAvg(), NoDefense(), seed=options.seed
    )
    learned, new = (NEW, LEARNED) if options.swap else (LEARNED, NEW)
    local = LocalTraining(options.lr, options.local_steps, options.batch)
    rows = []
    print(f"{'round':>5} {'training':>8} {'new':>5} {'attack':24} {HEAD}", flush=True)
    for number, state in states(simulation, rounds, learned).items():
        known, unknown = (accuracy(simulation, state, group) for group in (learned, new))
        for label in options.attacks:
            images: list[ImageScore] = []
            seconds: list[float] = []
            for k in range(targets):
                capture = simulate(
                    simulation,
                    state,
                    target=new[k % 2] + len(parts.clients) * (k // 2),
                    batch_size=options.batch,
                    training=local,
                    threat=threat_model("D"),
                    round=number + 1,
                )
                found = ATTACKS[label](capture.seen, generator=generator_for("attack", k))
                images += judge.score(capture, found)
                seconds.append(found.seconds)
            row = {
                "round": number,
                "training_accuracy": known,
                "new_accuracy": unknown,
                "attack": label,
                **summary(images, seconds),
            }
            rows.append(row)
            print(f"{number:5} {known:8.2f} {unknown:5.2f} {label:24} {shown(row)}", flush=True)
    print(judge.ceiling)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
