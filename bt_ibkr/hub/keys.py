"""CURVE keys in files: one for the hub, one for each strategy.

A file is TOML and readable by its owner alone: ``public``, ``secret``, and in a strategy's also ``server``, the hub's
public key. Secrets are in no message, log or repr.
"""

from __future__ import annotations

import os
import stat
import sys
import tomllib
from pathlib import Path

import msgspec
import zmq

from bt_ibkr.errors import UsageError

_KEY_LENGTH = 40


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
    for name in ("public", "secret", "server"):
        value = found.get(name, "" if name == "server" else None)
        if not isinstance(value, str) or len(value) not in (
            _KEY_LENGTH,
            0 if name == "server" else _KEY_LENGTH,
        ):
            raise UsageError(
                f"The key file {path} has no {name} key of {_KEY_LENGTH} characters.",
                remedy="Make one: bt-ibkr hub keys.",
            )
    return KeyPair(public=found["public"], secret=found["secret"], server=found.get("server", ""))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
