"""CURVE keys in files: one for the hub, one for each strategy.

A file is TOML and readable by its owner alone: ``public``, ``secret``, and in a strategy's also ``server``, the hub's
public key. Secrets are in no message, log or repr.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
import tomllib
from pathlib import Path

import msgspec
import zmq
from zmq.utils import z85

from bt_ibkr.errors import UsageError

_KEY_LENGTH = 40
_KEY_BYTES = 32


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """Keys, Z85.

    Attributes:
        server: The hub's public key; empty in the hub's own file.
    """

    public: str
    secret: str
    server: str = ""

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


def make_keys(server: str = "") -> KeyPair:
    """New keys."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public=public.decode(), secret=secret.decode(), server=server)


def write_keys(path: Path, keys: KeyPair) -> None:
    """Write a key file; an existing one is left as it is.

    Raises:
        UsageError: It exists, or cannot be written.
    """
    lines = [f'public = "{_escaped(keys.public)}"', f'secret = "{_escaped(keys.secret)}"']
    if keys.server:
        lines.append(f'server = "{_escaped(keys.server)}"')
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(
            f"The key file {path} exists already.", remedy="Remove it first, if nobody uses it any more."
        ) from None
    except OSError as problem:
        raise UsageError(f"The key file {path} cannot be written: {problem.strerror}.") from None
    with os.fdopen(file, "w", encoding="ascii") as out:
        out.write("\n".join(lines) + "\n")


def read_keys(path: Path) -> KeyPair:
    """Keys from a file.

    Raises:
        UsageError: It cannot be read, is readable by others, or holds no keys. What is in it is not told.
    """
    try:
        if sys.platform != "win32" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(
                f"The key file {path} can be read by others than its owner.", remedy=f"chmod 600 {path}"
            )
        found = tomllib.loads(path.read_text("ascii"))
    except OSError as problem:
        raise UsageError(
            f"The key file {path} cannot be read: {problem.strerror}.", remedy="Make one: bt-ibkr hub keys."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise UsageError(
            f"The key file {path} is no key file.", remedy="Make one: bt-ibkr hub keys."
        ) from None
    keys = {}
    for name in ("public", "secret", "server"):
        value = found.get(name, "" if name == "server" else None)
        if not isinstance(value, str):
            raise UsageError(f"The key file {path} has no {name} key.", remedy="Make one: bt-ibkr hub keys.")
        wanted = value or name != "server"
        keys[name] = check_key(value, f"The {name} key in the file {path}") if wanted else ""
    pair = KeyPair(**keys)
    if zmq.curve_public(pair.secret.encode()).decode() != pair.public:
        raise UsageError(
            f"The keys in the file {path} do not belong together.", remedy="Make one: bt-ibkr hub keys."
        )
    return pair


def read_strategy_keys(path: Path) -> KeyPair:
    """A strategy's keys from a file.

    Raises:
        UsageError: As ``read_keys``, or the hub's public key is missing.
    """
    keys = read_keys(path)
    if not keys.server:
        raise UsageError(
            f"The key file {path} does not say which hub it is for.",
            remedy="It is a hub's own. Make a strategy's: bt-ibkr hub keys NAME.",
        )
    return keys


def check_key(text: str, what: str) -> str:
    """A key that is one.

    Args:
        what: Names it in messages; the key itself is not repeated: it may be a secret one by mistake.

    Raises:
        UsageError: It is none.
    """
    try:
        fine = len(text) == _KEY_LENGTH and len(z85.decode(text.encode("ascii"))) == _KEY_BYTES
    except (ValueError, KeyError, UnicodeEncodeError, struct.error):
        fine = False
    if not fine:
        raise UsageError(
            f"{what} is no key: it has {_KEY_LENGTH} characters of Z85.",
            remedy="bt-ibkr hub keys makes them, and shows the public ones.",
        )
    return text


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
