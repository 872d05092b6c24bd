"""Files that only the holder of a key can read: the age format (X25519, ChaCha20-Poly1305).

What is written needs a recipient, which is public; what is read needs its identity, which never
comes near the machine that runs an audit. Altered bytes are refused, not decrypted. Any age tool
opens the same files. https://age-encryption.org/v1
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from fedaudit.core.errors import ConfigError, RunFolderError
from fedaudit.files import regular_file
from fedaudit.files.atomic import write_atomically

SUFFIX = ".age"
_LONGEST_KEY = 20_000


def seal(content: bytes, recipients: Sequence[str]) -> bytes:
    """Encrypt for one or more recipients; the same content is other bytes each time.

    Args:
        content: What to protect.
        recipients: Public keys, `age1…` or `ssh-ed25519 …`; the identity of any one opens it.

    Raises:
        ConfigError: A key is none.
    """
    keys = [_recipient(text) for text in recipients]
    ciphertext: bytes = _pyrage().encrypt(content, keys)
    return ciphertext


def unseal(path: Path, identity: Path, largest: int = regular_file.LARGEST) -> bytes:
    """What a sealed file holds.

    Args:
        path: The sealed file.
        identity: File of the private key: what `age-keygen` writes, or an SSH key (Ed25519).
        largest: Bytes that are read at most.

    Raises:
        FileNotFoundError: There is no sealed file.
        ConfigError: The identity is none.
        RunFolderError: It does not open the file, or the file was altered.
    """
    keys = _identities(identity)
    content = regular_file.read_bytes(path, largest)
    try:
        plaintext: bytes = _pyrage().decrypt(content, keys)
    except _pyrage().DecryptError as error:
        raise RunFolderError(
            f"{str(path)!r} cannot be opened with {str(identity)!r}: it is sealed for another key, "
            "or was altered. `fedaudit verify` says which files were altered."
        ) from error
    return plaintext


def check_recipients(recipients: Sequence[str]) -> None:
    """Refuse keys that nothing can be sealed for, before anything runs.

    Raises:
        ConfigError: Says which, and why.
    """
    for text in recipients:
        _recipient(text)


def make_identity(path: Path) -> str:
    """Write a new private key, and return its public part, the recipient.

    Raises:
        ConfigError: The file exists.
        StorageError: It cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{str(path)!r} exists, and a key is not overwritten. Choose another.")
    identity = _pyrage().x25519.Identity.generate()
    public = str(identity.to_public())
    write_atomically(path, f"# public key: {public}\n{identity}\n".encode())
    return public


def _recipient(text: str) -> Any:
    kinds = _pyrage()
    kind = kinds.ssh if text.startswith("ssh-") else kinds.x25519
    try:
        return kind.Recipient.from_str(text)
    except kinds.RecipientError as error:
        hint = "It is a private key: keep it secret. " if "SECRET-KEY" in text else ""
        raise ConfigError(
            f"{'…' if hint else text[:80]!r} is no public key to encrypt evidence for. {hint}Give "
            "age1… (`fedaudit runs keygen FILE` makes one) or ssh-ed25519 …"
        ) from error


def _identities(path: Path) -> list[Any]:
    kinds = _pyrage()
    try:
        content = regular_file.read_bytes(path, _LONGEST_KEY)
        if content.startswith(b"-----BEGIN"):
            return [kinds.ssh.Identity.from_buffer(content)]
        lines = [line.strip() for line in content.decode().splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        identities = [kinds.x25519.Identity.from_str(line) for line in keys]
    except (OSError, RunFolderError, ValueError, kinds.IdentityError) as error:
        raise _no_identity(path) from error
    if not identities:
        raise _no_identity(path)
    return identities


def _no_identity(path: Path) -> ConfigError:
    return ConfigError(
        f"{str(path)!r} holds no private key that opens sealed evidence: what `fedaudit runs "
        "keygen` or age-keygen writes, or an SSH key (Ed25519) without a passphrase."
    )


def _pyrage() -> ModuleType:
    try:
        import pyrage  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "sealed evidence needs the extra `sealed`: `pip install 'fedaudit[sealed]'`."
        ) from error
    module: ModuleType = pyrage
    return module
