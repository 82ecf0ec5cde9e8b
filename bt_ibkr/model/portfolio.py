"""Accounts, positions, cash."""

from __future__ import annotations

from decimal import Decimal

import msgspec


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One account as ``/iserver/accounts`` shows it."""

    account_id: str
    alias: str
    supports_fractions: bool = False
    supports_cash_quantity: bool = False


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """One position. ``average_price`` is per unit, ``market_value`` in ``currency``."""

    account: str
    conid: int
    symbol: str
    quantity: Decimal
    average_price: float
    average_cost: float
    market_price: float | None
    market_value: float | None
    currency: str
    security_type: str
    realized_pnl: float | None = None
    unrealized_pnl: float | None = None


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """Cash and values in one currency; the line ``BASE`` sums all in the base currency.

    Attributes:
        cash: Trade-date cash balance.
        exchange_rate: Units of base currency per unit of ``currency``.
        time_ns: The server's time of the figures.
    """

    currency: str
    cash: float
    settled_cash: float | None
    net_liquidation: float | None
    stock_value: float | None
    realized_pnl: float | None
    unrealized_pnl: float | None
    exchange_rate: float
    time_ns: int


class AccountPnl(msgspec.Struct, frozen=True, kw_only=True):
    """Profit and loss as topic ``spl`` sends it; ``None`` where a frame left a figure out."""

    account: str
    daily: float | None
    unrealized: float | None
    net_liquidation: float | None
    excess_liquidity: float | None
    market_value: float | None
