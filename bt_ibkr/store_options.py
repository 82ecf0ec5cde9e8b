"""What ``IBKRStore`` is given, checked: backtrader's own parameters; where gateway, journal and hub are."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from bt_ibkr.config import DEFAULT_GATEWAY
from bt_ibkr.connection.direct import MEMORY, JournalInMemory
from bt_ibkr.errors import UsageError
from bt_ibkr.hub.joining import HubAddress

_log = logging.getLogger(__name__)

#: Parameters of backtrader's IBStore that mean nothing to the Web API.
_IBSTORE = frozenset({"clientId", "notifyall", "_debug", "reconnect", "timeout", "timerefresh", "indcash"})
#: Ports of TWS and of IB Gateway, which speak another protocol.
_TWS_PORTS = frozenset({7496, 7497, 4001, 4002})


def check_ibstore(given: dict[str, Any]) -> None:
    """Raises ``UsageError`` for a parameter that there is not; those that backtrader's store has are only logged."""
    unknown = sorted(set(given) - _IBSTORE)
    if unknown:
        raise UsageError(
            f"IBKRStore has no parameter {unknown[0]!r}.",
            remedy="See help(bt_ibkr.IBKRStore) for those it has.",
        )
    if given:
        _log.warning("ibstore-parameters-without-effect names=%s", ",".join(sorted(given)))


def gateway_at(gateway: str, host: str | None, port: int | None) -> str:
    """The REST base of the gateway at ``host`` and ``port``; raises ``UsageError`` for a port of TWS."""
    if gateway != DEFAULT_GATEWAY:
        raise UsageError(
            "IBKRStore: `gateway` was given beside `host` or `port`.", remedy="Give one of them."
        )
    if port in _TWS_PORTS:
        raise UsageError(
            f"Port {port} is that of TWS or IB Gateway, which do not speak the Web API.",
            remedy="Start the Client Portal Gateway; it listens on port 5000.",
        )
    return f"https://{host or 'localhost'}:{port or 5000}/v1/api"


def journal_place(
    journal: str | Path | JournalInMemory | None, mode: str | None
) -> Path | JournalInMemory | None:
    """A simulation's account is gone with its emulator, and so may its journal be."""
    if isinstance(journal, JournalInMemory):
        return journal
    if journal == ":memory:" or (journal is None and mode == "sim"):
        return MEMORY
    return None if journal is None else Path(journal)


def hub_address(hub: str | HubAddress, name: str | None, theirs: set[str]) -> HubAddress:
    """Raises ``UsageError`` for what is the hub's own, and where there is no name."""
    if theirs:
        raise UsageError(
            f"IBKRStore: {', '.join(sorted(theirs))} was given beside `hub`.",
            remedy="These belong to the hub: see its configuration.",
        )
    if isinstance(hub, HubAddress):
        return hub
    if name is None:
        raise UsageError(
            "IBKRStore: a hub wants to know the strategy's name.",
            remedy="Give name='sma_cross', the same one in every run: orders and positions are kept under it.",
        )
    return HubAddress(endpoint=hub, name=name)
