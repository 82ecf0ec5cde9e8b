"""What the controls need to know of market and account. Whoever places the orders tells it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import DataQuality, Tick
from bt_ibkr.model.trading import TradingState


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument's prices as they stand; ``None`` where there is none.

    Attributes:
        age_s: Market seconds since the quote was last told.
        quality: What kind of data it is.
        halted: The server marked the price as that of a halted instrument.
    """

    bid: float | None = None
    ask: float | None = None
    last: float | None = None
    age_s: float = 0.0
    quality: DataQuality = DataQuality.UNKNOWN
    halted: bool = False

    @classmethod
    def from_tick(cls, tick: Tick, now_ns: int) -> Quote:
        """The quote that stands after ``tick``, as old as the tick's frame."""
        return cls(
            bid=tick.bid,
            ask=tick.ask,
            last=tick.last,
            age_s=max(0, now_ns - tick.received_ns) / NS_PER_S,
            quality=tick.quality,
            halted=tick.halted,
        )


class TradingRules(msgspec.Struct, frozen=True, kw_only=True):
    """How an instrument is traded.

    Attributes:
        currency: Of its prices.
        multiplier: Money per point of price and unit of quantity.
        tick_size: Price step; ``None`` if not known.
        tick_steps: Steps that depend on the price, as (from this price, step), lowest first.
        size_increment: Size step; ``None`` if not known, or if the account takes any fraction.
        open: Whether its exchange trades now, in regular hours; ``None`` if not known.
        open_extended: Whether it trades now for orders that may execute outside regular hours.
    """

    symbol: str
    security_type: str
    currency: str = "USD"
    multiplier: Decimal = Decimal(1)
    tick_size: Decimal | None = None
    tick_steps: tuple[tuple[Decimal, Decimal], ...] = ()
    size_increment: Decimal | None = None
    open: bool | None = None
    open_extended: bool | None = None

    @classmethod
    def of(
        cls,
        contract: Contract,
        *,
        tick_steps: Sequence[tuple[float, float]] = (),
        fractions: bool = False,
        open_now: bool | None = None,
        open_extended: bool | None = None,
    ) -> TradingRules:
        """The rules of a contract.

        Args:
            contract: As it was resolved.
            tick_steps: Price steps by price, as ``contract/rules`` tells them.
            fractions: The account takes fractions of this instrument.
            open_now, open_extended: As above.
        """
        return cls(
            symbol=contract.symbol,
            security_type=contract.security_type.value,
            currency=contract.currency,
            multiplier=decimal(contract.multiplier),
            tick_size=decimal(contract.tick_size) if contract.tick_size > 0 else None,
            tick_steps=tuple((decimal(edge), decimal(step)) for edge, step in tick_steps),
            size_increment=None if fractions else decimal(contract.size_increment),
            open=open_now,
            open_extended=open_extended,
        )

    def tick_at(self, price: Decimal) -> Decimal | None:
        """The price step at ``price``; of a negative price that of its size."""
        found = self.tick_size
        for edge, step in self.tick_steps:
            if abs(price) >= edge:
                found = step
        return found


class OpenOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What an order that may still execute would do to one contract's position.

    Attributes:
        key: The journal's key, or IBKR's order id for an order of another program.
        effect: What its open part would add to the position: below 0 if it sells. See ``exposure.effects``.
        parent_key: Key of the bracket's parent.
        group: Name of the one-cancels-others group, kept by whomever; orders of an account with the same name
            are one group. ``None`` where it is not known: then all of them are expected to execute.
    """

    key: str
    effect: Decimal
    parent_key: str | None = None
    group: str | None = None


class Book(Protocol):
    """What one of several strategies of an account holds by itself: at a hub."""

    @property
    def name(self) -> str:
        """By which its limits are found, however many strategies its process runs."""
        ...

    def position(self, account: str, conid: int) -> Decimal | None:
        """Its part of the position; ``None`` if it is not known."""
        ...

    def open_orders(self, account: str, conid: int) -> Sequence[OpenOrder]:
        """Its orders that may still change that."""
        ...


class RiskView(Protocol):
    """Market and account as they are known at this moment. No call may block or change anything.

    What is not known is told as ``None``: a limit that needs it refuses the order, it does not guess.
    """

    @property
    def read_only(self) -> bool:
        """Whether this login may not place orders."""
        ...

    def trading_state(self) -> TradingState:
        """What the kill switch lets pass."""
        ...

    def quote(self, conid: int) -> Quote | None:
        """The instrument's quote; ``None`` without market data."""
        ...

    def rules(self, conid: int) -> TradingRules | None:
        """How it is traded; also asked of a combo's key and of its legs."""
        ...

    def position(self, account: str, conid: int) -> Decimal | None:
        """The position; ``None`` if it is not known (which is not 0)."""
        ...

    def open_orders(self, account: str, conid: int) -> Sequence[OpenOrder]:
        """Every order of the account that may still change the position in ``conid``: also combos with that leg,
        orders whose outcome is unknown, those that are being cancelled, and those of other programs."""
        ...

    def book(self, strategy: str) -> Book | None:
        """The strategy's own book; ``None`` where the account's positions are those of all who trade in it."""
        ...

    def open_count(self, account: str) -> int:
        """How many orders of the account may still execute."""
        ...

    def day_pnl(self, account: str) -> float | None:
        """Profit and loss of the day in the base currency."""
        ...

    def net_liquidation(self, account: str) -> float | None:
        """What the account is worth, in the base currency."""
        ...

    def exchange_rate(self, account: str, currency: str) -> float | None:
        """Units of the account's base currency for one of ``currency``; 1 for the base currency itself."""
        ...


def decimal(value: float) -> Decimal:
    """The decimal number that a float is written as: 0.1 is 0.1."""
    return Decimal(repr(float(value)))
