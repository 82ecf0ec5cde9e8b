"""Topic ``sbd``: BookTrader's ladder, one an account (documented, never seen recorded: wire facts, 4.6).

The tape knows the best bid and ask only. What stands behind them is made of them: further prices a tick apart, with
sizes that follow from the price and stay what they are; and the clients' own limit orders stand where they stand.
The whole ladder is sent first and whenever its prices change, else the rows that changed.
"""

from __future__ import annotations

import zlib
from decimal import Decimal
from typing import TYPE_CHECKING

from bt_ibkr.clock import NS_PER_MS
from bt_ibkr.emulator.accounts.valuation import exact
from bt_ibkr.emulator.exchange.book import Book
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services import format as text
from bt_ibkr.emulator.stream.connection import Connection
from bt_ibkr.emulator.types import Instrument, QuoteState
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import OrderType

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: Prices on each side.
LEVELS = 10
#: Market time between two frames of one ladder.
GAP_NS = 500 * NS_PER_MS

Row = dict[str, object]


class _Ladder:
    """What one account of one connection is shown."""

    def __init__(self, connection: Connection, account: str, instrument: Instrument) -> None:
        self.connection = connection
        self.account = account
        self.instrument = instrument
        self.rows: list[Row] = []
        self.due_ns = 0
        self.timer: int | None = None

    def tell(self, rows: list[Row]) -> None:
        """Send what changed."""
        prices = [row["price"] for row in rows]
        if prices == [row["price"] for row in self.rows]:
            changed = [new for new, old in zip(rows, self.rows, strict=True) if new != old]
        else:
            changed = rows
        self.rows = rows
        if changed:
            topic = f"sbd+{self.account}+{self.instrument.contract.conid}"
            self.connection.send({"topic": topic, "data": changed})


class DepthStreams:
    """All ladders.

    Args:
        core: For the engine and the settings.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ladders: dict[tuple[Connection, str], _Ladder] = {}

    def subscribe(self, connection: Connection, target: str) -> None:
        """Show an instrument; the one that the account was shown before is gone. ``ACCOUNT+CONID[+EXCHANGE]``.

        Raises:
            ApiError: The account is not one of ours.
        """
        account, _, rest = target.partition("+")
        conid = rest.partition("+")[0]
        if account not in self._core.session.accounts:
            raise errors.bad_request(f"accountId is not valid: {account}")
        known = conid.isascii() and conid.isdigit() and len(conid) <= 18
        instrument = self._core.instrument(int(conid)) if known else None
        if instrument is None or not self._core.faults.market.entitled(int(conid)):
            return
        self.unsubscribe(connection, account)
        self._core.engine.book(instrument.contract.conid)
        ladder = self._ladders[connection, account] = _Ladder(connection, account, instrument)
        self._push(ladder, self._core.now_ns)

    def unsubscribe(self, connection: Connection, account: str) -> None:
        ladder = self._ladders.pop((connection, account.partition("+")[0]), None)
        if ladder is not None and ladder.timer is not None:
            self._core.engine.cancel_timer(ladder.timer)

    def drop_connection(self, connection: Connection) -> None:
        for owner, account in list(self._ladders):
            if owner is connection:
                self.unsubscribe(owner, account)

    def clear(self) -> None:
        for connection, account in list(self._ladders):
            self.unsubscribe(connection, account)

    def restart(self) -> None:
        """The market began anew."""
        for ladder in self._ladders.values():
            ladder.rows, ladder.due_ns, ladder.timer = [], 0, None

    def on_quote(self, conid: int, now_ns: int) -> None:
        """The quote changed: send now, or when the ladder's next frame is due."""
        if not self._ladders:
            return
        for ladder in self._ladders.values():
            if ladder.instrument.contract.conid != conid or ladder.timer is not None:
                continue
            if now_ns >= ladder.due_ns:
                self._push(ladder, now_ns)
            else:
                self._plan(ladder)

    def _plan(self, ladder: _Ladder) -> None:
        def due(at_ns: int) -> None:
            ladder.timer = None
            self._push(ladder, at_ns)

        ladder.timer = self._core.engine.schedule(ladder.due_ns, due)

    def _push(self, ladder: _Ladder, now_ns: int) -> None:
        quote = self._core.hub.shown_quote(ladder.instrument.contract.conid)
        if quote is None:
            return
        ladder.due_ns = now_ns + GAP_NS
        ladder.tell(rows(ladder.instrument, quote, self._core.engine.book(quote.conid)))


def rows(instrument: Instrument, quote: QuoteState, book: Book) -> list[Row]:
    """The ladder, the highest price first."""
    tick = exact(instrument.contract.tick_size)
    round_lot = 100 if instrument.contract.security_type is SecurityType.STOCK else 1
    lot = max(exact(instrument.contract.size_increment), Decimal(round_lot))
    bids, asks = _own(book, buys=True), _own(book, buys=False)
    for side, best, size, step in (
        (bids, quote.bid, quote.bid_size, -tick),
        (asks, quote.ask, quote.ask_size, tick),
    ):
        if best is None or not size:
            continue
        side[exact(best)] = side.get(exact(best), Decimal(0)) + exact(size)
        for level in range(1, LEVELS):
            price = exact(best) + level * step
            if price > 0:
                made = lot * (
                    1 + zlib.crc32(f"{instrument.contract.conid} {price.normalize()}".encode()) % 20
                )
                side[price] = side.get(price, Decimal(0)) + made
    last = None if quote.last is None else exact(quote.last)
    prices = sorted({*bids, *asks, *(() if last is None else (last,))}, reverse=True)
    digits = text.decimals(instrument.contract.tick_size)
    found: list[Row] = []
    for number, price in enumerate(prices):
        shown = f"{price:.{digits}f}"
        if price == last and quote.last_size is not None:
            shown = f"{text.quantity(quote.last_size)} @ {shown}"
        row: Row = {"row": number, "focus": int(price == last), "price": shown}
        if price in bids:
            row["bid"] = text.quantity(bids[price])
        if price in asks:
            row["ask"] = text.quantity(asks[price])
        found.append(row)
    return found


def _own(book: Book, *, buys: bool) -> dict[Decimal, Decimal]:
    """The clients' limit orders by price."""
    found: dict[Decimal, Decimal] = {}
    for working in book.by_priority(buys=buys):
        spec = working.order.spec
        if spec.order_type is OrderType.LIMIT and spec.limit_price is not None:
            price = exact(spec.limit_price)
            found[price] = found.get(price, Decimal(0)) + working.order.remaining
    return found
