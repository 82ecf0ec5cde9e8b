"""What a hub is told: endpoints, strategies, keys. From TOML or from Python."""

from __future__ import annotations

import difflib
import math
import sys
import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from bt_ibkr.config import state_directory
from bt_ibkr.errors import UsageError
from bt_ibkr.hub.access import EVERYTHING, Grant
from bt_ibkr.hub.health import parse_health
from bt_ibkr.hub.keys import check_key, read_keys
from bt_ibkr.hub.names import check_name

_REMEDY: Final = "docs/hub.md shows what it may say."
_LOOPBACK: Final = frozenset({"127.0.0.1", "[::1]", "::1", "localhost"})


class HubSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One hub.

    Attributes:
        endpoint: Where strategies ask and are told: ``ipc:///path`` or ``tcp://host:port``.
        ticks: Where ticks are published; by default ``endpoint`` with ``.ticks`` after the path, or the next port.
        accounts: That are traded through it; by default the one the login has selected.
        data_only: Serve market data alone: no account is read, no order taken.
        unlisted: Strategies that are not in ``strategies`` may do everything. By default so without encryption,
            not so with it.
        strategies: What each may do.
        secret_key: Z85 of the hub's CURVE key; empty: not encrypted.
        plain_tcp: Listen without encryption on an address that other machines reach.
        ring: Ticks kept by stream, for those who missed some.
        queue: Messages that wait for one subscriber before it loses some.
        beat_s, dead_s: How often hub and strategies tell each other that they live, and the silence after which one
            is taken as gone.
        stale_s: An order that reaches the hub later than this after it was placed is refused.
        health: ``host:port`` of the HTTP endpoints ``/livez`` and ``/readyz``; empty for none.
    """

    endpoint: str
    ticks: str = ""
    accounts: tuple[str, ...] = ()
    data_only: bool = False
    unlisted: bool | None = None
    strategies: dict[str, Grant] = {}
    secret_key: str = ""
    plain_tcp: bool = False
    ring: int = 8192
    queue: int = 20_000
    beat_s: float = 1.0
    dead_s: float = 5.0
    stale_s: float = 10.0
    health: str = ""

    def __post_init__(self) -> None:
        for endpoint in (self.endpoint, self.ticks_endpoint):
            _check_endpoint(endpoint, encrypted=bool(self.secret_key), plain=self.plain_tcp)
        for name in ("beat_s", "dead_s", "stale_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(
                    f"A hub's {name} = {getattr(self, name)!r} is no time.", remedy="Give seconds above 0."
                )
        if self.beat_s * 2 > self.dead_s:
            raise UsageError(
                f"A hub with beats every {self.beat_s:g} s cannot take {self.dead_s:g} s of silence for death.",
                remedy="Let dead_s be at least twice beat_s.",
            )
        for name in ("ring", "queue"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)} is too little.", remedy="Give 1 or more.")
        if self.health:
            parse_health(self.health)
        self._check_strategies()

    def _check_strategies(self) -> None:
        owners: dict[str, str] = {}
        for name, grant in self.strategies.items():
            check_name(name)
            where = f"[strategies.{name}]"
            if not 0 <= grant.vanish_s < math.inf:
                raise UsageError(
                    f"{where}: vanish_s = {grant.vanish_s!r} is no time.",
                    remedy="Give seconds, 0 for at once.",
                )
            if grant.cash is not None and not math.isfinite(grant.cash):
                raise UsageError(f"{where}: cash = {grant.cash!r} is no amount.", remedy="Give an amount.")
            if bool(grant.key) is not bool(self.secret_key):
                raise UsageError(
                    f"{where} has a key, but the hub has none: the channel would not be encrypted."
                    if grant.key
                    else f"{where} has no key: any strategy with a key could trade under its name.",
                    remedy="Make keys with bt-ibkr hub keys, for the hub and for each strategy, and enter them.",
                )
            if not grant.key:
                continue
            check_key(grant.key, f"{where}: key")
            if (other := owners.setdefault(grant.key, name)) != name:
                raise UsageError(
                    f"{where} has the key of [strategies.{other}]: each could trade as the other.",
                    remedy="Make a key for each: bt-ibkr hub keys NAME.",
                )

    def __repr__(self) -> str:
        return f"HubSettings(endpoint={self.endpoint!r}, strategies={sorted(self.strategies)})"

    @property
    def ticks_endpoint(self) -> str:
        """Of the tick channel."""
        return self.ticks or beside(self.endpoint)

    @property
    def unlisted_grant(self) -> Grant | None:
        """What strategies may do that are not listed."""
        allowed = not self.secret_key if self.unlisted is None else self.unlisted
        return EVERYTHING if allowed else None

    def public_keys(self) -> frozenset[str]:
        """Keys that are let in."""
        return frozenset(grant.key for grant in self.strategies.values() if grant.key)

    def ticks_seen(self, bound: str) -> str:
        """The bound tick endpoint, for strategies: of an address of any interface only the port means something."""
        parts = urlsplit(bound)
        if parts.scheme == "tcp" and parts.hostname in ("0.0.0.0", "::", "*"):
            return f":{parts.port}"
        return bound


def default_endpoint() -> str:
    """Where a hub listens, and is looked for, unless told otherwise: below the state directory."""
    if sys.platform == "win32":
        return "tcp://127.0.0.1:5560"
    return f"ipc://{state_directory() / 'hub'}"


def beside(endpoint: str) -> str:
    """The tick endpoint that goes with a command endpoint."""
    parts = urlsplit(endpoint)
    if parts.scheme == "ipc":
        return f"{endpoint}.ticks"
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "tcp" or not parts.hostname or port is None:
        raise _no_endpoint(endpoint)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    # Port 0 is any free one, for both.
    return f"tcp://{host}:{port + 1 if port else 0}"


def _check_endpoint(endpoint: str, *, encrypted: bool, plain: bool) -> None:
    parts = urlsplit(endpoint)
    if parts.scheme == "ipc":
        path = endpoint[len("ipc://") :]
        if not path.startswith("/"):
            raise _no_endpoint(endpoint)
        if len(path.encode()) > 100:
            raise UsageError(
                f"The path of {endpoint} is longer than a socket's may be.", remedy="Use a shorter one."
            )
        return
    beside(endpoint)
    if not encrypted and not plain and parts.hostname not in _LOOPBACK:
        raise UsageError(
            f"{endpoint} can be reached from other machines, and there is no key: anybody could trade.",
            remedy="Make keys with bt-ibkr hub keys, or listen on 127.0.0.1. plain_tcp = true allows it anyway.",
        )


def _no_endpoint(endpoint: str) -> UsageError:
    return UsageError(
        f"{endpoint!r} is no endpoint of a hub.", remedy="Write ipc:///absolute/path or tcp://host:port."
    )


def read_settings(
    text: str, *, source: str, folder: Path, **given: Any
) -> tuple[HubSettings, dict[str, Any]]:
    """Settings from a TOML text: table ``hub``, tables ``strategies.NAME``.

    Args:
        source: Names the text in messages.
        folder: Where relative paths in it begin.
        given: Values that go before those of the text; ``None`` is none.

    Returns:
        The settings, and the text's other tables.

    Raises:
        UsageError: It is no TOML, or has a word or value that means nothing; names table and value.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise UsageError(
            f"The hub's configuration {source} is not TOML: {problem}.", remedy=_REMEDY
        ) from None
    table = take_table(tables, "hub", source)
    if "secret_key" in table:
        raise UsageError(
            f"{source}, [hub]: a secret key does not belong into a configuration (it is not repeated).",
            remedy='Make a key file with bt-ibkr hub keys --hub, and name it: key_file = "hub.key".',
        )
    key_file = table.pop("key_file", None)
    given_key = given.pop("key_file", None)
    values = convert_table(HubSettings, table, f"{source}, [hub]", skip=("strategies",))
    values |= {name: value for name, value in given.items() if value is not None}
    values.setdefault("endpoint", default_endpoint())
    if key_file is not None and not isinstance(key_file, str):
        raise UsageError(f"{source}, [hub]: key_file = {key_file!r} is no path.", remedy=_REMEDY)
    if given_key or key_file:
        values["secret_key"] = read_keys(Path(given_key) if given_key else folder / str(key_file)).secret
    values["strategies"] = _grants(tables, source)
    return HubSettings(**values), tables


def _grants(tables: dict[str, Any], source: str) -> dict[str, Grant]:
    grants = {}
    for name, table in take_table(tables, "strategies", source).items():
        where = f"{source}, [strategies.{name}]"
        if not isinstance(table, dict):
            raise UsageError(f"{where}: {table!r} is no table.", remedy=_REMEDY)
        grants[name] = Grant(**convert_table(Grant, table, where))
    return grants


def take_table(tables: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    """A table of a file, taken out of it; an empty one if it is not there.

    Raises:
        UsageError: It is something else.
    """
    found = tables.pop(name, {})
    if not isinstance(found, dict):
        raise UsageError(f"{source}: {name} = {found!r} is no table.", remedy=f"Write [{name}]. {_REMEDY}")
    return dict(found)


def convert_table(
    kind: type[msgspec.Struct], table: dict[str, Any], where: str, *, skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values of a TOML table, each of the type that ``kind`` wants.

    Args:
        skip: Fields that the table cannot set.

    Raises:
        UsageError: A word that there is not, or a value of another type; names both.
    """
    fields = {field.name: field.type for field in msgspec.structs.fields(kind) if field.name not in skip}
    values = {}
    for name, value in table.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            raise UsageError(
                f"{where}: there is no {name!r}.",
                remedy=(f"Did you mean {near[0]!r}? " if near else "")
                + f"It may say: {', '.join(sorted(fields))}.",
            )
        try:
            values[name] = msgspec.convert(value, fields[name])
        except msgspec.ValidationError as problem:
            raise UsageError(f"{where}: {name} = {value!r} cannot be: {problem}.", remedy=_REMEDY) from None
    return values
