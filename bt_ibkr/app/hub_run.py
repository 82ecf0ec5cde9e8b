"""A run through a hub: which one, under which name, and what belongs to the hub and not to the run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bt_ibkr.app.loading import load_strategy
from bt_ibkr.app.request import RunRequest
from bt_ibkr.brokers.names import snake_case
from bt_ibkr.errors import UsageError
from bt_ibkr.hub.config import default_endpoint
from bt_ibkr.hub.joining import HubAddress
from bt_ibkr.hub.observing import HubObserver

#: Options that say something of the session, which is the hub's.
_OF_THE_HUB: Final = {
    "gateway": "--gateway",
    "trust": "--ca-file and --insecure",
    "login": "--login",
    "competing": "--competing",
    "region": "--region",
    "risk": "--risk",
    "journal": "--journal",
    "market_data_lines": "--lines",
    "lines_overflow": "--lines-overflow",
    "clear_lines": "--clear-lines",
}
#: A hub that is just starting is waited for, seconds.
_PATIENCE_S: Final = 15.0


def hub_address(request: RunRequest) -> HubAddress | None:
    """The hub of a run; ``None`` for a run with a session of its own.

    Raises:
        UsageError: Something was asked for that is the hub's.
    """
    if not request.hub:
        return None
    defaults = RunRequest(strategy="")
    for field, option in _OF_THE_HUB.items():
        if getattr(request, field) != getattr(defaults, field):
            raise UsageError(
                f"{option} was given beside --hub.",
                remedy="The session, its journal and its limits are the hub's: see bt-ibkr hub -h.",
            )
    if request.read_only:
        raise UsageError(
            "--read-only was given beside --hub.",
            remedy="Write trading = false into the strategy's table of the hub's configuration.",
        )
    name = request.name or snake_case(load_strategy(request.strategy).__name__)
    return HubAddress(
        endpoint=default_endpoint() if request.hub == "default" else request.hub,
        name=name,
        keys=Path(request.hub_keys) if request.hub_keys else None,
    )


def emulator_of(address: HubAddress) -> str:
    """Control API of the emulator that a hub's session is with; empty for IBKR.

    Raises:
        UnreachableError: No hub answers.
        NotArmedError: It does not let this strategy in.
    """
    observer = HubObserver(address.endpoint, address.keys, name=address.name, patience_s=_PATIENCE_S)
    with observer:
        return observer.welcome.emulator
