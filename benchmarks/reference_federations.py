"""The scale that reports hold their number against: federations that were attacked here.

Run: python benchmarks/reference_federations.py [--of orl] [--output runs/reference] [--minutes 60]

`--of orl`: 42 federations of ORL's forty people at 32 px, gray; five networks, a dozen defenses,
fresh models and ones trained for twenty rounds, ten people each. `--of openpeople`: twelve of the
ten people who do not exist, in color at 64 px, torchvision's ResNet-18 among them, six people each.
One attack, `subspace_matching` with the demo's settings. Each federation is a row of one study; it
counts from five people on. Controls are not run, because a place among others needs none. What is
finished is kept, and the same command goes on. Writes what is complete into
reports/reference_federations.json, numbers only, in place of earlier ones of the same faces, and
prints the distribution. Some twenty CPU minutes for ORL, ten for openpeople.
"""

import argparse
import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from fedaudit.core.scenario import Choice, Federation, Scenario, Study, with_keys
from fedaudit.reports.build import results_of
from fedaudit.reports.reference_scale import FILE, Reference, read_references
from fedaudit.reports.results import Results
from fedaudit.study.demo_study import COLOR_ROUNDS, DEFENSES, ROUNDS, SUBSPACE
from fedaudit.study.execution import Place, execution

LEAST = 5
"""Targets from which a federation counts, where there was no time for all."""
NONE, DPSGD, DPLC, PROJECTOR = DEFENSES
SIGN, QSGD, CLIPPING = Choice("sign"), Choice("qsgd"), Choice("clipping")
TOP_K = Choice("top_k", {"pruned": 0.9})
TOP_FEW = Choice("top_k", {"pruned": 0.99}, "top_k-99")
NOISE = Choice("gaussian_noise", {"std": 0.1, "of": "norm"}, "noise-0.1")
LOUD = Choice("gaussian_noise", {"std": 1.0, "of": "norm"}, "noise-1")
PRUNING, LOCAL = Choice("random_pruning"), Choice("local_layers")
FEW = (NONE, DPSGD, SIGN)


def scenario(
    name: str, network: str, *defenses: Choice, people: int = 10, round: int = 1, **keys: object
) -> Scenario:
    """A row a defense, of one network; `keys` as in a study file."""
    plain = Scenario(
        name,
        network=Choice(network),
        method=Choice("fedavg"),
        targets=people,
        round=round,
        defenses=defenses,
        attacks=(SUBSPACE,),
        controls=False,
    )
    return with_keys(plain, keys)


def orl() -> Study:
    """Thirty rows of fresh models, twelve of trained ones or of larger batches."""
    many = (NOISE, LOUD, CLIPPING, SIGN, TOP_K, TOP_FEW, QSGD, PRUNING, LOCAL)
    later = ROUNDS + 1
    return Study(
        name="reference-orl",
        scenarios=(
            scenario("face", "face", NONE, DPSGD, DPLC, PROJECTOR, *many),
            scenario("pooled", "face_pooled", NONE, DPSGD, SIGN, TOP_FEW, NOISE),
            scenario("small", "small_cnn", *FEW, TOP_FEW),
            scenario("mlp", "mlp", *FEW, TOP_FEW),
            scenario("lenet", "lenet", *FEW),
            scenario("steps-4", "face", NONE, local_steps=4),
            scenario("face-later", "face", *FEW, PROJECTOR, NOISE, TOP_FEW, round=later),
            scenario("pooled-later", "face_pooled", NONE, SIGN, round=later),
            scenario("small-later", "small_cnn", NONE, SIGN, round=later),
            scenario("batch-4", "face", NONE, batch_size=4),
            scenario("batch-4-later", "face", NONE, batch_size=4, round=later),
        ),
        size=32,
        federation=with_keys(Federation(clients=3, rounds=ROUNDS), {"lr": 0.05}),
        utility=False,
        judges=(Choice("sface"),),
    )


def openpeople() -> Study:
    """Twelve rows in color, half of them of the network that people deploy."""

    def six(name: str, network: str, *defenses: Choice, **keys: object) -> Scenario:
        return scenario(name, network, *defenses, people=6, **keys)

    resnet, later = "torchvision:resnet18", COLOR_ROUNDS + 1
    return Study(
        name="reference-openpeople",
        scenarios=(
            six("resnet", resnet, *FEW, TOP_FEW, batch_norm="eval"),
            six("resnet-later", resnet, NONE, SIGN, round=later, batch_norm="eval"),
            six("face", "face", *FEW, TOP_FEW),
            six("face-later", "face", NONE, SIGN, round=later),
        ),
        data=Choice("openpeople"),
        size=64,
        federation=with_keys(
            Federation(clients=2, rounds=COLOR_ROUNDS, held_out=2, photos=12), {"lr": 0.05}
        ),
        utility=False,
        judges=(Choice("sface"),),
    )


def references(asked: Study, results: Results) -> list[Reference]:
    """The complete rows."""
    settings = {(s.name, d.label): d for s in asked.scenarios for d in s.defenses}
    found, made = [], results.provenance
    for row in results.rows:
        if row.measurement is None or row.reid is None or row.measurement.n_targets < LEAST:
            continue
        defense = settings[row.scenario, row.defense]
        found.append(
            Reference(
                data=asked.data.name,
                size=asked.size,
                network=row.network,
                method=row.method,
                round=row.round,
                batch_size=row.batch_size,
                steps=asked.scenario(row.scenario).training.steps,
                defense=defense.name,
                settings=dict(defense.settings),
                attack=row.attack,
                threat_model=row.threat_model,
                hits=row.reid.hits,
                n=row.reid.n,
                unit=row.reid.unit,
                date=made.started[:10],
                build=f"{made.fedaudit} {(made.git_commit or '')[:12]}".strip(),
            )
        )
    return found


def main() -> None:
    """Attack, write the complete federations, print the distribution."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--of", choices=("orl", "openpeople"), default="orl")
    parser.add_argument("--output", type=Path, default=Path("runs/reference"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    asked = {"orl": orl, "openpeople": openpeople}[options.of]()
    folder = options.output / options.of
    folder.parent.mkdir(parents=True, exist_ok=True)
    with execution(
        asked,
        folder,
        command="python benchmarks/reference_federations.py",
        evidence="none",
        place=Place("processes", options.workers, "cpu"),
        watch=lambda opened: nullcontext(lambda event: None),
        note=print,
        budget=60 * options.minutes,
    ):
        found = references(asked, results_of(folder))
    kept = [one for one in read_references() if one.data != options.of]
    content = [asdict(one) for one in (*kept, *found)]
    FILE.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    rows = sum(len(s.defenses) for s in asked.scenarios)
    print(f"{len(found)} of {rows} federations of {options.of} have {LEAST} people or more")
    for hits in sorted({one.hits for one in found}):
        same = [one for one in found if one.hits == hits]
        names = ", ".join(f"{o.network}/{o.defense}/b{o.batch_size}/r{o.round}" for o in same)
        print(f"{hits} of {same[0].n}: {len(same)}: {names}")


if __name__ == "__main__":
    main()
