"""Who stands for an audit, of what, and until when: `signoff.json` of a run folder.

It names the root of the folder's hashes, and so the very run that somebody signed for. With a key
it is signed (Ed25519): then neither statement nor run can be exchanged without the key.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedaudit.core.errors import ConfigError, RunFolderError
from fedaudit.files import regular_file
from fedaudit.files.atomic import write_atomically
from fedaudit.study import hash_list, signature
from fedaudit.study.signature import Statement
from fedaudit.study.stored_values import read_as

FILE = "signoff.json"


@dataclass(frozen=True)
class SignOff(Statement):
    """A statement about a run, in the words of who made it.

    Attributes:
        system: What was audited.
        auditor: Who stands for it.
        scope: What the audit covers, and what it does not.
        custody: Who keeps the run folder, and where.
        retention: How long it is kept, or until when.
        signed: ISO time, UTC.
        root: SHA-256 of `SHA256SUMS` of the run that is meant.
    """

    system: str
    auditor: str
    scope: str
    custody: str
    retention: str
    signed: str
    root: str


def read_sign_off(folder: Path) -> SignOff | None:
    """The sign-off of a run folder; None where nobody signed.

    Raises:
        RunFolderError: The file is damaged.
    """
    path = folder / FILE
    try:
        return read_as(SignOff, regular_file.read_json(path), path)
    except FileNotFoundError:
        return None
    except RunFolderError as error:
        raise RunFolderError(
            f"{str(path)!r} is damaged. `fedaudit sign` writes it again; or delete it."
        ) from error


def sign(folder: Path, statement: Mapping[str, str], key: Path | None = None) -> SignOff:
    """Write `signoff.json` for the run as it is now.

    Args:
        folder: A finished run folder.
        statement: The five texts of `SignOff`, by their names.
        key: A private Ed25519 key in PEM, without a passphrase; none leaves it unsigned.

    Raises:
        ConfigError: A text is empty, or the key is none; the folder has no list of hashes.
        StorageError: The folder cannot be written.
    """
    empty = [name for name, text in statement.items() if not text.strip()]
    if empty:
        raise ConfigError(f"--{empty[0]} must say something: a reader will hold you to it.")
    root = hash_list.root(folder)
    if not root:
        raise ConfigError(
            f"{str(folder)!r} has no {hash_list.FILE}, so that nothing could be signed for. Finish "
            "the run: `fedaudit run` writes it."
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    sign_off = SignOff(**statement, signed=now, root=root)
    if key is not None:
        sign_off = signature.signed(sign_off, signature.read_private_key(key))
    text = json.dumps(asdict(sign_off), indent=1, sort_keys=True, ensure_ascii=False)
    write_atomically(folder / FILE, (text + "\n").encode())
    return sign_off


def faults_of(folder: Path, public_key: Path | None = None) -> tuple[str, ...]:
    """What is wrong with a sign-off, a sentence each; empty where it holds, or there is none.

    Args:
        folder: The run folder.
        public_key: The signer's, in PEM, as it came to you another way. Without it a signature
            shows only that its key made it, whoever has that key.
    """
    sign_off = read_sign_off(folder)
    if sign_off is None:
        return ("There is no signoff.json to check against the key.",) if public_key else ()
    faults = []
    if sign_off.root != hash_list.root(folder):
        faults.append("signoff.json is of another state of this folder: its root differs.")
    if sign_off.signature and not signature.holds(sign_off):
        faults.append("The signature of signoff.json does not fit what it says.")
    if public_key is not None:
        if not sign_off.signature:
            faults.append("signoff.json is not signed.")
        elif signature.read_public_key(public_key) != sign_off.key:
            faults.append("signoff.json is signed with another key.")
    return tuple(faults)
