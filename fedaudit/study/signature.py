"""Signatures of statements about a run by the keys of those who make them (Ed25519)."""

import json
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)

from fedaudit.core.errors import ConfigError, RunFolderError
from fedaudit.files import regular_file


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What somebody says of a run, and may sign.

    Attributes:
        signature: Of all other fields, Ed25519 in base64; "" without a key.
        key: The public key that fits it, raw, in base64; "" without.
    """

    signature: str = ""
    key: str = ""


S = TypeVar("S", bound=Statement)


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """A private key of a PEM file without a passphrase.

    Raises:
        ConfigError: There is none.
    """
    hint = "openssl genpkey -algorithm ed25519 -out key.pem"
    try:
        private = load_pem_private_key(regular_file.read_bytes(path, 10_000), password=None)
    except (OSError, RunFolderError, ValueError, TypeError) as error:
        raise _no_key(path, "private", hint) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise _no_key(path, "private", hint)
    return private


def public_part(private: Ed25519PrivateKey) -> str:
    """The public key that fits, raw, in base64."""
    return b64encode(_raw(private.public_key())).decode()


def signed(statement: S, private: Ed25519PrivateKey) -> S:
    """The statement with the public key that fits, and the signature of all its other fields."""
    made = replace(statement, key=public_part(private))
    return replace(made, signature=b64encode(private.sign(_message(made))).decode())


def holds(statement: Statement) -> bool:
    """Whether the signature of a statement is of what it says, by the key that it names."""
    try:
        public = Ed25519PublicKey.from_public_bytes(b64decode(statement.key, validate=True))
        public.verify(b64decode(statement.signature, validate=True), _message(statement))
    except (InvalidSignature, ValueError):
        return False
    return True


def _message(statement: Statement) -> bytes:
    """What is signed: every field but the signature, in one spelling."""
    content = {name: value for name, value in asdict(statement).items() if name != "signature"}
    return json.dumps(content, sort_keys=True, ensure_ascii=True).encode()


def read_public_key(path: Path) -> str:
    """A public key of a PEM file, raw, in base64.

    Raises:
        ConfigError: There is none.
    """
    try:
        return b64encode(_raw(load_pem_public_key(regular_file.read_bytes(path, 10_000)))).decode()
    except (OSError, RunFolderError, ValueError, AttributeError) as error:
        hint = "openssl pkey -in key.pem -pubout -out key.pub"
        raise _no_key(path, "public", hint) from error


def _raw(public: Any) -> bytes:
    raw: bytes = public.public_bytes_raw()
    return raw


def _no_key(path: Path, which: str, command: str) -> ConfigError:
    return ConfigError(
        f"{str(path)!r} is no {which} Ed25519 key in PEM without a passphrase. `{command}` makes "
        "one."
    )
