"""How a strategy process says which hub it wants, and as whom."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bt_ibkr.clock import Clock
from bt_ibkr.connection.mailbox import WakeUp
from bt_ibkr.errors import UsageError
from bt_ibkr.hub.config import beside
from bt_ibkr.hub.connection import HubConnection
from bt_ibkr.hub.keys import read_strategy_keys
from bt_ibkr.hub.names import check_name


class HubAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A hub, and who asks for it.

    Attributes:
        endpoint: Of its command channel: ``ipc:///path`` or ``tcp://host:port``.
        name: The strategy's: owner of its orders and its book.
        keys: File with the strategy's keys, of an encrypted hub; see ``bt-ibkr hub keys``.
        conflate_s: Above 0: take at most one tick of an instrument in so many seconds.
        external: Hear of other programs' orders in the account.
    """

    endpoint: str
    name: str
    keys: Path | None = None
    conflate_s: float = 0.0
    external: bool = True

    def __post_init__(self) -> None:
        beside(self.endpoint)
        check_name(self.name)
        if self.conflate_s < 0:
            raise UsageError(f"conflate_s = {self.conflate_s:g} is below 0.", remedy="Give 0 for every tick.")

    def connect(self, wake: WakeUp, clock: Clock | None = None) -> HubConnection:
        """The connection; not open yet."""
        return HubConnection(
            self.endpoint,
            self.name,
            wake,
            clock=clock,
            keys=None if self.keys is None else read_strategy_keys(self.keys),
            conflate_s=self.conflate_s,
            external=self.external,
        )
