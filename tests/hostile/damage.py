"""Damaged and forged run folders and studies, made by code: always the same ones."""

import copy
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from signing import edit_manifest, seal_record

EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\x00\x7f\u2066 <script>alert(1)</script>"
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2**31, 2**63, 10**400, 10**4200, 0.5, -0.0, 1e308, -1e308, 1e-320,
    float("nan"), float("inf"), "", "x", "1", EVIL, "../../../etc/passwd", "os:system", "\ud800",
    "9" * 5000, "y" * 200_000, [], {}, [[]], [None], [0.5, 1e308], ["a"] * 1000, {"": {"": {}}},
    {EVIL: EVIL}, {"name": "os:system", "label": "x", "command": "touch CANARY"},
)  # fmt: skip
Leaf = tuple[str | int, ...]


def leaves(content: Any, place: Leaf = ()) -> Iterator[Leaf]:
    """The places of everything in plain data, tables and lists included."""
    yield place
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, (*place, key))
    elif isinstance(content, list):
        for key, value in list(enumerate(content))[:3]:
            yield from leaves(value, (*place, key))


def changed(content: Any, place: Leaf, change: Callable[[Any, Any], None]) -> Any:
    """A copy in which something was done to one place of it."""
    content = copy.deepcopy(content)
    inside = content
    for key in place[:-1]:
        inside = inside[key]
    change(inside, place[-1])
    return content


def forged(content: Any, draw: random.Random, canary: Path) -> Any:
    """A copy that says something else in one place, or in a few."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        places = [place for place in leaves(content) if place]
        if not places:
            return content
        content = changed(content, draw.choice(places), lambda i, k: _forge(i, k, draw, canary))
    return content


def _forge(inside: Any, key: Any, draw: random.Random, canary: Path) -> None:
    kind = draw.randrange(10)
    if kind == 0:
        del inside[key]
    elif kind == 1 and isinstance(inside, dict):
        inside[draw.choice((EVIL, "", "name", "x" * 300, "../x"))] = inside[key]
    elif kind == 2 and isinstance(inside, list):
        inside.extend(copy.deepcopy(inside[:50]))
    elif kind == 3:
        deep: Any = inside[key]
        for _ in range(draw.choice((3, 40, 90))):
            deep = [deep]
        inside[key] = deep
    elif kind == 4 and isinstance(inside[key], str):
        inside[key] += EVIL
    elif kind == 5 and isinstance(inside[key], int | float):
        inside[key] = inside[key] * draw.choice((-1, 10**9, 10**30, 1e300))
    else:
        value = copy.deepcopy(draw.choice(VALUES))
        if isinstance(value, dict) and "command" in value:
            value["command"] = f"touch {canary}"
        inside[key] = value


def forge_file(run: Path, name: str, draw: random.Random, canary: Path) -> None:
    """Say something else in a JSON file of a run folder, with hashes that fit."""
    path = run / name
    content = json.loads(path.read_text(encoding="utf-8"))
    if name == "study.json":
        edit_manifest(run, lambda _: forged(content, draw, canary))
    elif "record" in content and draw.random() < 0.9:
        content["body"] = forged({"body": content["body"]}, draw, canary).get("body")
        seal_record(path, content)
    else:
        path.write_text(json.dumps(forged(content, draw, canary)), encoding="utf-8")


def forge_tensors(path: Path, draw: random.Random) -> None:
    """Other types, shapes, names or numbers in a safetensors file; the record beside it fits."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    name = draw.choice(names) if names else "w"
    entry = header.setdefault(name, {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
    kind = draw.randrange(7)
    if kind == 0:
        entry["shape"] = draw.choice(([], [1], [-1], [2**40], [0], [10**30], ["a"], [1] * 100))
    elif kind == 1:
        entry["dtype"] = draw.choice(("F64", "I8", "BOOL", "BF16", "F8_E4M3", "X", 7))
    elif kind == 2:
        header[draw.choice(("../x", EVIL, "", "reference/", "x" * 5000))] = header.pop(name)
    elif kind == 3:
        del header[name]
    elif kind == 4:
        header["__metadata__"] = draw.choice(({}, {"sha256": "0" * 64}, [], 3, {"sha256": EVIL}))
    body = content[8 + length :]
    if kind == 5:
        body = struct.pack("<f", draw.choice((float("nan"), float("inf"), 1e38))) * (len(body) // 4)
    elif kind == 6:
        body = b""
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    record = path.with_suffix(".json")
    if record.is_file():
        seal_record(record, json.loads(record.read_text(encoding="utf-8")))


def damage_bytes(path: Path, draw: random.Random) -> None:
    """Cut off, flipped, doubled, emptied or replaced, as no forger would."""
    content = path.read_bytes()
    place = draw.randrange(max(1, len(content)))
    kind = draw.randrange(6)
    replaced = (
        b"",
        b"\x00" * 100,
        b"[" * 100_000,
        b"9" * 5000,
        b"\xff\xfe",
        b'{"a":1,"a":2}',
        b"3",
    )
    path.write_bytes(
        content[:place]
        if kind == 0
        else content[:place]
        + bytes([content[place] ^ 1 << draw.randrange(8)])
        + content[place + 1 :]
        if kind == 1 and content
        else content[:place] * 2
        if kind == 2
        else content + content
        if kind == 3
        else draw.choice(replaced)
    )


def replace_file(path: Path, draw: random.Random) -> None:
    """Something else than a file under its name."""
    path.unlink()
    kind = draw.randrange(8)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to("/dev/zero")
    elif kind == 3:
        path.symlink_to("/etc/passwd")
    elif kind == 4:
        path.symlink_to(path)
    elif kind == 5:
        path.symlink_to(path.parent)
    elif kind == 6:
        with path.open("wb") as file:
            file.truncate(1 << 40)  # takes no room
    # else it is gone


def replace_folder(run: Path, draw: random.Random) -> None:
    """A folder of the run, or a file that it writes, is a link, a pipe or a file."""
    names = ("cells", "models", "evidence", "damaged", "unfinished", "failed", ".leases",
             "log.jsonl", "results.json", "report.html", "SHA256SUMS")  # fmt: skip
    path = run / draw.choice(names)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    kind = draw.randrange(4)
    if kind == 0:
        path.symlink_to(run.parent / "elsewhere")
    elif kind == 1:
        path.write_text("x")
    elif kind == 2:
        os.mkfifo(path)
    else:
        path.mkdir()
        (path / "inside").write_text("x")


def damage(run: Path, draw: random.Random, canary: Path) -> str:
    """One fault of a run folder, as a word for it."""
    if draw.random() < 0.9:  # it would name the fault, and a forger can write another
        (run / "SHA256SUMS").unlink()
    files = sorted(p for p in run.rglob("*") if p.is_file() and not p.name.startswith("."))
    tables = [p for p in files if p.suffix == ".json" and p.name != "results.json"]
    kind = draw.choice(("forge", "forge", "forge", "tensors", "bytes", "replace", "folder", "log"))
    if kind == "forge":
        # A quarter of them the study, as it has most to say.
        path = draw.choice(tables) if draw.random() < 0.75 else run / "study.json"
        forge_file(run, path.relative_to(run).as_posix(), draw, canary)
    elif kind == "tensors":
        path = draw.choice([p for p in files if p.suffix == ".safetensors"])
        forge_tensors(path, draw)
    elif kind == "bytes":
        path = draw.choice(files)
        damage_bytes(path, draw)
    elif kind == "replace":
        path = draw.choice(files)
        replace_file(path, draw)
    elif kind == "folder":
        path = run
        replace_folder(run, draw)
    else:
        path = run / "log.jsonl"
        event = {"event": "failed", "key": EVIL, "message": EVIL * 10, "seconds": 1}
        line = json.dumps(forged(event, draw, canary))
        session = json.dumps({"event": "session", "seconds": draw.choice(VALUES)})
        path.write_text(f"{line}\n{session}\n{'[' * 5000}\n", encoding="utf-8")
    return f"{kind} {path.name}"


def study_text(sound: str, draw: random.Random, canary: Path) -> bytes:
    """A study file that nobody meant."""
    kind = draw.randrange(5)
    content = sound.encode()
    place = draw.randrange(len(content))
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
    lines = sound.split("\n")
    number = draw.choice([k for k, line in enumerate(lines) if "=" in line])
    key = lines[number].split("=", 1)[0]
    values = (
        "nan", "inf", "-1", "0", "1e400", "9" * 5000, "[" * 5000, "[]", "{}", '""', "true", "[nan]",
        f'"{"x" * 100_000}"', '"../../x"', '"\\u001b[2J\\u202e"', '"\\u0000"', "2147483648",
        "1979-05-27", '{name = "os:system", command = "touch CANARY"}', '["os:system"]',
        '"os:system"', "{a = {a = {a = {a = 1}}}}", "1_000_000",
        '[{name = "top_k", sweep = {pruned = [1, 2, 3]}}]',
    )  # fmt: skip
    value = draw.choice(values).replace("CANARY", str(canary))
    lines[number] = f"{key} = {value}" if kind < 4 else f"{lines[number]}\n{lines[number]}"
    return "\n".join(lines).encode()
