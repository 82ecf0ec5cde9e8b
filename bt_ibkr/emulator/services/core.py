"""What the services, the streams and the control API share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bt_ibkr.clock import NS_PER_MS
from bt_ibkr.emulator.admin.corporate import CorporateActions
from bt_ibkr.emulator.faults.calendar import Calendar
from bt_ibkr.emulator.faults.registry import Faults
from bt_ibkr.emulator.oracle import Oracle
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.marketdata.state import SnapshotStreams
from bt_ibkr.emulator.services.orders.prompts import Prompts
from bt_ibkr.emulator.services.orders.state import OrdersState
from bt_ibkr.emulator.services.pacing import Pacing
from bt_ibkr.emulator.services.session.state import SessionState, Tier
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.stream.hub import Hub
from bt_ibkr.emulator.types import Instrument

if TYPE_CHECKING:
    from bt_ibkr.emulator.engine import Engine
    from bt_ibkr.emulator.persistence.keeper import Keeper
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
            clock=lambda: time.monotonic() * settings.pacing_speed,
            strict=settings.strict_pacing,
            penalty_s=settings.penalty_s,
        )
        #: Keeps all of this in a file, if the settings want it.
        self.keeper: Keeper | None = None
        self.faults = Faults(self, settings.seed)
        self.snapshots = SnapshotStreams()
        self.orders = OrdersState(settings.seed)
        self.prompts = Prompts()
        #: Conids that ``secdef/search`` found: ``secdef/info`` and ``strikes`` want that first.
        self.searched: set[int] = set()
        #: Those that were found by a company's name last: they have no strikes until their symbol is searched.
        self.found_by_name: set[int] = set()
        self._server_id = 20_000_000 + settings.seed % 1000
        self.hub = Hub(self)
        engine.set_listener(self.hub)
        self.corporate = CorporateActions(self)
        self.oracle = Oracle(self)
        self._calendar = Calendar(self)
        self._calendar.arm()

    def wall_ms(self) -> int:
        """The server's own clock, which may be wrong."""
        return int(self.wall() * 1000) + self.faults.market.skew_ns // NS_PER_MS

    def updated_ms(self, now_ns: int) -> int:
        """``_updated`` of data that changed at the market time ``now_ns``."""
        return (now_ns + self.faults.market.skew_ns) // NS_PER_MS

    @property
    def now_ns(self) -> int:
        """Market time."""
        return self.engine.now_ns

    def set_tier(self, tier: Tier, *, told: bool = True) -> None:
        """Move the session; streams of the brokerage session end with it, and ``sts`` tells if ``told``."""
        before, competing = self.session.tier, self.session.competing
        self.session.set_tier(tier)
        self._forget_session()
        if before is not tier:
            self.hub.session_changed(told=told)
        if competing:
            self.hub.tell_status({"competing": False})

    def _forget_session(self) -> None:
        self.snapshots.clear()
        self.orders.forget_session()
        self.searched.clear()
        self.found_by_name.clear()

    def set_competing(self, competing: bool) -> None:
        """Another login has the brokerage session, or gave it back; ``sts`` tells."""
        if self.session.competing is not competing:
            self.session.competing = competing
            self.hub.tell_status({"competing": competing})

    def nightly_reset(self, tier: Tier) -> None:
        """The nightly break: everything is forgotten, no socket is told, heartbeats go on.

        A session that was not open before is not afterwards.
        """
        after = tier if self.session.ready else self.session.tier
        self.session.set_tier(after)
        self.session.portfolio_asked = False
        self._forget_session()
        self.hub.end_subscriptions()

    def begin_maintenance(self) -> None:
        """Nobody is logged in, nor can be."""
        self.set_tier(Tier.LOGGED_OUT)
        self.session.maintenance = True

    def end_maintenance(self, tier: Tier) -> None:
        self.session.maintenance = False
        self.set_tier(tier)

    def reset(self, seed: int) -> None:
        """The engine began anew: forget orders and streams, keep the session and the sockets."""
        self.orders = OrdersState(seed)
        self.prompts = Prompts()
        self.faults.reseed(seed)
        self.faults.listings.forget()
        self.oracle.forget()
        if self.keeper is not None:
            self.keeper.forget()
        self.hub.reset()
        self._calendar.arm()

    def save(self) -> None:
        """Keep what has changed, before anybody is told."""
        if self.keeper is not None:
            self.keeper.save()

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

    def has_line(self, conid: int) -> bool:
        """Whether data of this instrument may be given: it has a market-data line, or there is one left."""
        most = self.settings.market_data_lines
        if not most or self.has_market_data(conid):
            return True
        return len(self.snapshots.conids | self.hub.market_data_conids) < most

    def has_market_data(self, conid: int) -> bool:
        """Whether a stream of this instrument is open, by snapshot or over a socket."""
        return self.snapshots.has(conid) or self.hub.has_market_data(conid)
