"""The way to log on, from a TOML file: settings and places of secrets, never a secret itself.

::

    provider = "oauth1a"
    consumer_key = "ABCDEFGHI"
    access_token = "access_token"                        # a file, beside this one unless the path is absolute
    access_token_secret = "keyring:ibkr/token_secret"    # an entry of the keyring
    signature_key = "private_signature.pem"
    encryption_key = "private_encryption.pem"
    dh_parameters = "dhparam.pem"

``provider`` is ``gateway``, ``oauth1a``, ``oauth2``, ``token`` or ``none``; the keys are the attributes of the
type in ``bt_ibkr.login``.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bt_ibkr.config import DEFAULT_GATEWAY
from bt_ibkr.errors import UsageError
from bt_ibkr.login import GatewayLogin, Login, NoLogin, OAuth1Login, OAuth2Login, TokenLogin
from bt_ibkr.session.secrets import KEYRING

#: Where OAuth and tokens log on.
IBKR_API = "https://api.ibkr.com/v1/api"

#: Attributes that name the place of a secret, by type.
_SECRETS: dict[type, tuple[str, ...]] = {
    OAuth1Login: ("access_token", "access_token_secret", "signature_key", "encryption_key"),
    OAuth2Login: ("private_key",),
    TokenLogin: ("token",),
}
#: And those that name a file without one.
_FILES: dict[type, tuple[str, ...]] = {OAuth1Login: ("dh_parameters",)}
#: Longest file that is read, bytes.
_LONGEST = 100_000
_REMEDY = "docs/authentication.md shows the form of each provider."


def read_login(path: str) -> Login:
    """The login that the file describes; relative paths in it begin at its folder.

    Raises:
        UsageError: No such file, not TOML, an unknown key or a wrong value, or others could change the file.
    """
    text = read_own_file(path, "--login", _REMEDY)
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise UsageError(f"--login: {path!r} is not TOML: {problem}.", remedy=_REMEDY) from None
    return login_of(given, f"--login: {path!r}", Path(path).parent)


def login_of(given: dict[str, Any], where: str, folder: Path) -> Login:
    """The login that a table describes.

    Args:
        where: Names the table in messages.
        folder: Where relative paths in it begin.

    Raises:
        UsageError: An unknown key or a wrong value.
    """
    try:
        login = msgspec.convert(given, Login, strict=True)
    except msgspec.ValidationError as problem:
        raise UsageError(f"{where}: {problem}.", remedy=_REMEDY) from None
    return _located(login, folder)


def read_own_file(path: str, option: str, remedy: str) -> str:
    """Text of a file that nobody else may change: what it says decides where a credential is sent.

    Args:
        option: That named it, for messages.
        remedy: Where its form is shown.

    Raises:
        UsageError: No such file, or others could change it.
    """
    try:
        text, about = _read(Path(path))
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise UsageError(f"{option}: the file {path!r} cannot be read: {reason}.", remedy=remedy) from None
    _check_owner(path, about, option)
    return text


def _read(file: Path) -> tuple[str, os.stat_result]:
    """Text and state of the file, of one opening: nobody can put another in between. Raises OSError, ValueError."""
    # Opened without waiting: a pipe would be waited for.
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as opened:
        about = os.fstat(opened.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no ordinary file")
        data = opened.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise ValueError(f"it is longer than {_LONGEST} bytes")
    try:
        return data.decode("utf-8-sig"), about
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None


def _check_owner(path: str, about: os.stat_result, option: str) -> None:
    """Whoever can change the file can have the credential sent elsewhere."""
    if os.name != "posix":
        return
    mode = stat.S_IMODE(about.st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(
            f"{option}: others than its owner may change the file {path!r} (mode {mode:04o}).",
            remedy=f"Run: chmod go-w {path}",
        )
    if about.st_uid not in (os.geteuid(), 0):
        raise UsageError(
            f"{option}: the file {path!r} belongs to another user, who may change it.",
            remedy="Make a copy of your own, and look at what it says.",
        )


def secret_places(login: Login) -> Iterator[tuple[str, str]]:
    """Name and place of each secret that ``login`` needs."""
    for name in _SECRETS.get(type(login), ()):
        yield name, getattr(login, name)


def default_base(login: Login) -> str:
    """The REST base where this way of logging on is used."""
    return DEFAULT_GATEWAY if isinstance(login, (GatewayLogin, NoLogin)) else IBKR_API


def _located(login: Login, folder: Path) -> Login:
    names = (*_SECRETS.get(type(login), ()), *_FILES.get(type(login), ()))
    places = {name: getattr(login, name) for name in names}
    return msgspec.structs.replace(
        login,
        **{name: str(folder / place) for name, place in places.items() if not place.startswith(KEYRING)},
    )
