"""SARIF holds to the schema of SARIF 2.1.0 itself, as Microsoft's package for tests ships it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from npm import npm_package
from sample import sample
from test_html import hostile

from fedaudit.reports.sarif import sarif

pytestmark = pytest.mark.slow  # it fetches a package


def test_sarif_holds_to_the_schema(tmp_path: Path) -> None:
    package = npm_package("@microsoft/jest-sarif@1.0.0-beta.0", tmp_path)
    schema = json.loads((package / "lib/schemas/sarif-2.1.0-rtm.5.json").read_text("utf-8-sig"))
    assert "2.1.0" in schema["title"]
    judge = jsonschema.validators.validator_for(schema)(schema)
    none = replace(sample(), findings=())
    undecided = replace(none, headline=replace(none.headline, kind="INVALID"))
    for results in (sample(), none, undecided, hostile(sample())):
        document = json.loads(sarif(results, "studies/faces of 2026.toml"))
        assert [error.message for error in judge.iter_errors(document)] == []
        assert "faces%20of%202026" in json.dumps(document) or not results.findings
    broken = json.loads(sarif(sample(), "a.toml"))
    broken["runs"][0]["results"][0]["level"] = "fatal"
    assert list(judge.iter_errors(broken))
