"""Working orders of one instrument, with what matching needs to know of them."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from bt_ibkr.emulator.accounts.valuation import exact
from bt_ibkr.emulator.exchange.checks import TRAILS, size_step
from bt_ibkr.emulator.types import EmulatedOrder, Instrument, MarketEvent, QuoteState
from bt_ibkr.model.commission import OrderProgress
from bt_ibkr.model.order import DONE, OrderType, Side

_T = OrderType
TRIGGERED = frozenset(
    {_T.STOP, _T.STOP_LIMIT, _T.TRAIL, _T.TRAIL_LIMIT, _T.MARKET_IF_TOUCHED, _T.LIMIT_IF_TOUCHED}
)
TOUCHED = frozenset({_T.MARKET_IF_TOUCHED, _T.LIMIT_IF_TOUCHED})
AT_CLOSE = frozenset({_T.MARKET_ON_CLOSE, _T.LIMIT_ON_CLOSE})
PEGGED = frozenset({_T.MIDPRICE, _T.RELATIVE})


class Working:
    """An order in the book.

    Attributes:
        progress: What has executed, for the commission.
        arrival: Count of the instrument's prints when the order became able to match; only later prints
            count for it.
        resting: It was seen not to be marketable: from then on others trade against it, at its price.
        seen: A print came since it arrived or was triggered (fill model ``last``).
        limit: The limit price in force; a trail's is set when it triggers.
        expires_ns: When an order for the day, or for one session, ends.
        opens_ns: Of an order for the opening auction: from when on the first print executes it.
        released: How much an algorithm lets trade so far; ``None`` for all of it.
        participation: The fraction of what others trade that an algorithm releases, and from when on.
        paid: What has executed by account and conid, for the commission.
        terms: Units of the currency per USD and shares traded in the month before, by account; fixed at the
            first execution, for the commission.
        opened: Somebody has traded in the present session when the order came.
        held: It waits for the answer to a prompt, or was entered without being transmitted.
    """

    __slots__ = (
        "arrival",
        "expires_ns",
        "held",
        "instrument",
        "limit",
        "opened",
        "opens_ns",
        "order",
        "paid",
        "participation",
        "progress",
        "released",
        "resting",
        "seen",
        "terms",
    )

    def __init__(self, order: EmulatedOrder, instrument: Instrument) -> None:
        self.order = order
        self.instrument = instrument
        self.progress = OrderProgress()
        self.arrival = 0
        self.resting = False
        self.seen = False
        self.limit = order.spec.limit_price
        self.expires_ns: int | None = None
        self.opened = False
        self.opens_ns: int | None = None
        self.released: Decimal | None = None
        self.participation: tuple[Decimal, int] | None = None
        self.paid: dict[tuple[str, int], OrderProgress] = {}
        self.terms: dict[str, tuple[Decimal, Decimal]] = {}
        self.held = order.spec.deactivated

    @property
    def alive(self) -> bool:
        return self.order.status not in DONE

    @property
    def buys(self) -> bool:
        return self.order.spec.side is Side.BUY

    @property
    def step(self) -> Decimal:
        """The smallest quantity that an execution can have."""
        return size_step(self.order.spec, self.instrument)

    @property
    def matchable(self) -> Decimal:
        """What is left of the order, as far as it has been released."""
        left = self.order.remaining
        return left if self.released is None else min(left, self.released - self.order.filled)

    def afford(self, price: float) -> None:
        """Let the quantity of an order for an amount of cash be what is left of the cash buys at a price."""
        spec = self.order.spec
        if spec.cash_quantity is None or price <= 0:
            return
        unit = exact(price) * exact(self.instrument.contract.multiplier)
        # as long as it works it trades a step at least: what a last crumb of cash buys is no reason to wait
        more = max((spec.cash_quantity - self.progress.value) / unit // self.step * self.step, self.step)
        self.order.spec = msgspec.structs.replace(spec, quantity=self.order.filled + more)

    @property
    def waits_for_trigger(self) -> bool:
        return self.order.spec.order_type in TRIGGERED and not self.order.triggered

    def triggers(self, price: float) -> bool:
        """Whether a print at that price triggers the order."""
        stop = self.order.stop_price
        if stop is None:
            return False
        upwards = self.buys is not (self.order.spec.order_type in TOUCHED)
        return price >= stop if upwards else price <= stop

    def trail(self, price: float) -> None:
        """Let the stop of a trailing order follow a print; it only moves in the order's favour."""
        spec = self.order.spec
        if spec.order_type not in TRAILS or self.order.triggered:
            return
        distance = spec.trail_amount
        if distance is None:
            distance = price * (spec.trail_percent or 0.0) / 100
        tick = exact(self.instrument.contract.tick_size)
        wanted = exact(price) + exact(distance) * spec.side.sign
        stop = float((wanted / tick).to_integral_value() * tick)
        held = self.order.stop_price
        if held is None or (stop < held if self.buys else stop > held):
            self.order.stop_price = stop

    def trigger(self) -> None:
        """Turn the order into the market or limit order it stands for."""
        order = self.order
        order.triggered = True
        self.resting = self.seen = False
        spec = order.spec
        if spec.order_type is OrderType.TRAIL_LIMIT and order.stop_price is not None:
            # the limit keeps the distance from the stop that it was given with
            offset = 0.0
            if spec.limit_price is not None and spec.stop_price is not None:
                offset = spec.limit_price - spec.stop_price
            self.limit = float(exact(order.stop_price) + exact(round(offset, 10)))

    def price_limit(self, quote: QuoteState) -> float | None:
        """The worst price the order takes at present; ``None`` for any.

        ``MIDPRICE`` is pegged to the middle of bid and ask, ``REL`` to the own side's best price, improved by
        its offset (``stop_price``); a limit price caps both. While there is no quote, the cap alone counts.
        """
        kind = self.order.spec.order_type
        if kind not in PEGGED:
            return None if kind in (_T.MARKET, _T.STOP, _T.TRAIL, _T.MARKET_IF_TOUCHED) else self.limit
        peg: float | None = None
        if kind is OrderType.MIDPRICE:
            if quote.bid is not None and quote.ask is not None:
                peg = (quote.bid + quote.ask) / 2
        else:
            own = quote.bid if self.buys else quote.ask
            if own is not None:
                offset = exact(self.order.spec.stop_price or 0.0) * self.order.spec.side.sign
                peg = float(exact(own) + offset)
        if peg is None or self.limit is None:
            return self.limit if peg is None else peg
        return min(peg, self.limit) if self.buys else max(peg, self.limit)


class Book:
    """Working orders of one instrument and the displayed size that is left for them.

    Attributes:
        prints: How many prints there were; for instruments without trades, changes of the bid.
        bid_left, ask_left: What our own orders have left of the displayed size; ``None`` if no size is
            displayed, which then does not limit them.
    """

    __slots__ = ("ask_left", "bid_left", "instrument", "orders", "prints", "quote")

    def __init__(self, instrument: Instrument, quote: QuoteState) -> None:
        self.instrument = instrument
        self.quote = quote
        self.orders: list[Working] = []
        self.prints = 0
        self.bid_left: Decimal | None = None
        self.ask_left: Decimal | None = None

    def take_in(self, event: MarketEvent) -> None:
        """Note a change of the quote: it replenishes the displayed size and may be a print."""
        quote = self.quote
        if event.bid is not None or event.bid_size is not None:
            self.bid_left = None if quote.bid_size is None else exact(quote.bid_size)
        if event.ask is not None or event.ask_size is not None:
            self.ask_left = None if quote.ask_size is None else exact(quote.ask_size)
        if self.print_of(event) is not None:
            self.prints += 1

    def print_of(self, event: MarketEvent) -> float | None:
        """The price at which the event says that something traded."""
        return event.bid if self.instrument.quote_only else event.last

    def last_print(self) -> float | None:
        """The latest print."""
        return self.quote.bid if self.instrument.quote_only else self.quote.last

    def left(self, *, buys: bool) -> Decimal | None:
        """Displayed size left for buyers or sellers."""
        return self.ask_left if buys else self.bid_left

    def use(self, quantity: Decimal, *, buys: bool) -> None:
        """Take from the displayed size."""
        if buys and self.ask_left is not None:
            self.ask_left -= quantity
        elif not buys and self.bid_left is not None:
            self.bid_left -= quantity

    def by_priority(self, *, buys: bool) -> list[Working]:
        """Active orders of one side, the best price first, then the earliest."""

        def rank(working: Working) -> tuple[float, int]:
            limit = working.price_limit(self.quote)
            price = float("-inf") if limit is None else -limit if buys else limit
            return price, working.order.sequence

        return sorted((w for w in self.orders if w.buys is buys and w.order.active), key=rank)
