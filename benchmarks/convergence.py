"""Whether the word "converged" is right: what a longer run finds where it is said, and where not.

Run: python benchmarks/convergence.py [--data openpeople] [--targets 2] [--longest 4]

Each attack is run with an eighth, a quarter, half, one, two and four times the steps of the demo,
with the same seed. For a run of N steps the word is what the report says, from the objectives at
N/2 and N (`reports.effort`); the truth is what 2N steps bring: how much further the objective
falls, and how much more the images resemble the photos (SSIM). Thresholds were chosen on two faces
of ORL; the faces here are others. CPU seconds of one thread.
"""

import argparse
import json
from dataclasses import replace
from typing import Any

import torch

from fedaudit.captures.simulate.simulated_capture import simulate
from fedaudit.captures.simulate.simulated_source import simulation_of
from fedaudit.core.observation import LocalTraining
from fedaudit.core.registry import create
from fedaudit.core.scenario import Choice
from fedaudit.core.threat_models import threat_model
from fedaudit.core.trial import Cell, Trial
from fedaudit.models.derivatives import twice_differentiable
from fedaudit.reports.effort import ENOUGH, gain_of
from fedaudit.scoring.score import score
from fedaudit.study.demo_study import DEFENSES, study

IMAGE_SPACE = Choice("inverting_gradients", {"steps": 160})
GAN = Choice(
    "gan_inversion", {"candidates": 64, "latent_steps": 10, "stage_steps": 30, "pixel_steps": 80}
)
ATTACKS = {choice.label: choice for choice in (IMAGE_SPACE, GAN)}
TIMES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)


def scaled(choice: Choice, times: float) -> Any:
    """The attack with that many times its steps."""
    attack: Any = create("attacks", choice.name, choice.settings)
    stages = [replace(s, steps=round(max(s.steps * times, s.steps > 0))) for s in attack.stages]
    return replace(attack, stages=tuple(stages))


def main() -> None:
    """Print a line as JSON for each run, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="openpeople")
    parser.add_argument("--targets", type=int, default=2)
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--defenses", nargs="+", default=["none", "dpsgd"])
    parser.add_argument("--longest", type=float, default=4.0, help="times the demo's steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    asked = study(quick=False)
    small = replace(asked.federation, clients=2, held_out=2, photos=2)
    asked = replace(asked, data=Choice(options.data), federation=small)
    scenario = asked.scenarios[0]
    known = {choice.label: choice for choice in DEFENSES}
    times = [t for t in TIMES if t <= options.longest]
    told: list[dict[str, Any]] = []
    for target in range(options.targets):
        for defense in options.defenses:
            simulation = simulation_of(asked, scenario, known[defense])
            capture = simulate(
                simulation,
                simulation.fresh(),
                target=target,
                batch_size=1,
                training=LocalTraining(batch_size=1),
                threat=threat_model("D"),
            )
            assert capture.secret
            for name in options.attacks:
                cell = Cell("c", "face", "fedavg", 1, 1, defense, name, "D", target, 0)
                runs = []
                for factor in times:
                    with twice_differentiable():
                        generator = torch.Generator().manual_seed(target)
                        found = scaled(ATTACKS[name], factor)(capture.seen, generator=generator)
                    scores, _, _ = score(capture.secret, found, gallery=None, embed=None)
                    trial = Trial(
                        cell,
                        scores,
                        None,
                        found.objective,
                        found.iterations,
                        0,
                        found.seconds,
                        "no",
                    )
                    runs.append(replace(trial, history=found.history))
                told += [line(target, runs[k : k + 3]) for k in range(len(runs) - 2)]
                for one in told[-(len(runs) - 2) :]:
                    print(json.dumps(one), flush=True)
    summarize(told)


def line(target: int, runs: list[Trial]) -> dict[str, Any]:
    """The word on the middle one of runs of N/2, N and 2N steps, and what the last brought."""
    half, whole, twice = runs
    gain, further = gain_of(whole, half), gain_of(twice, whole)
    assert gain is not None
    assert further is not None
    ssim = [trial.images[0].metrics["ssim"] for trial in runs]
    return {
        "target": target,
        "defense": whole.cell.defense,
        "attack": whole.cell.attack,
        "steps": whole.iterations,
        "word": "converged" if gain <= ENOUGH else "not converged",
        "gain": round(gain, 3),
        "gain of twice": round(further, 3),
        "ssim": round(ssim[1], 3),
        "more ssim of twice": round(ssim[2] - ssim[1], 3),
        "seconds": round(whole.seconds, 1),
    }


def summarize(told: list[dict[str, Any]]) -> None:
    """What twice the steps brought, by word; and the words by defense, attack and steps."""
    for word in ("converged", "not converged"):
        mine = [one for one in told if one["word"] == word]
        if not mine:
            continue
        more = sorted(one["more ssim of twice"] for one in mine)
        falling = sum(one["gain of twice"] > ENOUGH for one in mine)
        print(
            f"{word}: {len(mine)} runs; twice the steps: objective falls on in {falling}, "
            f"SSIM {more[len(more) // 2]:+.3f} (median), {more[-1]:+.3f} (most)"
        )
    print("\n| defense | attack | steps | converged | SSIM | more SSIM of twice the steps |")
    print("|---|---|---|---|---|---|")
    for key in dict.fromkeys((o["defense"], o["attack"], o["steps"]) for o in told):
        mine = [o for o in told if (o["defense"], o["attack"], o["steps"]) == key]
        yes = sum(o["word"] == "converged" for o in mine)
        ssim, more = (
            sum(o[name] for o in mine) / len(mine) for name in ("ssim", "more ssim of twice")
        )
        cells = (*key, f"{yes} of {len(mine)}", f"{ssim:.2f}", f"{more:+.3f}")
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
