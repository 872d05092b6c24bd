"""What a forger does who knows the formats: edit, and write the hashes that fit."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedaudit.study import job_record, manifest
from fedaudit.study.study_file import canonical, digest, study_from_mapping

Edit = Callable[[Any], Any]
"""Takes what a file says, and returns what it shall say; may change it in place."""


def edit_record(path: Path, edit: Edit) -> None:
    """Change the body of a cell, a model or a measurement; its own hash fits again."""
    record = json.loads(path.read_text(encoding="utf-8"))
    record["body"] = edit(record["body"])
    seal_record(path, record)


def seal_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record with the hash of what it says, and that of the tensors beside it."""
    tensors = path.with_suffix(".safetensors")
    if tensors.is_file():
        record["sha256"] = hashlib.sha256(tensors.read_bytes()).hexdigest()
    record["record"] = job_record.hash_of_record(record)
    path.write_text(json.dumps(record), encoding="utf-8", errors="surrogatepass")


def edit_manifest(run: Path, edit: Edit) -> None:
    """Change `study.json`; digest and hash fit again, where the study is one."""
    path = run / manifest.FILE
    content = edit(json.loads(path.read_text(encoding="utf-8")))
    with contextlib.suppress(Exception):  # then it is refused for what it says
        content["digest"] = digest(study_from_mapping(content["study"]))
    rest = {key: value for key, value in content.items() if key != "sha256"}
    text = canonical(rest).encode("utf-8", "surrogatepass")
    content["sha256"] = hashlib.sha256(text).hexdigest()
    path.write_text(json.dumps(content), encoding="utf-8")
