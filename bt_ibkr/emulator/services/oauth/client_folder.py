"""The folder with the client's half: keys and tokens in files of their own, and the login file that names them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from bt_ibkr.emulator.services.oauth.material import Material, write_file
from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.errors import UsageError

#: Name of the login file, as ``bt-ibkr run --login`` takes it.
LOGIN_FILE: Final = "login.toml"
#: Its first line, by which a folder is known again: what is in it may be replaced.
_HEAD: Final = (
    "# Made by the bt-ibkr emulator for itself; good for no other server, and until its next start."
)


def write_folder(settings: AuthenticationSettings, username: str, material: Material) -> Path:
    """Write the client's half into ``settings.key_folder``; the path of the login file.

    Every file can be read by its owner only. A folder that an emulator filled before is filled anew.

    Args:
        settings: Kind, names, and which keys are the user's own.
        username: Whose sessions an OAuth 2.0 client opens, unless the settings name somebody.
        material: What was made.

    Raises:
        UsageError: The folder cannot be made, or holds files of the same names that no emulator made.
    """
    folder = Path(settings.key_folder).absolute()
    names = (*material.client_half(), LOGIN_FILE)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(folder, names)
        files = material.write(folder)
        return write_file(folder / LOGIN_FILE, login_text(settings, username, files))
    except OSError as problem:
        raise UsageError(
            f"The folder {str(folder)!r} cannot hold the client's keys: {problem.strerror}.",
            remedy="Name a folder of your own for them.",
        ) from None


def _check(folder: Path, names: tuple[str, ...]) -> None:
    """Keys of a real account may have these names too: nothing is replaced that an emulator did not make."""
    login = folder / LOGIN_FILE
    if login.is_file() and login.read_bytes().startswith(_HEAD.encode()):
        return
    strange = [name for name in names if os.path.lexists(folder / name)]
    if strange:
        raise UsageError(
            f"The folder {str(folder)!r} holds {', '.join(strange)}, which no emulator made.",
            remedy="Name an empty folder for the keys that are made.",
        )


def login_text(settings: AuthenticationSettings, username: str, files: Mapping[str, Path]) -> str:
    """The login file: names and places, no secret. Keys whose public half the user gave are left for him to name."""
    values: dict[str, str | None]
    if settings.kind == "oauth1a":
        granted = not settings.third_party
        values = {
            "provider": "oauth1a",
            "consumer_key": settings.consumer_key,
            "access_token": "access_token" if granted else None,
            "access_token_secret": "access_token_secret" if granted else None,
            "signature_key": _made("private_signature.pem", files),
            "encryption_key": _made("private_encryption.pem", files),
            "dh_parameters": "dhparam.pem",
        }
    elif settings.kind == "oauth2":
        values = {
            "provider": "oauth2",
            "client_id": settings.client_id,
            "key_id": settings.key_id,
            "private_key": _made("private_client.pem", files),
            "credential": settings.credential or username,
            "algorithm": settings.algorithm,
            "variant": settings.variant,
        }
    elif settings.kind == "token":
        values = {"provider": "token", "token": "token"}
    else:
        values = {"provider": "gateway"}
    lines = [
        f"# {name} = …  yours to fill in"
        if value is None
        else f"{name} = {msgspec.json.encode(value).decode()}"
        for name, value in values.items()
    ]
    return "\n".join((_HEAD, *lines, ""))


def _made(name: str, files: Mapping[str, Path]) -> str | None:
    return name if name in files else None
