"""Claims of differential privacy in files: read, never run."""

import sys
from pathlib import Path

import pytest

from fedaudit.captures.claims.protection_catalog import CATALOG, judge
from fedaudit.captures.claims.relaxed_json import parse
from fedaudit.captures.claims.stated_mechanism import RunSize, StatedMechanism
from fedaudit.core.errors import UsageError
from fedaudit.study.read_claims import read_claims

sys.path.insert(0, str(Path(__file__).parent))
from claim_files import script, write_app


def test_every_entry_of_the_catalog_answers_to_nothing_and_to_anything() -> None:
    for name, entry in CATALOG.items():
        for value in (None, "x", -1.0, 0.0, 1e300, True, ("a",)):
            settings = {} if value is None else dict.fromkeys(entry.positions, value)
            verdict = judge(
                StatedMechanism(name=name, place="", settings=settings), RunSize(rounds=2)
            )
            assert verdict.standing in {"guarantee", "heuristic", "contradicted", "no claim"}
            if value in (None, "x"):
                assert verdict.standing != "guarantee"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = ${HOME}", "refers to something else"),
        ("include url(x)", "refers to something else|has no value|stands where"),
        ("a = [1, 2", "ends in the middle"),
        ("a = {" * 100, "too deeply"),
        ("[" * 100_000, "too deeply"),
        ('a = "x" } b', "stands"),
    ],
)
def test_what_a_job_file_may_not_hold(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"def (", b"x" * 2_000_001, b"\0"])
def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_judged(
    tmp_path: Path, content: bytes
) -> None:
    app = write_app(tmp_path, "1.0, 2.0, 1.0, DELTA")
    (app / "broken.py").write_bytes(content)
    report = read_claims(app, RunSize())
    assert [verdict.mechanism for verdict in report.verdicts] == ["LocalDpMod"]
    assert len(report.problems) == 1
    assert "broken.py" in report.problems[0]


def test_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere = script(tmp_path / "elsewhere", "make_private(noise_multiplier=1.0)")
    app = write_app(tmp_path / "app", "1.0, 2.0, 1.0, DELTA")
    (app / "linked").symlink_to(elsewhere)
    (app / "linked.py").symlink_to(elsewhere / "train.py")
    assert [v.mechanism for v in read_claims(app, RunSize()).verdicts] == ["LocalDpMod"]


def test_a_folder_of_nothing_and_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no capture, no NVFlare job"):
        read_claims(tmp_path, RunSize())
    with pytest.raises(UsageError, match="there is no"):
        read_claims(tmp_path / "absent", RunSize())
    with pytest.raises(UsageError, match="larger than 1/n"):
        read_claims(tmp_path, RunSize(delta=0.5, clients=8))
