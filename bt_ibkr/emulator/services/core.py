"""What the services, the streams and the control API share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.marketdata.state import SnapshotStreams
from bt_ibkr.emulator.services.orders.state import OrdersState
from bt_ibkr.emulator.services.pacing import Pacing
from bt_ibkr.emulator.services.session.state import SessionState, Tier
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.stream.hub import Hub
from bt_ibkr.emulator.types import Instrument

if TYPE_CHECKING:
    from bt_ibkr.emulator.engine import Engine
    from bt_ibkr.emulator.universe import Universe


class Core:
    """One emulator: engine, session and streams. Everything runs in one thread, that of its loop.

    Args:
        settings: As started.
        engine: The market, the exchange and the accounts.
        universe: All instruments.
        wall: Wall seconds since the epoch.
    """

    def __init__(
        self,
        *,
        settings: EmulatorSettings,
        engine: Engine,
        universe: Universe,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.universe = universe
        self.wall = wall
        self.session = SessionState(tier=Tier(settings.login), accounts=settings.accounts, seed=settings.seed)
        self.pacing = Pacing(
            clock=time.monotonic, strict=settings.strict_pacing, penalty_s=settings.penalty_s
        )
        self.snapshots = SnapshotStreams()
        self.orders = OrdersState(settings.seed)
        #: Conids that ``secdef/search`` found: ``secdef/info`` and ``strikes`` want that first.
        self.searched: set[int] = set()
        self._server_id = 20_000_000 + settings.seed % 1000
        self.hub = Hub(self)
        engine.set_listener(self.hub)

    def wall_ms(self) -> int:
        return int(self.wall() * 1000)

    @property
    def now_ns(self) -> int:
        """Market time."""
        return self.engine.now_ns

    def set_tier(self, tier: Tier) -> None:
        """Move the session; streams of the brokerage session end with it, and ``sts`` tells."""
        before = self.session.tier
        self.session.set_tier(tier)
        self.snapshots.clear()
        self.orders.forget_session()
        self.searched.clear()
        if before is not tier:
            self.hub.session_changed()

    def reset(self, seed: int) -> None:
        """The engine began anew: forget orders and streams, keep the session and the sockets."""
        self.orders = OrdersState(seed)
        self.hub.reset()

    def next_server_id(self) -> str:
        """Id of a history answer."""
        self._server_id += 1
        return str(self._server_id)

    def instrument(self, conid: int) -> Instrument | None:
        return self.universe.by_conid(conid)

    def account(self, account: str) -> str:
        """``account`` if it is one of ours.

        Raises:
            ApiError: 400, as the real server words it.
        """
        if account not in self.session.accounts:
            raise errors.bad_request(f"accountId is not valid: {account}")
        return account

    def has_market_data(self, conid: int) -> bool:
        """Whether a stream of this instrument is open, by snapshot or over a socket."""
        return self.snapshots.has(conid) or self.hub.has_market_data(conid)
