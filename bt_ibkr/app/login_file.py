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
_REMEDY = "docs/authentication.md shows the form of each provider."


def read_login(path: str) -> Login:
    """The login that the file describes; relative paths in it begin at its folder.

    Raises:
        UsageError: No such file, not TOML, an unknown key or a wrong value, or others could change the file.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        mode = stat.S_IMODE(file.stat().st_mode)
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        raise UsageError(f"--login: the file {path!r} cannot be read: {reason}.", remedy=_REMEDY) from None
    if os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(
            f"--login: others than its owner may change the file {path!r} (mode {mode:04o}).",
            remedy=f"Run: chmod go-w {path}",
        )
    try:
        given = tomllib.loads(text)
        login = msgspec.convert(given, Login, strict=True)
    except tomllib.TOMLDecodeError as problem:
        raise UsageError(f"--login: {path!r} is not TOML: {problem}.", remedy=_REMEDY) from None
    except msgspec.ValidationError as problem:
        raise UsageError(f"--login: {path!r}: {problem}.", remedy=_REMEDY) from None
    return _located(login, file.parent)


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
