"""One account: cash by currency, positions, profit and loss.

Everything is reckoned in ``Decimal``. Facts about IBKR's figures: the average *cost* of a position holds the
commissions of its opening executions, the average *price* does not; a currency pair moves the cash of both
currencies and shows up as a (virtual) position of the pair besides; futures move no cash but their commission
and, when closed, their profit.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.accounts.valuation import Valuation, exact
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import Side
from bt_ibkr.model.portfolio import LedgerLine, Position

ZERO = Decimal(0)
#: Options on futures are not among them: their premium is paid when they are bought.
_MARKED_TO_MARKET = frozenset({SecurityType.FUTURE, SecurityType.CFD})
_NOT_PAID = _MARKED_TO_MARKET | {SecurityType.FOREX}
_NOT_STOCK = _NOT_PAID | {SecurityType.OPTION, SecurityType.FUTURE_OPTION, SecurityType.CRYPTO}


class AccountConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account as it starts.

    Attributes:
        account_id: ``DU…`` for paper accounts.
        cash: In ``currency``.
        currency: The base currency.
        kind: ``margin``, or ``cash``: nothing is lent and nothing can be sold short.
    """

    account_id: str = "DU1234567"
    cash: float = 1_000_000.0
    currency: str = "USD"
    kind: str = "margin"


class Holding:
    """A position as it is reckoned: totals, so that nothing is lost by division.

    ``paid`` is the signed value of the open quantity at the prices of its executions, ``cost`` the same with
    the commissions of these executions, both times the multiplier.
    """

    __slots__ = ("cost", "paid", "quantity", "realized")

    def __init__(self) -> None:
        self.quantity = ZERO
        self.paid = ZERO
        self.cost = ZERO
        self.realized = ZERO


class Account:
    """The books of one account.

    Args:
        config: How it starts.
        valuation: Present prices and rates.
    """

    def __init__(self, config: AccountConfig, valuation: Valuation) -> None:
        self.account_id = config.account_id
        self.currency = config.currency
        self.kind = config.kind
        self._valuation = valuation
        self._start = exact(float(config.cash))
        self._cash: dict[str, Decimal] = {config.currency: self._start}
        self._holdings: dict[int, Holding] = {}
        self.commissions: dict[str, Decimal] = {}

    # ------------------------------------------------------------------ changes

    def execute(
        self,
        instrument: Instrument,
        side: Side,
        quantity: Decimal,
        price: float,
        commission: Decimal,
        *,
        conversion: bool = False,
    ) -> Decimal:
        """Book an execution.

        Args:
            instrument: No combo: its legs are booked.
            side, quantity, price: Of the execution.
            commission: In the contract's currency.
            conversion: Of a currency pair: money is exchanged and leaves no position.

        Returns:
            The position after it.
        """
        contract = instrument.contract
        value = quantity * exact(price) * exact(contract.multiplier)
        if conversion:
            self.commissions[contract.currency] = self.commissions.get(contract.currency, ZERO) + commission
            self._add_cash(contract.currency, -side.sign * value - commission)
            self._add_cash(contract.symbol.partition(".")[0], side.sign * quantity)
            return self.quantity(contract.conid)
        holding = self._holdings.setdefault(contract.conid, Holding())
        profit = _book(holding, side.sign * quantity, side.sign * value, commission)
        self.commissions[contract.currency] = self.commissions.get(contract.currency, ZERO) + commission
        if contract.security_type in _MARKED_TO_MARKET:
            self._add_cash(contract.currency, profit - commission)
        else:
            self._add_cash(contract.currency, -side.sign * value - commission)
            if contract.security_type is SecurityType.FOREX:
                self._add_cash(contract.symbol.partition(".")[0], side.sign * quantity)
        return holding.quantity

    def restore(
        self,
        *,
        cash: dict[str, Decimal],
        commissions: dict[str, Decimal],
        holdings: dict[int, Holding],
    ) -> None:
        """Take over the books of an account as it was."""
        self._cash = cash
        self.commissions = commissions
        self._holdings = holdings

    def _add_cash(self, currency: str, amount: Decimal) -> None:
        self._cash[currency] = self._cash.get(currency, ZERO) + amount

    # ------------------------------------------------------------------ reading

    def cash(self, currency: str | None = None) -> Decimal:
        """Cash in a currency, or all cash in the base currency."""
        if currency is not None and currency != "BASE":
            return self._cash.get(currency, ZERO)
        return sum((amount * self._rate(name) for name, amount in self._cash.items()), ZERO)

    def cash_by_currency(self) -> dict[str, Decimal]:
        """Cash in each currency the account ever held."""
        return dict(self._cash)

    def quantity(self, conid: int) -> Decimal:
        """The signed position."""
        holding = self._holdings.get(conid)
        return ZERO if holding is None else holding.quantity

    def holdings(self) -> dict[int, Holding]:
        """The books by conid, those of closed positions included."""
        return self._holdings

    def positions(self) -> list[Position]:
        """Open positions, and closed ones with a quantity of 0, in the order of first trade."""
        return [self._position(conid, holding) for conid, holding in self._holdings.items()]

    def position(self, conid: int) -> Position | None:
        """One position; ``None`` if the instrument was never traded."""
        holding = self._holdings.get(conid)
        return None if holding is None else self._position(conid, holding)

    def _position(self, conid: int, holding: Holding) -> Position:
        contract = self._valuation.instrument(conid).contract
        multiplier = exact(contract.multiplier)
        price = self._valuation.price(conid)
        open_quantity = holding.quantity
        return Position(
            account=self.account_id,
            conid=conid,
            symbol=contract.symbol,
            quantity=open_quantity,
            average_price=float(holding.paid / open_quantity / multiplier) if open_quantity else 0.0,
            average_cost=float(holding.cost / open_quantity) if open_quantity else 0.0,
            market_price=None if price is None else float(price),
            market_value=None if price is None else float(open_quantity * price * multiplier),
            currency=contract.currency,
            security_type=contract.security_type.value,
            realized_pnl=float(holding.realized),
            unrealized_pnl=float(self._open_profit(conid, holding)),
        )

    def _open_profit(self, conid: int, holding: Holding) -> Decimal:
        price = self._valuation.price(conid)
        if price is None or not holding.quantity:
            return ZERO
        multiplier = exact(self._valuation.instrument(conid).contract.multiplier)
        return holding.quantity * price * multiplier - holding.cost

    def market_value(self, conid: int) -> Decimal:
        """Signed value of a position, in the contract's currency; at cost while there is no price."""
        holding = self._holdings.get(conid)
        if holding is None or not holding.quantity:
            return ZERO
        price = self._valuation.price(conid)
        if price is None:
            return holding.paid
        return holding.quantity * price * exact(self._valuation.instrument(conid).contract.multiplier)

    def net_liquidation(self, currency: str | None = None) -> Decimal:
        """Cash and what the positions are worth, in the base currency, or of one currency only.

        A pair's position is not counted, as its money is in the cash; of a future only the profit is.
        """
        names = self._currencies() if currency in (None, "BASE") else [str(currency)]
        total = ZERO
        for name in names:
            worth = self._cash.get(name, ZERO) + self._worth(name)
            total += worth if currency == name else worth * self._rate(name)
        return total

    def stock_value(self, currency: str | None = None) -> Decimal:
        """Market value of what was paid for in full: neither pairs nor futures, and no options or coins."""
        return sum((self.value_of(kind, currency) for kind in SecurityType if kind not in _NOT_STOCK), ZERO)

    def value_of(self, kind: SecurityType, currency: str | None = None) -> Decimal:
        """Market value of the positions of a kind, in the base currency, or those of one currency."""
        total = ZERO
        for conid in self._holdings:
            contract = self._valuation.instrument(conid).contract
            if contract.security_type is not kind:
                continue
            if currency in (None, "BASE"):
                total += self.market_value(conid) * self._rate(contract.currency)
            elif contract.currency == currency:
                total += self.market_value(conid)
        return total

    def _worth(self, currency: str) -> Decimal:
        total = sum((self.value_of(kind, currency) for kind in SecurityType if kind not in _NOT_PAID), ZERO)
        for conid, holding in self._holdings.items():
            contract = self._valuation.instrument(conid).contract
            if contract.currency == currency and contract.security_type in _MARKED_TO_MARKET:
                total += self.market_value(conid) - holding.paid
        return total

    def unrealized_pnl(self, currency: str | None = None) -> Decimal:
        """Profit of the open positions against their cost."""
        return self._sum_of(currency, self._open_profit)

    def realized_pnl(self, currency: str | None = None) -> Decimal:
        """Profit of what was closed, after commissions."""
        return self._sum_of(currency, lambda _, holding: holding.realized)

    def daily_pnl(self) -> Decimal:
        """Profit since the emulator started, in the base currency.

        Foreign cash is taken at the present rate, so a change of rates shows up here too.
        """
        return self.net_liquidation() - self._start

    def _sum_of(self, currency: str | None, figure: Callable[[int, Holding], Decimal]) -> Decimal:
        total = ZERO
        for conid, holding in self._holdings.items():
            name = self._valuation.instrument(conid).contract.currency
            amount = figure(conid, holding)
            if currency in (None, "BASE"):
                total += amount * self._rate(name)
            elif name == currency:
                total += amount
        return total

    def ledger_lines(self, now_ns: int = 0) -> list[LedgerLine]:
        """One line per currency and the line ``BASE``.

        Args:
            now_ns: Market time to stamp the lines with, cut to the second as the server does.
        """
        lines = [self._line(name, self._rate(name), now_ns) for name in self._currencies()]
        return [*lines, self._line("BASE", Decimal(1), now_ns)]

    def _line(self, currency: str, rate: Decimal, now_ns: int) -> LedgerLine:
        amount = float(self.cash(currency))
        return LedgerLine(
            currency=currency,
            cash=amount,
            settled_cash=amount,
            net_liquidation=float(self.net_liquidation(currency)),
            stock_value=float(self.stock_value(currency)),
            realized_pnl=float(self.realized_pnl(currency)),
            unrealized_pnl=float(self.unrealized_pnl(currency)),
            exchange_rate=float(rate),
            time_ns=now_ns - now_ns % NS_PER_S,
        )

    def _currencies(self) -> list[str]:
        names = dict.fromkeys(self._cash)
        names |= dict.fromkeys(self._valuation.instrument(c).contract.currency for c in self._holdings)
        return list(names)

    def _rate(self, currency: str) -> Decimal:
        return self._valuation.rate(currency, self.currency)


def _book(holding: Holding, quantity: Decimal, value: Decimal, commission: Decimal) -> Decimal:
    """Change a holding by a signed quantity and value.

    A trade that closes and opens again (a flip) is split: the commission in proportion to the quantities,
    and what remains opens at the price of the trade.

    Returns:
        The profit of the closed part, before commissions, at prices without commissions.
    """
    held = holding.quantity
    if held == 0 or (held > 0) == (quantity > 0):
        holding.quantity += quantity
        holding.paid += value
        holding.cost += value + commission
        return ZERO
    closed = min(abs(held), abs(quantity))
    share = closed / abs(quantity)
    part = closed / abs(held)
    closed_value = value * share
    closed_commission = commission * share
    paid, cost = holding.paid * part, holding.cost * part
    profit = -closed_value - paid
    holding.realized += -closed_value - cost - closed_commission
    holding.quantity += quantity if closed == abs(quantity) else -held
    holding.paid -= paid
    holding.cost -= cost
    if holding.quantity == 0:
        # the divisions above may leave crumbs of the last digit
        holding.paid = holding.cost = ZERO
    rest = quantity + held if closed != abs(quantity) else ZERO
    if rest:
        holding.quantity = rest
        holding.paid = value - closed_value
        holding.cost = holding.paid + commission - closed_commission
    return profit
