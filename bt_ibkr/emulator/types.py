"""What passes between the engine (market, exchange, accounts) and the server (HTTP, WebSocket).

The engine is synchronous, single-threaded and knows no sockets: the same seed, tape and requests give
the same executions. The server turns requests into calls and callbacks into frames. All times are epoch
nanoseconds of *market* time; quantities are ``Decimal``, prices ``float``.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

import msgspec

from bt_ibkr.model.contract import Contract, Leg
from bt_ibkr.model.order import OrderStatus, OrderType, Side, TimeInForce


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the emulator's universe: the contract and how it trades.

    Attributes:
        contract: What the client sees of it (conid, symbol, exchange, currency, tick, lot …).
        valid_exchanges: Where it can be routed.
        company_name: As ``secdef/search`` shows it.
        is_us: As ``trsrv/stocks`` shows it.
        reference_price: Where a synthetic market starts.
        annual_volatility: Of a synthetic market, as a fraction (0.25).
        average_daily_volume: Of a synthetic market, in units.
        quote_only: Trades are never printed (forex): bars and the fill model ``last`` use the bid.
        session_open, session_close: Regular trading hours ``HH:MM`` in ``time_zone``; a session that opens later
            than it closes begins on the evening before.
        extended_open, extended_close: With the hours around them; empty for New York's of a US stock, else for none.
        calendar: Holidays and short days, of ``market.holidays.CALENDARS``; empty for that of its exchange.
        price_decimals: Digits behind the point of its prices, where they are more than those of the tick.
        underlying_conid: Of an option, a warrant, a CFD or an event contract: what it is on.
        trading_class, local_symbol, contract_month: As IBKR tells them (month as ``YYYYMM``); empty for what follows
            from the contract.
        coupon: Of a bond, in percent of its face value.
        issuer: Of a bond: IBKR's id of who issued it, as ``e1234567``.
        digital: An event contract: it pays 1 if the event happens, and is never sold; see ``universe_events``.
    """

    contract: Contract
    valid_exchanges: tuple[str, ...] = ("SMART",)
    company_name: str = ""
    is_us: bool = True
    reference_price: float = 100.0
    annual_volatility: float = 0.25
    average_daily_volume: float = 1_000_000.0
    quote_only: bool = False
    session_open: str = "09:30"
    session_close: str = "16:00"
    time_zone: str = "America/New_York"
    extended_open: str = ""
    extended_close: str = ""
    calendar: str = ""
    price_decimals: int = 0
    underlying_conid: int = 0
    trading_class: str = ""
    local_symbol: str = ""
    contract_month: str = ""
    coupon: float | None = None
    issuer: str = ""
    digital: bool = False


class MarketEvent(msgspec.Struct, frozen=True, gc=False):
    """One line of the tape; ``None`` leaves a value as it was (an smd frame does the same).

    Where nothing else is said, ``last`` is a print of ``last_size``. The last three come from recordings only.

    Attributes:
        traded: What the prints that the event stands for add up to; 0 for a ``last`` that is none.
        volume: The day's volume after it; counted from the prints where it is not told.
        halted: Whether the instrument is halted from now on, as 1 or 0.
    """

    time_ns: int
    conid: int
    bid: float | None = None
    bid_size: float | None = None
    ask: float | None = None
    ask_size: float | None = None
    last: float | None = None
    last_size: float | None = None
    traded: float | None = None
    volume: float | None = None
    halted: float | None = None


class QuoteState:
    """The present quote of one instrument (mutable, owned by the engine).

    ``version`` counts changes; ``volume`` is the day's; ``halted`` marks a halt; ``trades`` counts prints.
    """

    __slots__ = (
        "ask",
        "ask_size",
        "bid",
        "bid_size",
        "close",
        "conid",
        "halted",
        "high",
        "last",
        "last_size",
        "low",
        "open",
        "prior_close",
        "time_ns",
        "trades",
        "version",
        "volume",
    )

    def __init__(self, conid: int) -> None:
        self.conid = conid
        self.time_ns = 0
        self.bid: float | None = None
        self.bid_size: float | None = None
        self.ask: float | None = None
        self.ask_size: float | None = None
        self.last: float | None = None
        self.last_size: float | None = None
        self.open: float | None = None
        self.high: float | None = None
        self.low: float | None = None
        self.close: float | None = None
        self.prior_close: float | None = None
        self.volume = 0.0
        self.trades = 0
        self.version = 0
        self.halted = False


def opposite(side: Side) -> Side:
    """The other side."""
    return Side.SELL if side is Side.BUY else Side.BUY


AlgorithmValue = str | bool | float


class Algorithm(msgspec.Struct, frozen=True):
    """An algorithm that works an order, by IBKR's id, with its parameters by theirs."""

    name: str
    parameters: tuple[tuple[str, AlgorithmValue], ...] = ()

    def value(self, parameter: str) -> AlgorithmValue | None:
        return dict(self.parameters).get(parameter)


class Share(msgspec.Struct, frozen=True):
    """An account's part of an order for a group: ``weight`` in proportion to those of the others."""

    account: str
    weight: Decimal


class OrderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the exchange takes it: checked for form, all questions answered.

    Attributes:
        account: An account, or the name of an adviser's group.
        conid: Of a combo its key below 0.
        legs: Of a combo.
        quantity: Units; of an order for an amount of cash the present estimate.
        limit_price, stop_price: The stop of ``REL`` is its offset.
        cash_quantity: What is to be spent or collected, in the contract's currency.
        currency_conversion: A forex order that leaves no position of the pair behind.
        all_or_none: It executes in one piece or not at all.
        price_management: Whether IBKR's price management algorithm is used; ``None`` if that was not said.
        deactivated: It is kept, but not transmitted.
        allocation: Of an order for a group: who gets how much of it.
        origin: Who placed it, if that was not a client of the API: ``tws``, ``mobile`` or ``liquidation``.
    """

    account: str
    conid: int
    side: Side
    order_type: OrderType
    quantity: Decimal
    limit_price: float | None = None
    stop_price: float | None = None
    trail_amount: float | None = None
    trail_percent: float | None = None
    time_in_force: TimeInForce = TimeInForce.DAY
    outside_regular_hours: bool = False
    client_order_id: str | None = None
    parent_client_id: str | None = None
    one_cancels_all: bool = False
    exchange: str = "SMART"
    origin: str = ""
    legs: tuple[Leg, ...] = ()
    cash_quantity: Decimal | None = None
    currency_conversion: bool = False
    all_or_none: bool = False
    algorithm: Algorithm | None = None
    price_management: bool | None = None
    deactivated: bool = False
    allocation: tuple[Share, ...] = ()

    def shares(self) -> tuple[Share, ...]:
        """Who gets how much of it; an ordinary order is its account's alone."""
        return self.allocation or (Share(self.account, Decimal(1)),)


class EmulatedOrder:
    """The exchange's own record of an order (mutable, owned by the engine).

    Attributes:
        order_id: IBKR-like integer id, unique for the life of the emulator.
        parent_id: ``order_id`` of the bracket's parent, or 0.
        oca_group: Name of the group whose members cancel each other, or "".
        status: The real status word.
        active: False while a bracket child waits for its parent.
        triggered: True once a stop has become a market or limit order.
        filled, average_price, commission: So far.
        reason: Why the system cancelled or rejected it, or "".
    """

    __slots__ = (
        "active",
        "average_price",
        "commission",
        "created_ns",
        "filled",
        "oca_group",
        "order_id",
        "parent_id",
        "reason",
        "sequence",
        "spec",
        "status",
        "stop_price",
        "triggered",
        "updated_ns",
    )

    def __init__(self, order_id: int, spec: OrderSpec, created_ns: int) -> None:
        self.order_id = order_id
        self.spec = spec
        self.parent_id = 0
        self.oca_group = ""
        self.status = OrderStatus.INACTIVE
        self.active = True
        self.triggered = False
        self.filled = Decimal(0)
        self.average_price = 0.0
        self.commission = 0.0
        #: The working stop price; trails move it.
        self.stop_price = spec.stop_price
        self.created_ns = created_ns
        self.updated_ns = created_ns
        self.sequence = 0
        self.reason = ""

    @property
    def remaining(self) -> Decimal:
        return self.spec.quantity - self.filled


class EmulatedExecution(msgspec.Struct, frozen=True, kw_only=True):
    """One execution, as the exchange's ledger keeps it.

    Attributes:
        corrects: Id of the execution that this one replaces; of a trade that was taken back, the replacement
            has a quantity of 0.
        envelope: It tells that a combo traded and changes no position; executions of the legs follow.
    """

    execution_id: str
    order_id: int
    account: str
    conid: int
    side: Side
    quantity: Decimal
    price: float
    commission: float
    time_ns: int
    exchange: str
    client_order_id: str | None
    position_after: Decimal
    sequence: int
    corrects: str = ""
    envelope: bool = False


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of the exchange to one order of a submission: an order, or a refusal in words."""

    order: EmulatedOrder | None
    error: str | None = None


class Advance(msgspec.Struct, frozen=True, kw_only=True):
    """What a call of ``Engine.advance`` did.

    Attributes:
        now_ns: Market time now.
        events: Tape events applied.
        order_events: Order changes and executions that happened meanwhile.
        done: The tape is at its end.
    """

    now_ns: int
    events: int
    order_events: int
    done: bool


class Listener(Protocol):
    """Who is told what happens, at once and in order, from inside the engine's calls."""

    def on_quote(self, instrument: Instrument, quote: QuoteState, event: MarketEvent) -> None:
        """The quote changed (it already holds the new values). Orders are matched *after* this call."""

    def on_order(self, order: EmulatedOrder) -> None:
        """The order's status or quantities changed."""

    def on_execution(self, execution: EmulatedExecution, order: EmulatedOrder) -> None:
        """An order executed; account and order are already updated. ``on_order`` follows."""

    def on_account(self, account: str) -> None:
        """Cash or a position of the account changed."""


TimerCallback = Callable[[int], None]
