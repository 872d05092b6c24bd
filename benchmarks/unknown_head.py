"""What a head or a projector that stays on the device keeps from an attacker.

    python benchmarks/unknown_head.py                        # about 40 CPU minutes
    python benchmarks/unknown_head.py --quick                # one target a line, batch 1 and 4
    python benchmarks/unknown_head.py --models trained --attacks map_inversion

Updates of the default face network (ORL, 3 clients of 10 people; *trained* is round 13 of FedAvg
with the same part withheld). Rows: what is withheld, the attack, and how it meets what it does not
know: `joint` (solved for), `learned` (trained on generated people), `guessed` (random, three
restarts). *prior-only* runs the same attack on the update of another client, and is scored against
the person that was attacked. Measured: docs/benchmarks/layers_and_clients.md.
"""

import argparse

import torch
from scoring import HEAD, Judge, shown, summary

from fedaudit.attacks.presets.gan_inversion import gan_inversion
from fedaudit.attacks.presets.inverting_gradients import inverting_gradients
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.capture import Capture
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.protocols import Attack
from fedaudit.core.registry import create
from fedaudit.core.scenario import Federation, with_keys
from fedaudit.core.seeds import generator_for
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import ImageScore
from fedaudit.data.orl import orl
from fedaudit.data.splits import split
from fedaudit.federation.federation_state import State
from fedaudit.federation.fedsgd import FedSGD
from fedaudit.federation.simulation import Simulation

ROUNDS = 12
WITHHELD = {"nothing": (), "head": ("head.",), "embedding+head": ("embedding.", "head.")}


def lines(withheld: str) -> dict[tuple[str, str], Attack]:
    """Attacks by (name, how they meet what is private)."""
    found: dict[tuple[str, str], Attack] = {
        ("inverting_gradients", "joint"): inverting_gradients(),
        ("gan_inversion", "joint"): gan_inversion(),
        ("map_inversion", "joint"): create("attacks", "map_inversion", {}),
    }
    if withheld == "nothing":
        return {(name, "–"): attack for (name, _), attack in found.items()}
    for unknown in ("learned", "guessed"):
        restarts = 3 if unknown == "guessed" else 1
        settings = {"unknown": unknown, "restarts": restarts}
        for name in ("inverting_gradients", "gan_inversion"):
            found[name, unknown] = create("attacks", name, settings)
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one target a line, batch 1 and 4")
    parser.add_argument("--network", default="face")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--models", nargs="+", default=["fresh", "trained"])
    parser.add_argument("--withheld", nargs="+", choices=WITHHELD, default=list(WITHHELD))
    parser.add_argument("--attacks", nargs="+", help="only these")
    parser.add_argument("--unknown", nargs="+", help="only these ways to meet what is private")
    parser.add_argument("--no-control", action="store_true", help="leave prior-only out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    federation = with_keys(Federation(), {"clients": 3, "rounds": ROUNDS, "lr": 0.05})
    faces = orl(size=32)
    parts = split(faces, federation)
    judge = Judge.of(faces, parts)
    print(
        f"{'model':8} {'withheld':15} {'batch':>5} {'attack':20} {'unknown':8} {'role':10} {HEAD}",
        flush=True,
    )
    batches = [1, 4] if options.quick else options.batches
    for withheld in options.withheld:
        simulation = _simulation(options.network, WITHHELD[withheld], faces, parts, federation)
        for model in options.models:
            state, number = simulation.fresh(), 1
            if model == "trained":
                state, number = simulation.train(state, range(1, ROUNDS + 1))[0], ROUNDS + 1
            for batch in batches:
                targets = 1 if options.quick else (6 if batch == 1 else 2)
                captures = [
                    _capture(simulation, state, target, batch, number)
                    for target in range(targets + 1)
                ]
                for (name, unknown), attack in lines(withheld).items():
                    if options.attacks and name not in options.attacks:
                        continue
                    if options.unknown and unknown not in options.unknown:
                        continue
                    for role in ("audit", "prior-only"):
                        if role == "prior-only" and options.no_control:
                            continue
                        row = _row(attack, captures, judge, shift=int(role == "prior-only"))
                        print(
                            f"{model:8} {withheld:15} {batch:5} {name:20} {unknown:8} {role:10} "
                            f"{shown(row)}",
                            flush=True,
                        )
    print(judge.ceiling)


def _simulation(network, private, faces, parts, federation) -> Simulation:  # type: ignore[no-untyped-def]
    defense = create(
        "defenses",
        "private_projector" if private else "none",
        {"private": private} if private else {},
    )
    return Simulation(ModelSpec(network), faces, parts, federation, FedSGD(), defense)


def _capture(simulation: Simulation, state: State, target: int, batch: int, number: int) -> Capture:
    return simulate(
        simulation,
        state,
        target=target,
        batch_size=batch,
        training=LocalTraining(0.1, 1, batch),
        threat=threat_model("D"),
        round=number,
    )


def _row(attack: Attack, captures: list[Capture], judge: Judge, *, shift: int) -> dict[str, object]:
    """Each target by the update that stands `shift` places behind its own."""
    images: list[ImageScore] = []
    seconds: list[float] = []
    for target in range(len(captures) - 1):
        found = attack(captures[target + shift].seen, generator=generator_for("attack", target))
        images += judge.score(captures[target], found)
        seconds.append(found.seconds)
    return summary(images, seconds)


if __name__ == "__main__":
    main()
