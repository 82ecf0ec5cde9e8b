"""Further fields: greeks and volatility, interest, what can be borrowed, and the selected account's position.

How the real server spells them is documented for few of them only (field-tags): percentages carry their sign, counts
are cut as field 87 is, amounts of money are plain. What the market does not know (open interest, shares to borrow) is
made of the conid: the same in every run.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from bt_ibkr.emulator.accounts.valuation import market_price
from bt_ibkr.emulator.market import pricing
from bt_ibkr.emulator.market.derived import expiry_ns
from bt_ibkr.emulator.market.greeks import Greeks, greeks
from bt_ibkr.emulator.services import format as text
from bt_ibkr.emulator.services.marketdata.fields import Reader, Value
from bt_ibkr.emulator.types import Instrument, QuoteState
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.portfolio import Position

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_OPTIONS = (SecurityType.OPTION, SecurityType.FUTURE_OPTION)


def reader(core: Core, instrument: Instrument, tag: str) -> Reader | None:
    """The reader of one of these fields; ``None`` where the instrument has none such, or the field is another."""
    kind = instrument.contract.security_type
    if tag in _GREEKS and kind in _OPTIONS:
        return _option(core, instrument, _GREEKS[tag])
    if tag == "7633" and kind in _OPTIONS:
        return _constant(f"{_volatility(core, instrument) * 100:.1f}%")
    if tag in _POSITION:
        return _position(core, instrument, _POSITION[tag])
    if tag in ("78", "7920"):
        return _daily(core, instrument, raw=tag == "7920")
    made = _MADE.get(tag)
    if made is None or kind not in made[0]:
        return None
    return _constant(made[1](instrument))


def _constant(value: Value) -> Reader:
    return lambda quote: value


# --- options ---------------------------------------------------------------------------------------

_GREEKS: dict[str, Callable[[Greeks], str]] = {
    "7308": lambda one: f"{one.delta:.3f}",
    "7309": lambda one: f"{one.gamma:.4f}",
    "7310": lambda one: f"{one.theta:.3f}",
    "7311": lambda one: f"{one.vega:.3f}",
}


def _underlying(core: Core, option: Instrument) -> Instrument | None:
    return core.universe.by_conid(option.underlying_conid)


def _volatility(core: Core, option: Instrument) -> float:
    underlying = _underlying(core, option)
    return option.annual_volatility if underlying is None else underlying.annual_volatility


def _option(core: Core, option: Instrument, show: Callable[[Greeks], str]) -> Reader:
    ends_ns = expiry_ns(option)

    def read(_: QuoteState) -> Value:
        underlying = _underlying(core, option)
        if underlying is None:
            return None
        price = market_price(underlying, core.engine.quote(underlying.contract.conid))
        if price is None:
            return None
        return show(
            greeks(
                price,
                option.contract.strike or 0.0,
                pricing.years(core.now_ns, ends_ns),
                underlying.annual_volatility,
                call=option.contract.right == "C",
            )
        )

    return read


# --- the position ----------------------------------------------------------------------------------


def _amount(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


_POSITION: dict[str, Callable[[Position], Value]] = {
    "73": lambda one: _amount(one.market_value),
    "74": lambda one: _amount(one.average_price),
    "75": lambda one: _amount(one.unrealized_pnl),
    "76": lambda one: text.quantity(one.quantity),
    "77": lambda one: None if one.unrealized_pnl is None else f"{one.unrealized_pnl:,.2f}",
    "79": lambda one: _amount(one.realized_pnl),
    "80": lambda one: _percent_of(one),
    "7292": lambda one: f"{one.average_cost * float(one.quantity):,.2f}",
    "7921": lambda one: _amount(one.average_cost * float(one.quantity)),
}


def _percent_of(one: Position) -> Value:
    cost = abs(one.average_cost * float(one.quantity))
    return None if not cost or one.unrealized_pnl is None else f"{one.unrealized_pnl / cost * 100:.2f}%"


def _held(core: Core, conid: int) -> Position | None:
    return core.engine.account(core.session.selected).position(conid)


def _position(core: Core, instrument: Instrument, show: Callable[[Position], Value]) -> Reader:
    def read(_: QuoteState) -> Value:
        held = _held(core, instrument.contract.conid)
        return None if held is None else show(held)

    return read


def _daily(core: Core, instrument: Instrument, *, raw: bool) -> Reader:
    """All that the position made since the run began: accounts begin with the day."""

    def read(_: QuoteState) -> Value:
        held = _held(core, instrument.contract.conid)
        if held is None:
            return None
        made = (held.unrealized_pnl or 0.0) + (held.realized_pnl or 0.0)
        return f"{made:.2f}" if raw else f"{made:,.2f}"

    return read


# --- what is made up -------------------------------------------------------------------------------


def _number(instrument: Instrument, what: str, low: int, high: int) -> int:
    """Between ``low`` and ``high``, the same for an instrument at all times."""
    return low + zlib.crc32(f"{instrument.contract.conid} {what}".encode()) % (high - low)


_STOCKS = (SecurityType.STOCK, SecurityType.FUND)
_PRICED = (*_STOCKS, SecurityType.INDEX, SecurityType.FUTURE)
_MADE: dict[str, tuple[tuple[SecurityType, ...], Callable[[Instrument], str]]] = {
    "7087": (_PRICED, lambda one: f"{one.annual_volatility * 100:.1f}%"),
    "7088": (_PRICED, lambda one: f"{one.annual_volatility * 100:.1f}%"),
    "7282": (tuple(SecurityType), lambda one: text.volume(one.average_daily_volume)),
    "7283": (_PRICED, lambda one: f"{one.annual_volatility * 100:.1f}%"),
    "7084": (_PRICED, lambda one: "100.0%"),
    "7636": (_STOCKS, lambda one: text.volume(_number(one, "borrow", 1_000_000, 90_000_000))),
    "7637": (_STOCKS, lambda one: f"{_number(one, 'fee', 25, 300) / 100:.2f}%"),
    "7638": ((*_STOCKS, *_OPTIONS), lambda one: text.volume(_number(one, "interest", 100, 90_000))),
    "7644": (_STOCKS, lambda one: "Available"),
    "7697": ((SecurityType.FUTURE,), lambda one: text.volume(_number(one, "interest", 10_000, 2_000_000))),
}
