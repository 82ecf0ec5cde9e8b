"""What a hub is told: endpoints, strategies, keys. From TOML or from Python."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from bt_ibkr.errors import UsageError
from bt_ibkr.hub.access import EVERYTHING, Grant
from bt_ibkr.hub.names import check_name

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
        if not 0 < self.beat_s * 2 <= self.dead_s:
            raise UsageError(
                f"A hub with beats every {self.beat_s:g} s cannot take {self.dead_s:g} s of silence for death.",
                remedy="Let dead_s be at least twice beat_s.",
            )
        for name in ("ring", "queue"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)} is too little.", remedy="Give 1 or more.")
        for name in self.strategies:
            check_name(name)

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


def read_settings(path: Path, **given: Any) -> tuple[HubSettings, dict[str, Any]]:
    """Settings from a TOML file: table ``hub``, tables ``strategies.NAME``.

    Args:
        given: Values that go before those of the file.

    Returns:
        The settings, and the file's other tables (``login``, ``risk``).

    Raises:
        UsageError: It cannot be read, or has a word or value that means nothing; names both.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as problem:
        raise UsageError(f"The hub's configuration {path} cannot be read: {problem.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"The hub's configuration {path} is no TOML: {problem}.") from None
    hub = dict(tables.pop("hub", {})) | {name: value for name, value in given.items() if value is not None}
    hub["strategies"] = tables.pop("strategies", {})
    try:
        return msgspec.convert(hub, HubSettings), tables
    except msgspec.ValidationError as problem:
        raise UsageError(
            f"The hub's configuration {path}: {problem}.", remedy="See docs/hub.md for what it may say."
        ) from None
