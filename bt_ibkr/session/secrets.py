"""Secrets from files that only their owner can read, or from the operating system's keyring."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bt_ibkr.errors import UsageError
from bt_ibkr.redaction import MASK, remember
from bt_ibkr.session import dh_parameters

#: What a place begins with if it is an entry of the keyring.
KEYRING: Final = "keyring:"
#: Longest file that is read, bytes: keys and tokens have a few thousand.
_LONGEST: Final = 100_000
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Secret:
    """A value that shows only when asked to: not in ``repr``, ``str``, formats or pickles.

    Args:
        value: From now on the log filter masks it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        remember(value)

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        raise TypeError("A secret is not pickled.")


def read_secret(place: str, what: str) -> Secret:
    """The secret at ``place``, without the white space around it.

    Args:
        place: Path of a file, or ``keyring:SERVICE/NAME``.
        what: What it is, for messages.

    Raises:
        UsageError: It is not there, is empty, is no text, or others may read the file.
    """
    text = _from_keyring(place, what) if place.startswith(KEYRING) else _from_file(Path(place), what)
    text = text.strip()
    if not text:
        raise UsageError(f"{what} at {place!r} is empty.", remedy="Store the value there.")
    return Secret(text)


def read_private_key(place: str, what: str) -> PrivateKey:
    """The private key at ``place``, in PEM form and without a passphrase; raises as ``read_secret``."""
    pem = read_secret(place, what).reveal().encode()
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise UsageError(
            f"{what} at {place!r} is protected by a passphrase.",
            remedy="Store it without one, in a file that only you can read or in the keyring: "
            "openssl pkey -in FILE -out PLAIN",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(
            f"{what} at {place!r} is not a private key in PEM form.",
            remedy="Name the private key's own file.",
        ) from None
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise UsageError(
            f"{what} at {place!r} is neither an RSA nor an EC key.", remedy="Name the key that is registered."
        )
    return key


def read_rsa_key(place: str, what: str) -> rsa.RSAPrivateKey:
    """As ``read_private_key``, for what must be an RSA key."""
    key = read_private_key(place, what)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise UsageError(f"{what} at {place!r} is not an RSA key.", remedy="Name the key that is registered.")
    return key


def read_dh_parameters(place: str) -> tuple[int, int]:
    """Prime and generator of the file ``place`` (PEM, as ``openssl dhparam`` writes it); not a secret.

    Raises:
        UsageError: No such file, or something else is in it.
    """
    what = "The file of Diffie-Hellman parameters"
    data = _bytes(Path(place), what)
    try:
        prime, generator = dh_parameters.parse(data)
    except ValueError as problem:
        raise UsageError(
            f"{what} {place!r} cannot be used: {problem}.",
            remedy="Make them with: openssl dhparam -out dhparam.pem 2048",
        ) from None
    return prime, generator


def complaint(path: Path) -> str | None:
    """Why the file's permissions are not those of a secret; ``None`` if they are, or on Windows, where
    permissions are kept elsewhere."""
    if os.name != "posix":
        return None
    about = path.stat()
    if about.st_mode & _OTHERS:
        return f"others than its owner may use it (mode {stat.S_IMODE(about.st_mode):04o})"
    if about.st_uid not in (os.geteuid(), 0):
        return "it belongs to another user"
    return None


def write_secret(path: Path, value: str) -> None:
    """Write ``value`` into a new file that only its owner can read.

    Raises:
        UsageError: The file exists, or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(value)
    except OSError as problem:
        raise UsageError(
            f"{path} cannot be written: {problem.strerror}.", remedy="Name a file that is not there yet."
        ) from None


def _from_file(path: Path, what: str) -> str:
    if not _is_there(path):
        # Somebody may have written the secret itself where its place belongs: it is not repeated.
        raise UsageError(
            f"{what}: there is no such file below {str(_nearest(path))!r} as the login names (it is not repeated "
            "here).",
            remedy="Give the path of an existing file, or keyring:SERVICE/NAME; never the secret itself.",
        )
    data = _bytes(path, what)
    wrong = complaint(path)
    if wrong:
        raise UsageError(
            f"{what}: the file {str(path)!r} is refused, because {wrong}.", remedy=f"Run: chmod 600 {path}"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(
            f"{what}: the file {str(path)!r} is not text.",
            remedy="Keys are stored in PEM form, tokens as text.",
        ) from None


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _nearest(path: Path) -> Path:
    """The folder above it that there is."""
    return next((folder for folder in path.absolute().parents if _is_there(folder)), Path("/"))


def _bytes(path: Path, what: str) -> bytes:
    try:
        if not path.is_file() and path.exists():
            # A pipe would be waited for, and is empty when the secret is read again.
            raise UsageError(
                f"{what}: {str(path)!r} is no ordinary file.", remedy="Give the path of a file that stays."
            )
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as problem:
        raise UsageError(
            f"{what}: the file {str(path)!r} cannot be read: {problem.strerror}.",
            remedy="Give the path of an existing file, or keyring:SERVICE/NAME.",
        ) from None
    if len(data) > _LONGEST:
        raise UsageError(
            f"{what}: the file {str(path)!r} is too large to be one.",
            remedy="Name the key or token's own file.",
        )
    return data


def _from_keyring(place: str, what: str) -> str:
    service, _, name = place.removeprefix(KEYRING).partition("/")
    if not service or not name:
        raise UsageError(f"{what}: {place!r} names no entry.", remedy="Write keyring:SERVICE/NAME.")
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise UsageError(
            f"{what} is kept in the keyring, but the package keyring is not installed.",
            remedy="Install it: pip install 'bt-ibkr[keyring]'",
        ) from None
    try:
        value: str | None = keyring.get_password(service, name)
    except KeyringError as problem:
        raise UsageError(
            f"{what}: the keyring refuses {place!r} ({type(problem).__name__}).",
            remedy="Unlock the keyring, or store the secret in a file that only you can read.",
        ) from None
    if value is None:
        raise UsageError(
            f"{what}: the keyring has no entry {place!r}.", remedy=f"Store it: keyring set {service} {name}"
        )
    return value
