"""Whether the keys and tokens of a login can be used: read as a log-on would, and nothing sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from bt_ibkr.app.login_file import secret_places
from bt_ibkr.errors import UsageError
from bt_ibkr.login import Login, OAuth1Login, OAuth2Login
from bt_ibkr.session.auth.oauth1a import Keys
from bt_ibkr.session.auth.oauth2 import read_client_key
from bt_ibkr.session.secrets import KEYRING, complaint, read_secret


class KeyFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        places: How many secrets the login names.
        wrong: What is wrong, in words without a secret.
        open_files: Files that others than their owner may use.
    """

    places: int
    wrong: tuple[str, ...]
    open_files: tuple[str, ...]


def look_at_keys(login: Login) -> KeyFiles:
    """Read every secret, then what is made of them together: a key in the place of another fits no algorithm."""
    places = list(secret_places(login))
    wrong = [said for name, place in places if (said := _said(lambda n=name, p=place: read_secret(p, n)))]  # type: ignore[misc]
    if not wrong and isinstance(login, OAuth1Login):
        wrong = [said for said in [_said(lambda: Keys(login))] if said]
    elif not wrong and isinstance(login, OAuth2Login):
        wrong = [said for said in [_said(lambda: read_client_key(login))] if said]
    files = [Path(place) for _, place in places if not place.startswith(KEYRING)]
    return KeyFiles(
        places=len(places),
        wrong=tuple(wrong),
        open_files=tuple(str(file) for file in files if file.is_file() and complaint(file)),
    )


def _said(read: Callable[[], object]) -> str:
    """What reading complains of; empty if nothing."""
    try:
        read()
    except UsageError as problem:
        return problem.message
    return ""
