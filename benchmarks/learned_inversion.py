"""What learned inversion reaches: behind average pooling, for batches, and under defenses.

    python benchmarks/learned_inversion.py                  # everything
    python benchmarks/learned_inversion.py --only maps      # feature decoder, closed-form maps
    python benchmarks/learned_inversion.py --only trained   # the same on trained networks
    python benchmarks/learned_inversion.py --only defended  # learned inversion next to matching
    python benchmarks/learned_inversion.py --quick          # a few targets, small trainings

ORL at 32 px, one target photo for each of 40 people, the gallery from five other photos of each;
auxiliary faces are generated ones and the 100 of scikit-image, never ORL. `train s` are CPU seconds
of one training, `s/target` the median afterwards. The fresh network is random; the trained one has
been through about 24 epochs of FedAvg on the same photos, targets included: its accuracy on them is
printed, for a "trained" network that has learned nothing proves nothing. Rank-1 of chance is 1/40.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import mean, median

import torch

from fedaudit.attacks.adaptive.defense_replay import replay_of
from fedaudit.attacks.evidence.feature_maps.last_block import invert_last_block
from fedaudit.attacks.gathering.gather import gather
from fedaudit.attacks.learned.feature_decoder import FeatureDecoder
from fedaudit.attacks.learned.learned_inversion import LearnedInversion
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.core.capture import Capture
from fedaudit.core.observation import DefenseFacts, LocalTraining, ModelSpec
from fedaudit.core.protocols import Attack
from fedaudit.core.registry import create
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
from fedaudit.federation.fedsgd import FedSGD
from fedaudit.federation.simulation import Simulation
from fedaudit.models.build_network import build
from fedaudit.models.facenet import FaceNet
from fedaudit.scoring.embedder import load_embedder
from fedaudit.scoring.identity import average_with_mirror, calibrate, embed_split
from fedaudit.scoring.score import score

DEFENDED = {
    "none": (),
    "sign": (DefenseFacts("sign", {}),),
    "pruning 0.99": (DefenseFacts("top_k", {"pruned": 0.99}),),
    "noise 0.1 of the norm": (DefenseFacts("gaussian_noise", {"std": 0.1, "of": "norm"}),),
    "noise 1 of the norm": (DefenseFacts("gaussian_noise", {"std": 1.0, "of": "norm"}),),
    "DP-SGD C 1, σ 0.01": (
        DefenseFacts("dpsgd", {"noise_multiplier": 0.01, "max_grad_norm": 1.0}),
    ),
    "DP-SGD C 1, σ 1": (DefenseFacts("dpsgd", {"noise_multiplier": 1.0, "max_grad_norm": 1.0}),),
}
HEADER = (
    f"{'network':12} {'model':8} {'batch':>5} {'defense':22} {'attack':28} {'n':>3} {'SSIM':>6} "
    f"{'least':>6} {'LPIPS':>6} {'rank-1':>7} {'re-id':>7} {'train s':>8} {'s/target':>9}"
)
ROUNDS, LOCAL = 12, 25
"""200 photos in batches of 16: about 24 epochs."""


@dataclass(frozen=True)
class Bench:
    """One network, its targets, and who scores."""

    simulation: Simulation
    state: State
    judge: Callable[[Capture, object], Sequence[ImageScore]]

    def capture(self, target: int, batch: int, defense: tuple[DefenseFacts, ...] = ()) -> Capture:
        """Target number `target`'s update, defended by the functions that attacks replay."""
        capture = simulate(
            self.simulation,
            self.state,
            target=target,
            batch_size=batch,
            training=LocalTraining(batch_size=batch),
            threat=threat_model("D"),
        )
        update = capture.seen.update
        assert update is not None
        sent = {name: value[None] for name, value in update.tensors.items()}
        replayed, noise = replay_of(defense, batch), generator_for("defense", target)
        for transform in (*replayed.each, *replayed.mean):  # one image: its gradient is the mean
            sent = transform(sent, noise)
        shared = Update("gradient", {name: value[0] for name, value in sent.items()}, batch)
        return replace(capture, seen=replace(capture.seen, shared=(shared,), defense=defense))


def bench_of(network: str, rounds: int) -> Bench:
    """All 40 people at one client."""
    common = Federation(clients=1, held_out=0, photos=5, rounds=ROUNDS)
    federation = with_keys(common, {"lr": 0.05, "local_steps": LOCAL})
    faces, full = orl(size=32), orl(size=112)
    parts = split(faces, federation)
    embed = average_with_mirror(load_embedder().embed)
    references, probes = embed_split(full, faces, parts, embed)
    gallery = calibrate(references, probes, fmr=1e-3, photos=200)
    simulation = Simulation(ModelSpec(network), faces, parts, federation, FedSGD(), NoDefense())
    state = simulation.fresh()
    if rounds:
        # Not by FedSGD, which takes one plain step a round: twelve of them teach nothing.
        state, _ = replace(simulation, method=FedAvg()).train(state, range(1, rounds + 1))
        report_fit(simulation, state)

    def judge(capture: Capture, result: object) -> Sequence[ImageScore]:
        assert capture.secret is not None
        return score(capture.secret, result, gallery=gallery, embed=embed)[0]  # type: ignore[arg-type]

    return Bench(simulation, state, judge)


def report_fit(simulation: Simulation, state: State) -> None:
    """How well the network knows the photos that it was trained on."""
    model = build(simulation.spec(0), state.server)
    assert isinstance(model, FaceNet)
    people = simulation.labels_of(0)
    photos = [i for person in people for i in simulation.split.train[person]]
    labels = torch.tensor([people.index(simulation.faces.people[i]) for i in photos])
    with torch.no_grad():
        scores = model(simulation.faces.images[photos])
        loss = float(model.criterion(scores, labels))
    right = float((scores.argmax(1) == labels).float().mean())
    print(f"{simulation.network.factory}: {right:.3f} of {len(photos)} training photos right, "
          f"loss {loss:.4f}", flush=True)  # fmt: skip


def line(
    bench: Bench,
    names: tuple[str, str, int, str, str],
    attack: Attack,
    targets: Sequence[int],
) -> None:
    """Attack each target; one row of the table."""
    network, model, batch, label, title = names
    scores: list[ImageScore] = []
    seconds = []
    for target in targets:
        capture = bench.capture(target, batch, DEFENDED[label])
        result = attack(capture.seen, generator=generator_for("attack", target))
        scores += bench.judge(capture, result)
        seconds.append(result.seconds)
    usual = median(seconds[1:] or seconds)
    first = sum(s.rank == 1 for s in scores)
    again = sum(bool(s.reidentified) for s in scores)
    print(
        f"{network:12} {model:8} {batch:5} {label:22} {title:28} {len(scores):3} "
        f"{mean(s.metrics['ssim'] for s in scores):6.3f} "
        f"{min(s.metrics['ssim'] for s in scores):6.3f} "
        f"{mean(s.metrics.get('lpips', 0.0) for s in scores):6.3f} {first:3}/{len(scores):<3} "
        f"{again:3}/{len(scores):<3} {max(0.0, seconds[0] - usual):8.1f} {usual:9.3f}",
        flush=True,
    )


def maps(options: argparse.Namespace, cache: str) -> None:
    """Feature decoder on exact maps: pooled and flattened, single and batch."""
    count = 4 if options.quick else 40
    rounds = ROUNDS if options.trained else 0
    decoder = FeatureDecoder(faces=options.faces, epochs=options.epochs, cache=cache)
    for network in ("face_pooled", "face"):
        bench = bench_of(network, rounds)
        model = "trained" if rounds else "fresh"
        found = [invert_last_block(gather(bench.capture(t, 1).seen)) for t in range(count)]
        errors = sorted(p.error for p in found if p)
        print(f"{network}, {model}: maps inverted {len(errors)}/{count}, median error "
              f"{median(errors) if errors else float('nan'):.1e}", flush=True)  # fmt: skip
        for steps, title in ((0, "decoded map"), (decoder.refine_steps, "decoded map, refined")):
            attack = replace(decoder, refine_steps=steps)
            line(bench, (network, model, 1, "none", title), attack, range(count))
        for batch in (4, 8) if network == "face" and not options.quick else ():
            targets = range(2)
            for steps, title in ((0, "decoded map"), (200, "decoded map, refined")):
                attack = replace(decoder, refine_steps=steps)
                line(bench, (network, model, batch, "none", title), attack, targets)


def defended(options: argparse.Namespace, cache: str) -> None:
    """Learned inversion next to gradient matching, under every defense."""
    bench = bench_of(options.network, 0)
    learned = LearnedInversion(faces=options.faces, epochs=options.epochs, cache=cache)
    matching = create("attacks", "inverting_gradients", {})
    wanted = options.defenses.split("; ") if options.defenses else list(DEFENDED)
    for label in wanted:
        line(
            bench,
            (options.network, "fresh", 1, label, "learned_inversion"),
            learned,
            range(4 if options.quick else 40),
        )
        line(
            bench,
            (options.network, "fresh", 1, label, "inverting_gradients"),
            matching,
            range(1 if options.quick else options.matched),
        )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few targets, small trainings")
    parser.add_argument("--only", choices=["maps", "trained", "defended"], help="one part")
    parser.add_argument("--faces", type=int, help="auxiliary faces of a training")
    parser.add_argument("--epochs", type=int, help="epochs of a training")
    parser.add_argument("--matched", type=int, default=10, help="targets that matching gets")
    parser.add_argument("--network", default="face", help="of the defended part")
    parser.add_argument("--defenses", help="of the defended part, by name, separated by '; '")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(HEADER, flush=True)
    # Trained anew, so that the seconds are those of a training.
    with tempfile.TemporaryDirectory() as cache:
        for name, part, faces, epochs in (
            ("maps", maps, FeatureDecoder().faces, FeatureDecoder().epochs),
            ("trained", maps, FeatureDecoder().faces, FeatureDecoder().epochs),
            ("defended", defended, LearnedInversion().faces, LearnedInversion().epochs),
        ):
            if options.only in (None, name):
                chosen = argparse.Namespace(**vars(options))
                chosen.faces = options.faces or (400 if options.quick else faces)
                chosen.epochs = options.epochs or (3 if options.quick else epochs)
                chosen.trained = name == "trained"
                part(chosen, cache)


if __name__ == "__main__":
    main()
