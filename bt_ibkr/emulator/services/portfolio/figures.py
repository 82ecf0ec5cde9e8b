"""What an account is worth and what it may still do, in the base currency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.portfolio import LedgerLine, Position

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: Buying power by available funds, of a margin account (Regulation T).
_LEVERAGE = 4.0
_CASH_LEVERAGE = 1.0
_LEDGER_KINDS = {
    "stockoptionmarketvalue": SecurityType.OPTION,
    "futureoptionmarketvalue": SecurityType.FUTURE_OPTION,
    "cryptocurrencyvalue": SecurityType.CRYPTO,
}


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """An account at one moment. Amounts are in ``currency``, the base currency.

    Attributes:
        positions: With a quantity other than 0.
        ledger: One line per currency, ``BASE`` last.
        values: By currency, ``BASE`` among them: market values under the ledger's names.
    """

    account: str
    currency: str
    time_ns: int
    positions: tuple[Position, ...]
    ledger: tuple[LedgerLine, ...]
    values: dict[str, dict[str, float]]
    net_liquidation: float
    cash: float
    stock_value: float
    realized_pnl: float
    unrealized_pnl: float
    daily_pnl: float
    initial_margin: float
    maintenance_margin: float
    buying_power: float

    @property
    def available_funds(self) -> float:
        return self.net_liquidation - self.initial_margin

    @property
    def excess_liquidity(self) -> float:
        return self.net_liquidation - self.maintenance_margin

    @property
    def gross_value(self) -> float:
        return sum(abs(one.market_value or 0.0) for one in self.positions)


def figures(core: Core, account_id: str) -> Figures:
    """The account's figures now."""
    account = core.engine.account(account_id)
    margins = core.engine.margin(account_id)
    ledger = tuple(account.ledger_lines(core.now_ns))
    available = float(margins.equity - margins.initial)
    leverage = _CASH_LEVERAGE if account.kind == "cash" else _LEVERAGE
    return Figures(
        account=account_id,
        currency=account.currency,
        time_ns=core.now_ns,
        positions=tuple(one for one in account.positions() if one.quantity),
        ledger=ledger,
        values={
            line.currency: {
                name: float(account.value_of(kind, line.currency)) for name, kind in _LEDGER_KINDS.items()
            }
            for line in ledger
        },
        net_liquidation=float(account.net_liquidation()),
        cash=float(account.cash()),
        stock_value=float(account.stock_value()),
        realized_pnl=float(account.realized_pnl()),
        unrealized_pnl=float(account.unrealized_pnl()),
        daily_pnl=float(account.daily_pnl()),
        initial_margin=float(margins.initial),
        maintenance_margin=float(margins.maintenance),
        buying_power=max(available, 0.0) * leverage,
    )
