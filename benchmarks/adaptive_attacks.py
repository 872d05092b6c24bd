"""Attacks that know a defense, that read it off the update, and that take it for absent.

    python benchmarks/adaptive_attacks.py                       # every defense, some 13 CPU minutes
    python benchmarks/adaptive_attacks.py --quick               # two targets, few defenses
    python benchmarks/adaptive_attacks.py --models trained --batch 4 --seed 1 --first 16
    python benchmarks/adaptive_attacks.py --only "noise 3" --told known --total-variation 0.03 0.3 3
    python benchmarks/adaptive_attacks.py --full --only sign --attacks learned_inversion

ORL at 32 px, the default face network, one target photo for each of `--targets` people, one local
step (FedSGD); the gallery has five other photos of each of 40 people. "fresh" is random, "trained"
has been through about 24 epochs of FedAvg on the same photos. The attack is `gan_inversion` with
few steps, as in the standard comparison; `--full` gives attacks their own. Every attack gets the
same steps, seeds and targets, so that lines compare pairwise: `Δ` is the mean difference of SSIM to
the line of the same attack that takes the defense for absent, with the number of targets that it is
better on. `prior-only` is the same attack on noise of the undefended update's size. Rank-1 of
chance is 1/40.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any, get_args

import torch
from learned_inversion import Bench, bench_of

from fedaudit.attacks.adaptive.assumptions import as_assumed, assume
from fedaudit.attacks.learned.learned_inversion import LearnedInversion
from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.captures.simulate.update_noise import without_update
from fedaudit.core.capture import Capture
from fedaudit.core.observation import LocalTraining
from fedaudit.core.protocols import Attack
from fedaudit.core.registry import create
from fedaudit.core.scenario import Adapt
from fedaudit.core.seeds import generator_for
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import ImageScore
from fedaudit.federation.abilities import Networks
from fedaudit.federation.fedavg import FedAvg
from fedaudit.federation.federation_state import State
from fedaudit.federation.simulation import Simulation

ROUNDS = 12
DEFENSES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "none": ("none", {}),
    "noise 0.3": ("gaussian_noise", {"std": 0.3, "of": "norm"}),
    "noise 1": ("gaussian_noise", {"std": 1.0, "of": "norm"}),
    "noise 3": ("gaussian_noise", {"std": 3.0, "of": "norm"}),
    "noise 10": ("gaussian_noise", {"std": 10.0, "of": "norm"}),
    "dpsgd eps 8": ("dpsgd", {"noise_multiplier": 0.65, "max_grad_norm": 1.0}),
    "top_k 0.9": ("top_k", {"pruned": 0.9}),
    "top_k 0.99": ("top_k", {"pruned": 0.99}),
    "dual_pruning": ("dual_pruning", {}),
    "random_pruning 0.9": ("random_pruning", {"pruned": 0.9}),
    "sign": ("sign", {}),
    "qsgd": ("qsgd", {}),
    "soteria": ("soteria", {}),
    "censor": ("censor", {}),
    "ats": ("ats", {}),
    "oasis": ("oasis", {}),
    "precode": ("precode", {}),
}
FEW_STEPS: Mapping[str, Mapping[str, Any]] = {
    "gan_inversion": {
        "candidates": 64,
        "latent_steps": 10,
        "stage_steps": 30,
        "pixel_steps": 80,
    }
}
LEARNED = ("sign", "top_k 0.99")
QUICK = ("none", "noise 1", "top_k 0.99", "sign")
HEADER = (
    f"{'model':8} {'batch':>5} {'defense':18} {'attack':20} {'told':10} {'adaptive':10} {'n':>3} "
    f"{'SSIM':>6} {'LPIPS':>6} {'rank-1':>7} {'re-id':>7} {'Δ SSIM':>7} {'better':>7} {'CPU s':>6}"
)


@dataclass(frozen=True)
class Line:
    """What one attack made of all targets."""

    scores: Sequence[ImageScore]
    word: str
    seconds: float


def defended(bench: Bench, name: str) -> Simulation:
    """The federation with the defense at its clients."""
    plugin, settings = DEFENSES[name]
    return replace(bench.simulation, defense=create("defenses", plugin, settings))


def state_of(bench: Bench, name: str, model: str) -> State:
    """The bench's network; one of its own where the defense changes the network."""
    simulation = defended(bench, name)
    if not isinstance(simulation.defense, Networks):
        return bench.state
    if model == "fresh":
        return simulation.fresh()
    training = replace(simulation, method=FedAvg())
    return training.train(training.fresh(), range(1, ROUNDS + 1))[0]


def captured(
    bench: Bench, name: str, state: State, target: int, options: argparse.Namespace
) -> Capture:
    """Target number `target`'s update, with the defense in the client."""
    simulation = defended(bench, name)
    return simulate(
        simulation,
        state,
        target=target,
        batch_size=options.batch,
        training=LocalTraining(batch_size=options.batch),
        threat=threat_model("D"),
        seed=options.seed,
        rounds_seen=options.rounds_seen,
    )


def run(
    bench: Bench,
    attack: Attack,
    captures: Sequence[Capture],
    adapt: Adapt | None,
    seed: int,
) -> Line:
    """Attack each target; without `adapt`, noise in place of each."""
    scores: list[ImageScore] = []
    words, seconds = set(), []
    for target, capture in enumerate(captures):
        seen = assume(capture.seen, adapt or "known")
        if adapt is None:
            seen = without_update(seen, generator_for("prior only", target, seed))
        started = time.process_time()
        made = attack(seen, generator=generator_for("attack", target, seed))
        seconds.append(time.process_time() - started)
        words.add(as_assumed(made, capture.seen, adapt or "known").adaptive)
        scores += bench.judge(capture, made)
    return Line(scores, "/".join(sorted(words)), sorted(seconds)[len(seconds) // 2])


def show(names: tuple[str, int, str, str, str], line: Line, blind: Line | None) -> None:
    """One row of the table."""
    model, batch, defense, attack, told = names
    gain, better = f"{'—':>7}", f"{'—':>7}"
    if blind is not None:
        pairs = list(zip(line.scores, blind.scores, strict=True))
        changes = [
            one.metrics.get("ssim", 0.0) - two.metrics.get("ssim", 0.0) for one, two in pairs
        ]
        gain = f"{mean(changes):+7.3f}"
        better = f"{sum(c > 0 for c in changes):3}/{len(changes):<3}"
    scores = line.scores
    print(
        f"{model:8} {batch:5} {defense:18} {attack:20} {told:10} {line.word:10} {len(scores):3} "
        f"{mean(s.metrics.get('ssim', 0.0) for s in scores):6.3f} "
        f"{mean(s.metrics.get('lpips', 0.0) for s in scores):6.3f} "
        f"{sum(s.rank == 1 for s in scores):3}/{len(scores):<3} "
        f"{sum(bool(s.reidentified) for s in scores):3}/{len(scores):<3} {gain} {better} "
        f"{line.seconds:6.1f}",
        flush=True,
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two targets, few defenses")
    parser.add_argument("--only", nargs="+", choices=list(DEFENSES), help="these defenses")
    parser.add_argument("--models", nargs="+", choices=["fresh", "trained"], default=["fresh"])
    parser.add_argument("--attacks", nargs="+", default=["gan_inversion"])
    parser.add_argument("--full", action="store_true", help="the attacks' own numbers of steps")
    parser.add_argument("--told", nargs="+", choices=get_args(Adapt), default=get_args(Adapt))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first target")
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds-seen", type=int, default=1, help="rounds on the same photos")
    parser.add_argument("--faces", type=int, help="faces to train learned_inversion with")
    parser.add_argument(
        "--total-variation", nargs="+", type=float, default=[], help="weights of the search's prior"
    )
    parser.add_argument("--no-prior-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    count = 2 if options.quick else options.targets
    targets = range(options.first, options.first + count)
    print(HEADER, flush=True)
    for model in options.models:
        bench = bench_of("face", ROUNDS if model == "trained" else 0)
        for defense in options.only or (QUICK if options.quick else DEFENSES):
            state = state_of(bench, defense, model)
            captures = [captured(bench, defense, state, t, options) for t in targets]
            for name in options.attacks:
                for weight in options.total_variation or [None]:
                    compare(bench, (model, defense, name), captures, options, weight)


def compare(
    bench: Bench,
    names: tuple[str, str, str],
    captures: Sequence[Capture],
    options: argparse.Namespace,
    weight: float | None,
) -> None:
    """The lines of one attack, with its own weight of total variation or this one."""
    model, defense, name = names
    if name == "learned_inversion" and defense not in LEARNED:
        return
    faces = options.faces or (400 if options.quick else LearnedInversion().faces)
    few: Mapping[str, Any] = {} if options.full else FEW_STEPS.get(name, {})
    settings = {"faces": faces} if name == "learned_inversion" else few
    title = name
    if weight is not None and name != "learned_inversion":
        settings, title = {**settings, "total_variation": weight}, f"{name}, {weight:g}"
    attack: Callable[..., Any] = create("attacks", name, settings)
    told: tuple[Adapt, ...] = ("known",) if name == "learned_inversion" else tuple(options.told)
    if defense == "none":
        told = ("known",)
    blind = None
    for adapt in sorted(told, key=("no", "estimated", "known").index):
        line = run(bench, attack, captures, adapt, options.seed)
        show((model, options.batch, defense, title, adapt), line, blind)
        blind = line if adapt == "no" else blind
    if defense == "none" and not options.no_prior_only and name != "learned_inversion":
        line = run(bench, attack, captures, None, options.seed)
        show((model, options.batch, defense, title, "prior-only"), line, None)


if __name__ == "__main__":
    main()
