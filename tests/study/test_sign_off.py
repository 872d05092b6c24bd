"""Who stands for a run: the statement, the signature, and what shows an exchange of either."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from fedaudit.core.errors import ConfigError, RunFolderError
from fedaudit.study import hash_list
from fedaudit.study.sign_off import FILE, faults_of, read_sign_off, sign

STATEMENT = {
    "system": "face login ä",
    "auditor": "A. Lee",
    "scope": "one round",
    "custody": "vault 2",
    "retention": "ten years",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "cell.json").write_text("{}")
    hash_list.record(folder)
    return folder


def _key(folder: Path, name: str = "key") -> tuple[Path, Path]:
    private = ed25519.Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shown = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    paths = folder / f"{name}.pem", folder / f"{name}.pub"
    paths[0].write_bytes(pem)
    paths[1].write_bytes(shown)
    return paths


def _edit(run: Path, **changes: str) -> None:
    content = json.loads((run / FILE).read_text("utf-8")) | changes
    (run / FILE).write_text(json.dumps(content), "utf-8")


def test_a_signed_run_holds_and_is_read_as_it_was_written(run: Path, tmp_path: Path) -> None:
    private, public = _key(tmp_path)
    made = sign(run, STATEMENT, private)
    assert read_sign_off(run) == made
    assert made.root == hash_list.root(run)
    assert faults_of(run) == faults_of(run, public) == ()
    assert not hash_list.compare(run, hash_list.read(run)).added  # it is beside the list


def test_every_change_of_the_statement_shows(run: Path, tmp_path: Path) -> None:
    private, public = _key(tmp_path)
    made = sign(run, STATEMENT, private)
    for name in (*STATEMENT, "signed"):
        _edit(run, **{name: "other"})
        assert "does not fit" in faults_of(run)[0], name
        _edit(run, **{name: getattr(made, name)})
    assert faults_of(run, public) == ()


def test_another_run_another_key_and_no_signature_show(run: Path, tmp_path: Path) -> None:
    private, public = _key(tmp_path)
    other_private, other_public = _key(tmp_path, "other")
    sign(run, STATEMENT, private)
    assert "another key" in faults_of(run, other_public)[0]
    sign(run, STATEMENT, other_private)  # whoever can write the folder can sign it anew
    assert faults_of(run) == ()
    assert "another key" in faults_of(run, public)[0]
    sign(run, STATEMENT)
    assert faults_of(run) == ()
    assert "not signed" in faults_of(run, public)[0]
    (run / "more.json").write_text("{}")
    hash_list.record(run)
    assert "another state" in faults_of(run)[0]


def test_nothing_to_sign_and_nothing_said_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--scope must say"):
        sign(run, STATEMENT | {"scope": " "})
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="SHA256SUMS"):
        sign(empty, STATEMENT)
    _, public = _key(tmp_path)
    assert "no signoff.json" in faults_of(run, public)[0]


def test_what_is_no_key_is_refused(run: Path, tmp_path: Path) -> None:
    other = x25519.X25519PrivateKey.generate()
    wrong = tmp_path / "x.pem"
    wrong.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    text = tmp_path / "text.pem"
    text.write_text("no key")
    for path in (wrong, text, tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match="Ed25519"):
            sign(run, STATEMENT, path)
    sign(run, STATEMENT, _key(tmp_path)[0])
    with pytest.raises(ConfigError, match="public Ed25519"):
        faults_of(run, text)


@pytest.mark.parametrize("content", ["", "[]", '{"system": 3}', '{"system": "a"}'])
def test_a_damaged_sign_off_is_refused(run: Path, content: str) -> None:
    (run / FILE).write_text(content)
    with pytest.raises(RunFolderError, match=r"signoff.json' is damaged"):
        read_sign_off(run)
