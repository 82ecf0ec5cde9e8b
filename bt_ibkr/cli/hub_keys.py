"""The command ``hub keys``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bt_ibkr.cli.tables import console, put_json, show_table
from bt_ibkr.config import state_directory
from bt_ibkr.errors import UsageError
from bt_ibkr.hub.keys import check_key, make_keys, read_keys, write_keys
from bt_ibkr.hub.names import check_name

#: The hub's own file.
_HUB: Final = "hub.key"


def keys_command(name: str, folder: str, *, of_hub: bool, server: str, as_json: bool) -> int:
    """Make keys, or show those that there are.

    Raises:
        UsageError: The file exists already, or the hub's public key is not known.
    """
    place = Path(folder) if folder else state_directory() / "keys"
    if not of_hub and not name:
        return _show(place, as_json=as_json)
    if of_hub:
        file, keys = place / _HUB, make_keys()
        lines = ["[hub]", f'key_file = "{file.resolve().as_posix()}"']
    else:
        if check_name(name) == "hub":
            raise UsageError(
                "A strategy cannot be called hub: that file is the hub's.", remedy="Name it otherwise."
            )
        known = check_key(server, "--server") if server else _server_key(place)
        file, keys = place / f"{name}.key", make_keys(known)
        lines = [f"[strategies.{name}]", f'key = "{keys.public}"']
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_keys(file, keys)
    if as_json:
        put_json({"file": str(file), "public": keys.public, "toml": lines})
        return 0
    out = console()
    out.print(f"made {file}, which only its owner may read", markup=False)
    out.print(f"public key: {keys.public}", markup=False)
    out.print("\nEnter into the hub's configuration:\n", markup=False)
    for line in lines:
        out.print(line, markup=False)
    if not of_hub:
        out.print(
            f"\nThe strategy runs with --hub-keys {file}; on another machine with a copy of that file, or with one\n"
            f"made there: bt-ibkr hub keys {name} --server '{keys.server}'",
            markup=False,
        )
    return 0


def _server_key(place: Path) -> str:
    file = place / _HUB
    if not file.is_file():
        raise UsageError(
            f"There is no {file}: the hub's public key is not known.",
            remedy="Make the hub's keys first (bt-ibkr hub keys --hub), or give its public key with --server.",
        )
    return read_keys(file).public


def _show(place: Path, *, as_json: bool) -> int:
    rows: list[dict[str, Any]] = []
    for file in sorted(place.glob("*.key"), key=lambda one: (one.name != _HUB, one.name)):
        keys = read_keys(file)
        rows.append(
            {"name": file.stem, "public": keys.public, "server": keys.server or None, "file": str(file)}
        )
    if as_json:
        put_json({"folder": str(place), "keys": rows})
        return 0
    show_table(
        console(),
        f"Keys in {place}",
        # Nothing beside the key that could have it broken in two.
        ("file", "public key"),
        ((Path(one["file"]).name, one["public"]) for one in rows),
        empty=f"no keys in {place}; bt-ibkr hub keys --hub makes the hub's",
    )
    return 0
