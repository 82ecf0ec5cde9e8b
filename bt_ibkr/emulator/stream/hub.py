"""All connections, and what the engine's callbacks become on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bt_ibkr.emulator.services.call import Needs
from bt_ibkr.emulator.services.errors import ApiError
from bt_ibkr.emulator.services.orders.recent import recent_executions
from bt_ibkr.emulator.services.session import bodies
from bt_ibkr.emulator.services.session.state import Tier
from bt_ibkr.emulator.stream.account import LedgerStreams, PnlStreams, SummaryStreams
from bt_ibkr.emulator.stream.connection import Connection
from bt_ibkr.emulator.stream.depth import DepthStreams
from bt_ibkr.emulator.stream.history import HistoryStreams
from bt_ibkr.emulator.stream.marketdata import MarketDataStreams
from bt_ibkr.emulator.stream.message import Message, parse
from bt_ibkr.emulator.stream.orders import ExecutionStreams, OrderStreams
from bt_ibkr.emulator.types import EmulatedExecution, EmulatedOrder, Instrument, MarketEvent, QuoteState

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_LOGGER = logging.getLogger(__name__)
#: A tic is answered this often (recorded).
TIC_COPIES = 4
#: Topics that need no brokerage session.
_OUTER = frozenset({"tic", "spl", "upl", "ssd", "usd", "sld", "uld"})


class Hub:
    """The engine's listener and the clients' counterpart.

    Args:
        core: Shared state.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._marketdata = MarketDataStreams(core)
        self._orders = OrderStreams(core)
        self._executions = ExecutionStreams(core)
        self._pnl = PnlStreams(core)
        self._ledger = LedgerStreams(core)
        self._summary = SummaryStreams(core)
        self._history = HistoryStreams(core)
        self._depth = DepthStreams(core)
        self._flush_planned = False
        self._accepted = 0
        self._bulletins = 0
        self.connections: list[Connection] = []

    # --- connections -------------------------------------------------------------------------------

    def accept(self, transport: asyncio.Transport, port: int) -> Connection:
        """Take a new WebSocket; it is told nothing before ``greet``."""
        connection = Connection(
            transport=transport,
            port=port,
            number=self._accepted,
            binary=self._core.settings.frames == "binary",
            wake=self._wake,
        )
        self._core.faults.frames.attach(connection)
        self._accepted += 1
        self.connections.append(connection)
        return connection

    def greet(self, connection: Connection) -> None:
        """The burst with which the real server begins: from now on the client is heard.

        While nobody is logged in the client is told to wait, and greeted later.
        """
        if connection.closed:
            return
        if self._core.session.tier is Tier.LOGGED_OUT:
            connection.waiting = True
            connection.send({"message": "waiting for session"})
            return
        connection.waiting = False
        username = self._core.settings.username
        connection.send(
            {"topic": "system", "success": username, "isFT": False, "isPaper": self._core.settings.is_paper}
        )
        connection.send({"topic": "act", "args": bodies.accounts(self._core)})
        connection.send({"topic": "sts", "args": bodies.status_frame(self._core)})
        connection.ready = True

    def drop(self, connection: Connection) -> None:
        """The socket is closed: its subscriptions are gone."""
        connection.closed = True
        if connection in self.connections:
            self.connections.remove(connection)
        self._unsubscribe_all(connection)

    def _unsubscribe_all(self, connection: Connection) -> None:
        self._marketdata.drop_connection(connection)
        for stream in (self._orders, self._executions, self._pnl):
            stream.unsubscribe(connection)
        self._ledger.drop_connection(connection)
        self._summary.drop_connection(connection)
        self._history.drop_connection(connection)
        self._depth.drop_connection(connection)

    def heartbeat(self, connection: Connection) -> None:
        connection.send({"topic": "system", "hb": self._core.wall_ms()})

    def flush(self) -> None:
        """Hand all queued frames to the sockets; what they tell is kept before."""
        self._core.save()
        self._flush_planned = False
        for connection in self.connections:
            connection.flush()

    def _wake(self) -> None:
        if not self._flush_planned:
            self._flush_planned = True
            asyncio.get_running_loop().call_soon(self.flush)

    # --- the engine's callbacks --------------------------------------------------------------------

    def on_quote(self, instrument: Instrument, quote: QuoteState, event: MarketEvent) -> None:
        self._marketdata.on_quote(quote.conid, quote, event.time_ns)
        self._depth.on_quote(quote.conid, event.time_ns)

    def on_order(self, order: EmulatedOrder) -> None:
        if self._core.keeper is not None:
            self._core.keeper.changed(order)
        self._orders.on_order(order)

    def on_execution(self, execution: EmulatedExecution, order: EmulatedOrder) -> None:
        self._core.faults.listings.executed(execution)
        self._executions.on_execution(execution)

    def on_account(self, account: str) -> None:
        """Sockets hear nothing at once: account topics are sent by the market's clock."""
        self._core.faults.positions.changed(account)

    def tell_commission(self, execution: EmulatedExecution) -> None:
        """The commission of an execution that was told without it."""
        self._executions.on_commission(execution)

    # --- the session -------------------------------------------------------------------------------

    def session_changed(self, *, told: bool = True) -> None:
        """Streams of the brokerage session end without a word; ``sts`` tells the new state."""
        self._marketdata.clear()
        self._depth.clear()
        self._orders.clear()
        self._executions.clear()
        ready = self._core.session.ready
        for connection in self.connections:
            if connection.waiting:
                self.greet(connection)
            elif connection.ready and told:
                connection.send({"topic": "sts", "args": {"authenticated": ready}})

    def tell_status(self, change: dict[str, object]) -> None:
        """A partial ``sts`` frame to all, as the real server sends them."""
        for connection in self.connections:
            if connection.ready:
                connection.send({"topic": "sts", "args": change})

    def end_subscriptions(self) -> None:
        """Every subscription of every socket ends without a word."""
        for connection in self.connections:
            self._unsubscribe_all(connection)

    def quality_changed(self) -> None:
        """Open streams tell field 6509 anew where it changed."""
        self._marketdata.quality_changed()

    def know(self, order_ids: Iterable[int]) -> None:
        """Orders that were told of before the server was started again."""
        self._orders.know(order_ids)

    def reset(self) -> None:
        """The market began anew: subscriptions stay, what was told of orders is forgotten."""
        self._orders.forget()
        self._marketdata.restart()
        self._depth.restart()
        self._pnl.restart()
        self._ledger.restart()
        self._summary.restart()

    def has_market_data(self, conid: int) -> bool:
        return self._marketdata.has(conid)

    @property
    def market_data_conids(self) -> frozenset[int]:
        """What streams over any socket."""
        return self._marketdata.conids

    def shown_quote(self, conid: int) -> QuoteState | None:
        """The quote that clients are told: delayed or frozen, where the data are."""
        return self._marketdata.shown(conid)

    def close_market_data(self, conid: int | None) -> bool:
        return self._marketdata.close(conid)

    def notify(self, text: str) -> None:
        """A notice to every client."""
        for connection in self.connections:
            notice = {"id": "118", "text": text, "title": None, "url": None}
            connection.send({"topic": "ntf", "args": [notice]})

    def prompt(self, body: dict[str, object]) -> None:
        """A prompt about an order to every client."""
        for connection in self.connections:
            if connection.ready:
                connection.send({"topic": "ntf", "args": [body]})

    def bulletin(self, text: str) -> None:
        """A bulletin to every client; ``args`` is an array and the id a number, as recorded."""
        self._bulletins += 1
        bulletin = {"id": self._bulletins, "exchanges": None, "message": f"[BBSMSG Bulletin]\n{text}"}
        for connection in self.connections:
            if connection.ready:
                connection.send({"topic": "blt", "args": [bulletin]})

    # --- what clients send -------------------------------------------------------------------------

    def receive(self, connection: Connection, text: str) -> None:
        """One message of a client; before the greeting it is lost, as at the real gateway."""
        if not connection.ready:
            return
        if text.lstrip().startswith("{"):
            return  # the credential of clients that send it as their first message
        message = parse(text)
        try:
            if message.topic not in _OUTER:
                self._core.session.require(Needs.BRIDGE)
            known = self._dispatch(connection, message)
        except ApiError:
            self._refuse(connection, message.topic, "unable to subscribe", 500)
            return
        if not known:
            self._refuse(connection, message.topic, "unknown topic", 404)

    def _refuse(self, connection: Connection, topic: str, error: str, code: int) -> None:
        _LOGGER.debug("frame-refused topic=%r port=%d", topic, connection.port)
        connection.send({"error": error, "code": code, "topic": topic})

    def _dispatch(self, connection: Connection, message: Message) -> bool:
        """Whether the topic is one of those the server knows."""
        target, arguments = message.target, message.arguments
        match message.topic:
            case "tic":
                self._tic(connection)
            case "smd":
                self._marketdata.subscribe(connection, target, arguments)
            case "umd":
                self._marketdata.unsubscribe(connection, target)
            case "sor":
                self._orders.subscribe(connection, arguments)
            case "uor":
                self._orders.unsubscribe(connection)
            case "str":
                self._subscribe_executions(connection, message)
            case "utr":
                self._executions.unsubscribe(connection)
            case _:
                return self._dispatch_rest(connection, message)
        return True

    def _dispatch_rest(self, connection: Connection, message: Message) -> bool:
        target, arguments = message.target, message.arguments
        match message.topic:
            case "spl":
                self._pnl.subscribe(connection)
            case "upl":
                self._pnl.unsubscribe(connection)
            case "sld":
                self._ledger.subscribe(connection, target, arguments)
            case "uld":
                self._ledger.unsubscribe(connection, target)
                connection.send({"result": "unsubscribed from ledger"})
            case "ssd":
                self._summary.subscribe(connection, target, arguments)
            case "usd":
                self._summary.unsubscribe(connection, target)
                connection.send({"result": "unsubscribed from summary"})
            case "sbd":
                self._depth.subscribe(connection, target)
            case "ubd":
                self._depth.unsubscribe(connection, target)
            case "smh":
                self._history.subscribe(connection, target, arguments)
            case "umh":
                self._history.unsubscribe(connection, target)
            case _:
                return False
        return True

    def _tic(self, connection: Connection) -> None:
        frame = {
            "topic": "tic",
            "alive": True,
            "id": self._core.session.session_id,
            "lastAccessed": self._core.wall_ms(),
        }
        for _ in range(TIC_COPIES):
            connection.send(frame)

    def _subscribe_executions(self, connection: Connection, message: Message) -> None:
        """Keys other than these two are ignored in silence; so is a ``days`` that is no number."""
        days = message.arguments.get("days", 1)
        replay: list[EmulatedExecution] = []
        if message.arguments.get("realtimeUpdatesOnly") is not True:
            replay = recent_executions(self._core, None, days if isinstance(days, int) else 1)
        self._executions.subscribe(connection, replay)
