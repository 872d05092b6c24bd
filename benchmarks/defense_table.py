"""What the attacks of a finished run bring back under each defense, side by side.

    fedaudit run examples/subspace_defenses.toml --output RUN
    python benchmarks/defense_table.py RUN

A row a defense and a column an attack, as the study calls them: means over the run's photos of SSIM
and LPIPS, and where the right person stands among the people of the set. `fedaudit compare` prints
the strongest attack on each defense alone.
"""

import argparse
from collections.abc import Sequence
from statistics import mean

import fedaudit


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN")
    trials = [
        trial
        for trial in fedaudit.load(parser.parse_args(arguments).run).trials
        if trial["role"] == "audit"
    ]
    attacks = list(dict.fromkeys(trial["attack"] for trial in trials))
    attacks.sort(key=lambda name: name != "blind")
    print("| defense |", " | ".join(attacks), "|")
    print("|---" * (len(attacks) + 1) + "|")
    for defense in dict.fromkeys(trial["defense"] for trial in trials):
        cells = [defense]
        for attack in attacks:
            own = [t for t in trials if (t["defense"], t["attack"]) == (defense, attack)]
            cells.append(cell(own, told=attack != "blind") if own else "—")
        print("|", " | ".join(cells), "|")


def cell(trials: Sequence[dict[str, object]], *, told: bool) -> str:
    """SSIM, LPIPS, rank."""
    ssim, lpips, rank = (
        mean(float(str(t[key])) for t in trials) for key in ("ssim", "lpips", "rank")
    )
    words = {"no"} & {str(t["adaptive"]) for t in trials} if told else ()
    return f"{ssim:.2f}, {lpips:.2f}, {rank:g}" + "".join(f" (“adaptive: {w}”)" for w in words)


if __name__ == "__main__":
    main()
