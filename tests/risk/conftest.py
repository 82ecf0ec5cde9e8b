"""A market and an account that tests set as they like, and orders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.errors import RiskRefusedError
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.market import DataQuality
from bt_ibkr.model.order import OrderTicket, OrderType, Side
from bt_ibkr.model.trading import TradingState
from bt_ibkr.risk import Book, OpenOrder, Quote, RiskGate, RiskLimits, TradingRules, effects, group_of

ACCOUNT = "DU1234567"
AAPL, MSFT, EUR, COMBO = 265598, 272093, 12087792, -5
START_NS = 1_800_000_000 * NS_PER_S
#: Nothing is limited: a test adds the one limit it is about.
NOTHING: dict[str, Any] = {
    "check_tick": False,
    "check_lot": False,
    "price_band_percent": None,
    "allow_delayed_data": True,
    "allow_frozen_data": True,
    "allow_halted": True,
    "allow_no_data": True,
    "max_quote_age_s": None,
    "orders_per_minute": None,
}


def only(**limits: Any) -> RiskLimits:
    """Limits of which only these are set."""
    return RiskLimits(**{**NOTHING, **limits}, source="risk.toml")


def quote(price: float = 100.0, **other: Any) -> Quote:
    return Quote(
        **{"bid": price - 0.5, "ask": price + 0.5, "last": price, "quality": DataQuality.REALTIME, **other}
    )


def stock(symbol: str, **other: Any) -> TradingRules:
    given = {"tick_size": Decimal("0.01"), "size_increment": Decimal(1), "open": True, "open_extended": True}
    return TradingRules(symbol=symbol, security_type="STK", **{**given, **other})


@dataclass
class Played:
    """A ``RiskView`` that says what it was told to."""

    read_only: bool = False
    state: TradingState = field(default_factory=TradingState)
    quotes: dict[int, Quote] = field(default_factory=lambda: {AAPL: quote(), MSFT: quote(50.0)})
    traded: dict[int, TradingRules] = field(
        default_factory=lambda: {AAPL: stock("AAPL"), MSFT: stock("MSFT")}
    )
    positions: dict[int, Decimal | None] = field(default_factory=lambda: defaultdict(Decimal))
    open: dict[int, list[OpenOrder]] = field(default_factory=lambda: defaultdict(list))
    open_orders_elsewhere: int = 0
    pnl: float | None = 0.0
    worth: float | None = 100_000.0
    rates: dict[str, float] = field(default_factory=lambda: {"USD": 1.0})
    books: dict[str, Book] = field(default_factory=dict)

    def trading_state(self) -> TradingState:
        return self.state

    def quote(self, conid: int) -> Quote | None:
        return self.quotes.get(conid)

    def rules(self, conid: int) -> TradingRules | None:
        return self.traded.get(conid)

    def position(self, account: str, conid: int) -> Decimal | None:
        return self.positions[conid]

    def open_orders(self, account: str, conid: int) -> list[OpenOrder]:
        return self.open[conid]

    def book(self, strategy: str) -> Book | None:
        return self.books.get(strategy)

    def open_count(self, account: str) -> int:
        keys = {order.key for orders in self.open.values() for order in orders}
        return len(keys) + self.open_orders_elsewhere

    def day_pnl(self, account: str) -> float | None:
        return self.pnl

    def net_liquidation(self, account: str) -> float | None:
        return self.worth

    def exchange_rate(self, account: str, currency: str) -> float | None:
        return self.rates.get(currency)

    def stand(self, *intents: OrderIntent) -> None:
        """Orders that passed stand open now."""
        for intent in intents:
            for conid, effect in effects(intent.ticket, intent.ticket.quantity).items():
                self.open[conid].append(
                    OpenOrder(
                        key=intent.key,
                        effect=effect,
                        parent_key=intent.parent_key,
                        group=group_of(intent, f"submission {intents[0].key}"),
                    )
                )


class Orders:
    """Makes orders with keys of their own."""

    def __init__(self, epoch: str = "00000") -> None:
        self.epoch = epoch
        self._numbers: Iterator[int] = iter(range(1, 1_000_000_000))

    def __call__(self, size: Any = 10, price: Any = None, **other: Any) -> OrderIntent:
        """An order: a buy for a size above 0, a sell below; a market order without a price."""
        of_intent = {
            name: other.pop(name) for name in ("parent_key", "group", "strategy", "dataname") if name in other
        }
        strategy = of_intent.pop("strategy", "sma_cross")
        size = Decimal(str(size))
        given: dict[str, Any] = {
            "account": ACCOUNT,
            "contract_id": AAPL,
            "side": Side.BUY if size > 0 else Side.SELL,
            "order_type": OrderType.MARKET if price is None else OrderType.LIMIT,
            "quantity": abs(size),
            "limit_price": price,
        }
        return OrderIntent(
            key=make_key(strategy, self.epoch, next(self._numbers)),
            strategy=strategy,
            ticket=OrderTicket(**{**given, **other}),
            **of_intent,
        )

    def bracket(self, size: Any, **other: Any) -> tuple[OrderIntent, OrderIntent, OrderIntent]:
        """An entry at market with its stop and its target."""
        size = Decimal(str(size))
        entry = self(size, **other)
        stop = self(
            -size, order_type=OrderType.STOP, stop_price=90.0, parent_key=entry.key, protective=True, **other
        )
        return entry, stop, self(-size, 110.0, parent_key=entry.key, **other)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_NS)


@pytest.fixture
def view() -> Played:
    return Played()


@pytest.fixture
def order() -> Orders:
    return Orders()


class Judge:
    """Gates by limits, over one view and one clock."""

    def __init__(self, view: Played, clock: ManualClock) -> None:
        self.view = view
        self.clock = clock

    def passes(self, gate: RiskGate, *intents: OrderIntent) -> None:
        gate.check(intents, self.view)

    def refusal(self, limits: RiskLimits | RiskGate, *intents: OrderIntent) -> RiskRefusedError:
        """The refusal: it must name control, value, limit, contract and remedy, whatever refused."""
        gate = limits if isinstance(limits, RiskGate) else RiskGate(limits, self.clock)
        with pytest.raises(RiskRefusedError) as caught:
            gate.check(intents, self.view)
        return proper(caught.value)

    def accepts(self, limits: RiskLimits, *intents: OrderIntent) -> bool:
        try:
            RiskGate(limits, self.clock).check(intents, self.view)
        except RiskRefusedError as refusal:
            proper(refusal)
            return False
        return True


def proper(refusal: RiskRefusedError) -> RiskRefusedError:
    """Hold a refusal to what every one must say."""
    assert refusal.control
    assert refusal.value
    assert refusal.limit
    assert refusal.key in refusal.message
    assert "contract" in refusal.message
    assert ACCOUNT in refusal.message
    assert refusal.remedy.endswith("Nothing was sent.")
    assert "  " not in str(refusal)
    assert not refusal.margin
    return refusal


@pytest.fixture
def judge(view: Played, clock: ManualClock) -> Judge:
    return Judge(view, clock)
