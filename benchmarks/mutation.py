"""Mutation testing: which small faults in statistics, claims, verdicts and noise no test notices.

    python benchmarks/mutation.py                          # all modules, 60 mutants of each
    python benchmarks/mutation.py fedaudit/stats/units.py --sample 0    # every mutant of one

Each mutant is the module with one operator, comparison, number, truth value or condition exchanged
(by Cosmic Ray's operators), or with one of the faults of `PLANTED`, which all are tried. It is
killed where one of the tests that stand beside the module in `TESTS` fails. Survivors are shown as
differences on stderr: each asks for a better test, for less code, or for a reason why it is
equivalent. A copy of the checkout is mutated, never the checkout. Half an hour of one processor.
"""

import argparse
import difflib
import importlib
import math
import os
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cosmic_ray.mutating
import cosmic_ray.plugins

ROOT = Path(__file__).parents[1]
COPIED = ("fedaudit", "attacks", "defenses", "reports", "tests", "pyproject.toml")
CLAIMS = (
    "tests/defenses/test_composition.py",
    "tests/federation/test_claim_scope.py",
    "tests/federation/test_keeping_claims.py",
    "tests/federation/test_claim_sensitivity.py",
)
KEEPS = f"{CLAIMS[2]}::test_keeping_claims_is_to_read_nothing_but_the_update"
VERDICTS = tuple(
    f"tests/reports/test_{name}.py" for name in ("verdict_numbers", "verdicts", "planted_bad")
)
TESTS: dict[str, tuple[str, ...]] = {
    "fedaudit/stats/clustered_rates.py": ("tests/stats/test_clustered_rates.py",),
    "fedaudit/stats/crossed.py": ("tests/stats/test_crossed.py",),
    "fedaudit/stats/intervals.py": ("tests/stats/test_intervals.py",),
    "fedaudit/stats/drawn_p_values.py": ("tests/stats/test_drawn_p_values.py",),
    "fedaudit/stats/randomization.py": ("tests/stats/test_randomization.py",),
    "fedaudit/stats/rare_matches.py": ("tests/stats/test_rare_matches.py",),
    "fedaudit/stats/units.py": ("tests/stats/test_units.py",),
    "fedaudit/core/claims.py": CLAIMS[:1],
    "fedaudit/defenses/composition.py": CLAIMS,
    "fedaudit/defenses/accounting.py": ("tests/defenses/test_accounting.py", *CLAIMS[:1]),
    "fedaudit/defenses/dpsgd.py": ("tests/defenses/test_dpsgd.py",),
    "fedaudit/defenses/dplc.py": ("tests/defenses/test_dplc.py",),
    "fedaudit/defenses/client_dp.py": ("tests/defenses/test_client_dp.py",),
    "fedaudit/defenses/noise.py": (
        "tests/defenses/test_noise.py",
        f"{KEEPS}[gaussian_noise]",
        f"{KEEPS}[laplace_noise]",
    ),
    "fedaudit/defenses/clipping.py": ("tests/defenses/test_clipping.py", f"{KEEPS}[clipping]"),
    "fedaudit/reports/verdicts.py": VERDICTS,
    "fedaudit/reports/power.py": VERDICTS,
    "fedaudit/reports/identity_tests.py": ("tests/reports/test_identity_tests.py",),
}
"""What kills a module's mutants; a module's own examples count, too."""
PLANTED: dict[str, tuple[tuple[str, str], ...]] = {
    "fedaudit/defenses/dplc.py": (
        ("self.sensitivity(len(members))", "self.sensitivity(len(rows))"),
        ("rows[members], dim=1).mean(0)", "rows, dim=1).mean(0)"),
        ("3 * self.radius)", "2 * self.radius)"),
        ("{1: math.inf, 2:", "{2:"),
    ),
    "fedaudit/defenses/client_dp.py": (
        ("2 * noise_for", "noise_for"),
        ("return 2 * laplace_noise_for", "return laplace_noise_for"),
        ("self._std(self.noises[0]) * self.max_norm", "self._std(self.noises[0])"),
    ),
    "fedaudit/reports/verdicts.py": (("return test.adjusted <=", "return test.p_value <="),),
    "fedaudit/core/claims.py": (("max(group", "min(group"),),
}
"""Faults of the kind that a hand makes and no operator does: (text, in its place)."""
EXCHANGED = (
    *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Pow_Mul", "Mod_Add"),
    *("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "Gt_LtE"),
    *("LtE_Gt", "GtE_Lt", "Is_IsNot", "IsNot_Is", "USub_UAdd", "Delete_Not"),
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr"),
    *("ReplaceOrWithAnd", "NumberReplacer", "ZeroIterationForLoop", "ReplaceBreakWithContinue"),
)
"""Cosmic Ray's operators by the ends of their names: near misses, not nonsense."""
NO_FAULT = ("strict=False", "    /,", " /, ", "\n-@dataclass", "-> Literal[")
"""In exchanges that change no result: what `zip` refuses, how arguments may be given, types."""
QUIET = ["-q", "-x", "-n0", "-pno:cacheprovider", "--hypothesis-profile=mutation", "-mnot slow"]


@dataclass(frozen=True)
class Mutant:
    """A module with one fault."""

    path: str
    code: str
    change: str


def mutants(path: str, code: str, wanted: int, seed: int) -> tuple[list[Mutant], int]:
    """The planted faults and `wanted` of the others (0: all); how many others there are."""
    planted = []
    for text, instead in PLANTED.get(path, ()):
        if code.count(text) != 1:
            raise SystemExit(f"PLANTED is out of date: {text!r} is not once in {path}")
        planted.append(_mutant(path, code, code.replace(text, instead)))
    others = list(_exchanged(path, code))
    drawn = random.Random(f"{seed} {path}").sample(others, min(wanted or len(others), len(others)))
    return [*planted, *drawn], len(others)


def _exchanged(path: str, code: str) -> Iterator[Mutant]:
    for name in cosmic_ray.plugins.operator_names():
        if not name.endswith(EXCHANGED):
            continue
        operator = cosmic_ray.plugins.get_operator(name)()
        for occurrence in range(len(code)):
            text = cosmic_ray.mutating.mutate_code(code, operator, occurrence)
            if text is None:
                break
            mutant = _mutant(path, code, text)
            if text != code and not any(none in mutant.change for none in NO_FAULT):
                yield mutant


def _mutant(path: str, code: str, text: str) -> Mutant:
    lines = difflib.unified_diff(code.splitlines(), text.splitlines(), lineterm="", n=0)
    return Mutant(path, text, "\n".join(line for line in lines if line[:3] not in ("---", "+++")))


def run_tests(folder: Path, mutant: Mutant, seconds: float) -> tuple[bool, float]:
    """Whether all tests pass, in a child that has imported all but the project; its CPU seconds."""
    file = folder / mutant.path
    before = file.read_text()
    file.write_text(mutant.code)
    child = os.fork()
    if not child:
        _tests_in_child(
            [str(folder / path) for path in (*TESTS[mutant.path], mutant.path)], seconds
        )
    _, status, usage = os.wait4(child, 0)
    file.write_text(before)
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*"):
        compiled.unlink()  # a mutant of the same second and size would pass for it
    return os.waitstatus_to_exitcode(status) == 0, usage.ru_utime + usage.ru_stime


def _tests_in_child(paths: list[str], seconds: float) -> None:
    import pytest  # noqa: PLC0415 - in the child
    from hypothesis import HealthCheck, Phase, settings  # noqa: PLC0415

    # The same examples for every mutant, and no search for a smaller one: failing is enough.
    slow = [HealthCheck.too_slow]
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile(
        "mutation", derandomize=True, deadline=None, suppress_health_check=slow, phases=phases
    )
    out = os.open(os.devnull, os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    limit = math.ceil(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))  # a loop without end is a fault, too
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ignored = ["-Wignore::pytest.PytestAssertRewriteWarning"]
    os._exit(int(pytest.main([*QUIET, *ignored, *paths])))


def prepare(folder: Path) -> None:
    """Copy the checkout, and import what others wrote, so that each child need not."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source,
                folder / name,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        else:
            shutil.copy(source, folder / name)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    for name in (
        "pytest",
        "hypothesis",
        "torch",
        "fedaudit.study.run_cell",
        "fedaudit.reports.build",
    ):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "fedaudit"]:
        del sys.modules[name]


def main() -> None:
    """Try the mutants of the chosen modules, and print a table and the survivors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", default=list(TESTS), metavar="MODULE")
    parser.add_argument("--sample", type=int, default=60, help="mutants of a module; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder)
        print("| module | mutants | tried | killed | survived |\n|---|---|---|---|---|", flush=True)
        for path in options.modules:
            code = (folder / path).read_text()
            passes, seconds = run_tests(folder, Mutant(path, code, ""), 600)
            if not passes:
                raise SystemExit(f"the tests of {path} fail without a mutant")
            tried, others = mutants(path, code, options.sample, options.seed)
            left = [one for one in tried if run_tests(folder, one, 1.5 * seconds + 1)[0]]
            count = others + len(tried) - min(options.sample or others, others)
            row = (path, count, len(tried), len(tried) - len(left), len(left))
            print(f"| `{row[0]}` | {' | '.join(map(str, row[1:]))} |", flush=True)
            for one in left:
                print(one.change, file=sys.stderr, flush=True)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
