"""What is judged: the orders of one submission, with what is known of market and account at this moment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.order import OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.risk.exposure import Reach, effects, group_of, reach, reduces
from bt_ibkr.risk.history import History
from bt_ibkr.risk.view import Book, OpenOrder, Quote, RiskView, TradingRules, decimal

_ZERO: Final = Decimal(0)
#: What a price of 0 or below can be a price of.
_NEGATIVE: Final = frozenset({SecurityType.COMBO, SecurityType.FUTURE, SecurityType.FUTURE_OPTION})
#: Trade also while the regular hours are over, by their nature.
_OVERNIGHT: Final = frozenset({TimeInForce.OVERNIGHT, TimeInForce.OVERNIGHT_AND_DAY})
#: Types that buy at their limit at most.
_CAPPED: Final = frozenset(
    {
        OrderType.LIMIT,
        OrderType.LIMIT_ON_CLOSE,
        OrderType.STOP_LIMIT,
        OrderType.LIMIT_IF_TOUCHED,
        OrderType.MIDPRICE,
        OrderType.RELATIVE,
    }
)


class Submission:
    """Orders that are placed together, or one change of an order.

    Args:
        intents: The orders; a change has one, with the new ticket.
        view: Market and account.
        history: Orders placed before.
        change: It changes an order that stands.
        filled: How much of that order has executed.
    """

    def __init__(
        self,
        intents: Sequence[OrderIntent],
        view: RiskView,
        history: History,
        *,
        change: bool = False,
        filled: Decimal = _ZERO,
    ) -> None:
        self.view = view
        self.history = history
        self.change = change
        self._name = f"submission {intents[0].key}"
        self.filled = filled
        self._quotes: dict[int, Quote | None] = {}
        self._rules: dict[int, TradingRules | None] = {}
        self._reach: dict[tuple[str, int, str | None], tuple[Reach, Reach] | None] = {}
        self._reducing: bool | None = None
        self.cases = tuple(Case(self, intent) for intent in intents)

    def quote(self, conid: int) -> Quote | None:
        """The quote, asked for once."""
        if conid not in self._quotes:
            self._quotes[conid] = self.view.quote(conid)
        return self._quotes[conid]

    def rules(self, conid: int) -> TradingRules | None:
        """The rules, asked for once."""
        if conid not in self._rules:
            self._rules[conid] = self.view.rules(conid)
        return self._rules[conid]

    @property
    def reducing(self) -> bool:
        """Whether all it can do is bring positions nearer to 0, whatever executes.

        Of a strategy that has a book of its own, those of its book: it may get rid of what it holds in any case.
        """
        if self._reducing is None:
            self._reducing = all(self._reduces(case) for case in self.cases)
        return self._reducing

    def reach(self, account: str, conid: int, book: Book | None = None) -> tuple[Reach, Reach] | None:
        """Reach of a position without and with the submission; ``None`` if position or sizes are not known.

        Args:
            account, conid: Which.
            book: Whose part of it; ``None`` for all of the account.
        """
        key = (account, conid, None if book is None else book.name)
        if key not in self._reach:
            self._reach[key] = self._reached(account, conid, self.view if book is None else book)
        return self._reach[key]

    def _reached(self, account: str, conid: int, view: RiskView | Book) -> tuple[Reach, Reach] | None:
        position = view.position(account, conid)
        if position is None:
            return None
        own = {case.intent.key for case in self.cases}
        open_orders = {order.key: order for order in view.open_orders(account, conid)}
        rest = [order for key, order in open_orders.items() if key not in own]
        new = []
        for case in self.cases:
            if case.ticket.account != account:
                continue
            effect = case.effects
            if effect is None:
                return None
            if conid in effect:
                new.append(self._opened(case.intent, effect[conid], open_orders.get(case.intent.key)))
        # A change takes the place of what stood; what stood reached somewhere, too.
        return reach(position, list(open_orders.values())), reach(position, [*rest, *new])

    def _opened(self, intent: OrderIntent, effect: Decimal, stood: OpenOrder | None) -> OpenOrder:
        if stood is not None:
            return msgspec.structs.replace(stood, effect=effect)
        return OpenOrder(
            key=intent.key,
            effect=effect,
            parent_key=intent.parent_key,
            group=group_of(intent, self._name),
        )

    def _reduces(self, case: Case) -> bool:
        account = case.ticket.account
        # An order by money is of a size that is known when it has executed.
        if case.cash is not None or not case.effects:
            return False
        view = case.book or self.view
        for conid in case.effects:
            both = self.reach(account, conid, case.book)
            if both is None:
                return False
            added = [
                one.effects[conid]
                for one in self.cases
                if one.ticket.account == account and one.effects and conid in one.effects
            ]
            if not reduces(view.position(account, conid), *both, added):
                return False
        return True


class Case:
    """One order of a submission. Prices and sizes are what it could come to at worst."""

    def __init__(self, submission: Submission, intent: OrderIntent) -> None:
        self.submission = submission
        self.intent = intent
        self.ticket: OrderTicket = intent.ticket
        self.rules = submission.rules(self.ticket.contract_id)
        self._effects: dict[int, Decimal] | None = None
        self._judged = False

    @property
    def book(self) -> Book | None:
        """Its strategy's own; ``None`` where there is none but the account."""
        return self.submission.view.book(self.intent.strategy)

    @property
    def quote(self) -> Quote | None:
        return self.submission.quote(self.ticket.contract_id)

    @property
    def position(self) -> Decimal | None:
        """The position in its contract; ``None`` if not known."""
        return self.submission.view.position(self.ticket.account, self.ticket.contract_id)

    @property
    def symbol(self) -> str:
        return self.rules.symbol if self.rules is not None else f"contract {self.ticket.contract_id}"

    @property
    def name(self) -> str:
        """For messages: ``BUY 500 LMT order on AAPL (contract 265598) of sma_cross, key sma_cross.k3f9a.17``."""
        ticket = self.ticket
        size = ticket.quantity or ticket.cash_quantity or ticket.fx_quantity or _ZERO
        what = "Change to " if self.submission.change else ""
        where = f"{self.symbol} (contract {ticket.contract_id})" if self.rules is not None else self.symbol
        return (
            f"{what}{ticket.side.value} {plain(size)} {ticket.order_type.value} order on {where} "
            f"in account {ticket.account}, key {self.intent.key}"
        )

    @property
    def cash(self) -> Decimal | None:
        """Money in the contract's currency, for an order that says that and no size."""
        return None if self.ticket.quantity else (self.ticket.cash_quantity or self.ticket.fx_quantity)

    @property
    def units(self) -> Decimal | None:
        """Its size; of an order by money the most units that could be, ``None`` without a price."""
        if self.cash is None:
            return self.ticket.quantity
        prices = [abs(price) for price in self._prices() if price]
        return None if not prices or self.rules is None else self.cash / (min(prices) * self.rules.multiplier)

    @property
    def effects(self) -> dict[int, Decimal] | None:
        """What the part that is open would add to positions; ``None`` if its size is not known."""
        if not self._judged:
            units = self.units
            if units is not None or self.ticket.is_currency_conversion:
                left = max(_ZERO, (units or _ZERO) - self.submission.filled)
                self._effects = effects(self.ticket, left)
            self._judged = True
        return self._effects

    @property
    def market(self) -> Decimal | None:
        """What the other side asks now: the ask to buy, the bid to sell; else the last price."""
        quote = self.quote
        if quote is None:
            return None
        sides = (quote.ask, quote.last, quote.bid)
        told = _usable(sides if self.ticket.side is Side.BUY else sides[::-1], self._kind)
        return told[0] if told else None

    @property
    def worst_price(self) -> Decimal | None:
        """The price that gives the largest value; ``None`` if nothing bounds or tells it."""
        ticket = self.ticket
        limit = ticket.limit_price
        if ticket.side is Side.BUY and ticket.order_type in _CAPPED and limit is not None and limit > 0:
            return decimal(limit)
        # Other orders execute where the market is: without one, their own prices bound nothing.
        market = self.market
        return None if market is None else max(abs(price) for price in (market, *self._own()))

    @property
    def waits(self) -> bool:
        """Whether the exchange is known to be closed for this order, so that it waits for the opening."""
        rules = self.rules
        if rules is None or rules.open is not False:
            return False
        return not self.extended or rules.open_extended is False

    @property
    def extended(self) -> bool:
        """Whether it may execute outside regular hours."""
        return self.ticket.outside_regular_hours or self.ticket.time_in_force in _OVERNIGHT

    @property
    def rate(self) -> Decimal | None:
        """Base currency for one unit of the contract's currency."""
        return self.rate_of(self.rules)

    def rate_of(self, rules: TradingRules | None) -> Decimal | None:
        """The same for another contract of the account."""
        if rules is None:
            return None
        found = self.submission.view.exchange_rate(self.ticket.account, rules.currency)
        return decimal(found) if found is not None and math.isfinite(found) and found > 0 else None

    @property
    def notional(self) -> Decimal | None:
        """Its value in the base currency; ``None`` if it cannot be told."""
        rate = self.rate
        if rate is None or self.rules is None:
            return None
        if self.cash is not None:
            return self.cash * rate
        price = self.worst_price
        return None if price is None else self.ticket.quantity * price * self.rules.multiplier * rate

    def unit_value(self, conid: int) -> Decimal | None:
        """Value of one unit of a contract that it moves (itself, or a leg) in the base currency."""
        rules = self.submission.rules(conid)
        rate = self.rate_of(rules)
        if rules is None or rate is None:
            return None
        prices = list(self._own()) if conid == self.ticket.contract_id else []
        quote = self.submission.quote(conid)
        if quote is not None:
            prices += _usable((quote.bid, quote.ask, quote.last), rules.security_type)
        if not prices:
            return None
        return max(abs(price) for price in prices) * rules.multiplier * rate

    def _own(self) -> tuple[Decimal, ...]:
        given = (self.ticket.limit_price, self.ticket.stop_price)
        return tuple(decimal(price) for price in given if price is not None)

    def _prices(self) -> tuple[Decimal, ...]:
        quote = self.quote
        told = [] if quote is None else _usable((quote.bid, quote.ask, quote.last), self._kind)
        return (*self._own(), *told)

    @property
    def _kind(self) -> str:
        return self.ticket.security_type if self.rules is None else self.rules.security_type


def _usable(prices: Iterable[float | None], kind: str) -> list[Decimal]:
    """Those that are prices of an instrument of that type."""
    found = [decimal(price) for price in prices if price is not None and math.isfinite(price)]
    return [price for price in found if price > 0 or kind in _NEGATIVE]


def plain(value: Decimal) -> str:
    """A number as a person writes it: no exponent, no trailing zeros."""
    return f"{value.normalize() + 0:f}"
