"""How strong must an attack be before its failure says anything of a defense?

    python benchmarks/attack_power.py                # about 15 CPU minutes
    python benchmarks/attack_power.py --targets 4    # a look at it

The same attack (`gan_inversion`) at growing effort, on updates of one photo of a fresh face network
(ORL at 32 px, FedAvg), without a defense and under two weak ones that the full attack breaks. An
attack that finds nobody under a defense is a false witness wherever the full attack finds many
there. `clean` says whether the bar of `fedaudit.reports.power` lets it be a witness at all; under a
defense it is none, either, that is searched for in another way than without one (its ways follow).
Rates are over people, with exact 95 % intervals; the last line is the ceiling of the originals.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import fedaudit
from fedaudit.core.scenario import Choice, Federation, Scenario, Study, with_keys
from fedaudit.reports.power import POWER
from fedaudit.reports.verdicts import rate_text

EFFORTS = (0.02, 0.1, 0.3, 1.0)
FULL = {"candidates": 64, "latent_steps": 10, "stage_steps": 30, "pixel_steps": 80}
DEFENSES = (
    Choice("none"),
    Choice("top_k", {"pruned": 0.9}),
    Choice("gaussian_noise", {"std": 0.1, "of": "norm"}),
)


def study(targets: int) -> Study:
    """Growing efforts against no defense and two weak ones."""
    attacks = tuple(
        Choice(
            "gan_inversion",
            {key: max(1, round(value * effort)) for key, value in FULL.items()},
            label=f"effort-{effort:g}",
        )
        for effort in EFFORTS
    )
    scenario = Scenario(
        "fresh",
        method=Choice("fedavg"),
        targets=targets,
        defenses=DEFENSES,
        attacks=attacks,
        controls=False,
    )
    federation = with_keys(Federation(clients=3), {"lr": 0.05})
    return Study("power", (scenario,), size=32, federation=federation, utility=False)


def main() -> None:
    """Run it and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        results = fedaudit.audit(study(asked.targets), output=path, workers=asked.workers).results
    (ceiling,) = results.ceilings
    bar = POWER * ceiling.reid.value
    for row in sorted(results.rows, key=lambda row: float(row.attack.rpartition("-")[2])):
        assert row.reid
        if row.defense == "none":
            witness = "yes" if row.reid.value >= bar else "no"
            print(f"{row.attack}: clean {witness}")
        assert row.measurement
        assert row.measurement.effort
        print(
            f"  {row.defense}: {rate_text(row.reid)}, {' and '.join(row.measurement.effort.ways)}"
        )
    print(f"bar {bar:.0%}, half of the ceiling: {rate_text(ceiling.reid)}")


if __name__ == "__main__":
    main()
