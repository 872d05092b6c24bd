"""Nothing in a run folder is edited unnoticed: hashes, and the commands that name what differs."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from signing import edit_manifest, edit_record
from sound_run import command, serially

from fedaudit.files.atomic import write_atomically
from fedaudit.study import hash_list, session


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "run")


def verified(run: Path, *more: str) -> tuple[int, dict[str, Any]]:
    result = command("verify", run, "--json", *more)
    assert result.exception is None, result.exception
    return result.return_value, json.loads(result.output)


def cells(run: Path) -> list[Path]:
    return sorted((run / "cells").glob("*--audit--*.json"))


def test_a_sound_folder(run: Path) -> None:
    code, answer = verified(run)
    assert code == 0
    assert answer["sound"]
    there = {file.name for file in run.rglob("*") if file.is_file()}
    assert answer["files"] == len(there - hash_list.UNLISTED)
    stated = json.loads((run / "results.json").read_text())["this_run"]
    assert answer["root"] in stated.values()
    assert answer["root"] in (run / "report.html").read_text()
    assert verified(run, "--root", answer["root"].upper())[0] == 0
    assert verified(run, "--root", "0" * 64)[0] == 1
    alone = command("verify", run).output
    assert "nothing was altered since its list of hashes was written; who wrote that," in alone
    vouched = command("verify", run, "--root", answer["root"]).output
    assert vouched.rstrip().endswith("nothing was altered")


@pytest.mark.slow
def test_a_page_is_checked_by_its_path_and_after_it_left_the_folder(
    run: Path, tmp_path: Path
) -> None:
    assert verified(run / "report.html")[0] == 0
    mailed = tmp_path / "mailed.html"
    body = (run / "report.html").read_bytes()
    mailed.write_bytes(body)
    assert verified(run, "--page", str(mailed))[0] == 0
    mailed.write_bytes(body[:2000] + bytes([body[2000] ^ 1]) + body[2001:])
    code, answer = verified(run, "--page", str(mailed))
    assert code == 1
    (fault,) = answer["faults"]
    assert "mailed.html is not what follows" in fault
    assert "byte 2,001, in line" in fault
    alone = command("verify", mailed)
    assert "lies in no run folder" in str(alone.exception)
    mailed.write_bytes(b"")
    assert "byte 1, in line 1," in verified(run, "--page", str(mailed))[1]["faults"][0]


def test_the_list_is_one_that_sha256sum_reads(run: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    words = ["sha256sum", "--check", "--strict", "--quiet", hash_list.FILE]
    assert subprocess.run(words, cwd=run, check=False).returncode == 0
    cells(run)[0].write_text("{}")
    assert subprocess.run(words, cwd=run, check=False, capture_output=True).returncode == 1


def _score(body: dict[str, Any]) -> dict[str, Any]:
    body["images"][0] |= {"cosine": 0.99, "reidentified": True, "rank": 1}
    return body


def test_an_edited_score_is_named_by_report_and_verify(run: Path) -> None:
    """Though its own hash fits, and also after `report` wrote the results anew."""
    before = json.loads((run / "results.json").read_text())
    edit_record(cells(run)[0], _score)
    for _ in range(2):
        code, answer = verified(run)
        assert code == 1
        assert answer["differences"]["altered"] == [f"cells/{cells(run)[0].name}"]
        assert list(answer["damaged"]) == [cells(run)[0].stem]
        result = command("report", run)
        assert f"damaged, so not tested: {cells(run)[0].stem}" in result.stderr
        after = json.loads((run / "results.json").read_text())
        assert any("was altered since it was computed" in line for line in after["limitations"])
        counted = [row["measurement"]["n_targets"] for row in after["rows"]]
        assert sum(counted) == sum(r["measurement"]["n_targets"] for r in before["rows"]) - 1


@pytest.mark.slow
def test_a_run_computes_an_edited_cell_again(
    run: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_record(cells(run)[0], _score)
    monkeypatch.setattr(session, "execute", serially)
    result = command("run", sound.parent / "study.toml", "-o", run, "--workers", "1")
    assert "was altered since it was computed" in result.stderr
    assert verified(run)[0] == 0
    assert (run / "damaged" / cells(run)[0].name).exists()


def _results(run: Path) -> str:
    path = run / "results.json"
    content = json.loads(path.read_text())
    content["headline"]["sentence"] += " All is fine."
    path.write_text(json.dumps(content))
    return "results.json is not what follows"


def _page(run: Path) -> str:
    path = run / "report.html"
    path.write_text(path.read_text().replace("</h1>", " is fine</h1>", 1))
    return "report.html is not what follows"


def _limit(run: Path) -> str:
    edit_manifest(run, lambda content: _deep(content, "reid_limit", 0.9))
    return "study.json"


def _deep(content: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    content["study"][key] = value
    return content


def _removed(run: Path) -> str:
    cells(run)[1].unlink()
    return f"missing: cells/{cells(run)[0].name[:-10]}"


def _added(run: Path) -> str:
    shutil.copy(cells(run)[0], run / "cells" / "more.json")
    return "added: cells/more.json"


def _tensors(run: Path) -> str:
    path = cells(run)[0].with_suffix(".safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    return f"altered: cells/{path.name}"


def _gallery(run: Path) -> str:
    path = run / "gallery.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    return "altered: gallery.safetensors"


def _facts(run: Path) -> str:
    path = run / "facts.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"git_commit": "0" * 40}))
    return "altered: facts.json"


def _evidence(run: Path) -> str:
    path = next((run / "evidence").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    return f"altered: evidence/{path.name}"


def _list(run: Path) -> str:
    (run / hash_list.FILE).write_text("nonsense\n")
    return "is no list of hashes"


@pytest.mark.parametrize(
    "edit",
    [_results, _page, _limit, _removed, _added, _tensors, _gallery, _facts, _evidence, _list],
)
def test_every_edit_is_named(run: Path, edit: Callable[[Path], str]) -> None:
    what = edit(run)
    result = command("verify", run)
    if result.exception is None:
        assert result.return_value == 1
        assert what in result.output
    else:
        assert what in str(result.exception)


def test_a_report_says_what_was_altered_beside_cells(run: Path) -> None:
    _facts(run)
    command("report", run)
    limits = json.loads((run / "results.json").read_text())["limitations"]
    assert any("since the run wrote it: facts.json" in line for line in limits)


@pytest.mark.slow
def test_a_folder_without_a_list_is_said_not_to_be_checked(run: Path) -> None:
    (run / hash_list.FILE).unlink()
    command("report", run)
    code, answer = verified(run)
    assert code == 3
    assert answer["root"] == ""
    assert any("may go unnoticed" in line for line in answer["unchecked"])


def test_lines_of_unchanged_files_stay(run: Path) -> None:
    before = hash_list.read(run)
    write_atomically(run / "facts.json", b"{}")
    write_atomically(run / "new.json", b"{}")
    hash_list.record(run, {"study.json"})
    after = hash_list.read(run)
    assert after.keys() - before.keys() == {"new.json"}
    assert all(after[name] == before[name] for name in before)
    assert hash_list.compare(run, after).altered == ("facts.json",)


def test_a_signed_run_is_verified_and_its_page_names_the_auditor(run: Path) -> None:
    said = {
        "--system": "login",
        "--auditor": "A. Lee <b>",
        "--scope": "one round",
        "--custody": "vault",
        "--retention": "a year",
    }
    words = [word for pair in said.items() for word in pair]
    assert command("sign", run, *words).return_value == 0
    code, answer = verified(run)
    assert (code, answer["faults"]) == (0, [])
    assert "A. Lee &lt;b&gt;" in (run / "report.html").read_text()
    text = (run / "signoff.json").read_text()
    (run / "signoff.json").write_text(text.replace(answer["root"], "0" * 64))
    code, answer = verified(run)
    assert code == 1
    assert any("another state of this folder" in fault for fault in answer["faults"])
