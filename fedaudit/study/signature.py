"""Signatures of statements about a run by the keys of those who make them (Ed25519)."""

from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

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


def sign_message(private: Ed25519PrivateKey, message: bytes) -> str:
    """The signature of a message, in base64."""
    return b64encode(private.sign(message)).decode()


def fits(key: str, signature: str, message: bytes) -> bool:
    """Whether a signature is of a message by a key, both as the functions above write them."""
    try:
        public = Ed25519PublicKey.from_public_bytes(b64decode(key, validate=True))
        public.verify(b64decode(signature, validate=True), message)
    except (InvalidSignature, ValueError):
        return False
    return True


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
