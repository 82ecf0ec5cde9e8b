"""What the risk controls see: the session's own quotes, contracts, positions, orders and cash, as they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from bt_ibkr.clock import NS_PER_S, Clock
from bt_ibkr.journal import Journal
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import Tick
from bt_ibkr.model.order import DONE, OrderReport
from bt_ibkr.model.portfolio import LedgerLine
from bt_ibkr.model.trading import TradingState
from bt_ibkr.risk import Book, OpenOrder, Quote, TradingRules
from bt_ibkr.risk.exposure import effects

if TYPE_CHECKING:
    from bt_ibkr.desk.trading import TradingDesk


class SessionView:
    """A ``RiskView`` of a live session. Nothing here asks IBKR anything.

    Args:
        journal: Has the trading state.
        clock: Market clock.
        latest: The last tick of a contract, if it streams.
        contract: The contract of a conid, if it was resolved.
        open_now: Whether a contract trades now, in regular and in extended hours, as far as is known.
        fractions: The login's accounts take fractions of shares.
        read_only: This login may not trade.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        clock: Clock,
        latest: Callable[[int], Tick | None],
        contract: Callable[[int], Contract | None],
        open_now: Callable[[int], tuple[bool | None, bool | None]],
        fractions: bool = False,
        read_only: bool = False,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._latest = latest
        self._contract = contract
        self._open_now = open_now
        self._fractions = fractions
        self._read_only = read_only
        self._ledger: dict[str, dict[str, LedgerLine]] = {}
        self._pnl: dict[str, float] = {}
        self._rules: dict[int, tuple[Contract, TradingRules]] = {}
        #: The two answers of event contracts, each by the other: one is closed by buying the other.
        self._opposites: dict[int, int] = {}
        #: Set once the desk is there: it needs the controls, and they need it.
        self.desk: TradingDesk | None = None
        #: Strategies' own books, where they have some: at a hub.
        self.books: Callable[[str], Book | None] | None = None

    # -- fed by the connection -----------------------------------------------------------------------

    def take_ledger(self, account: str, lines: Sequence[LedgerLine]) -> None:
        self._ledger.setdefault(account, {}).update((line.currency, line) for line in lines)

    def take_pnl(self, account: str, day_pnl: float) -> None:
        self._pnl[account] = day_pnl

    def take_opposites(self, one: int, other: int) -> None:
        """They are the two answers of one question."""
        self._opposites |= {one: other, other: one}

    # -- read by the controls ------------------------------------------------------------------------

    @property
    def read_only(self) -> bool:
        return self._read_only

    def trading_state(self) -> TradingState:
        # As the desk knows it; the journal looks again, for all processes, when it takes the order in.
        return self._journal.trading_state() if self.desk is None else self.desk.trading

    def quote(self, conid: int) -> Quote | None:
        tick = self._latest(conid)
        if tick is None:
            return None
        age_s = max(0, self._clock.now_ns() - tick.time_ns) / NS_PER_S
        return Quote(
            bid=tick.bid, ask=tick.ask, last=tick.last, age_s=age_s, quality=tick.quality, halted=tick.halted
        )

    def rules(self, conid: int) -> TradingRules | None:
        contract = self._contract(conid)
        if contract is None:
            return None
        known = self._rules.get(conid)
        if known is not None and known[0] is contract:
            return self._with_hours(conid, contract, known[1])
        fractions = self._fractions and contract.security_type is SecurityType.STOCK
        rules = TradingRules.of(contract, tick_steps=contract.tick_steps, fractions=fractions)
        self._rules[conid] = (contract, rules)
        return self._with_hours(conid, contract, rules)

    def _with_hours(self, conid: int, contract: Contract, rules: TradingRules) -> TradingRules:
        """Of a combo, it trades while all of its legs do."""
        told = [self._open_now(leg.conid) for leg in contract.legs] or [self._open_now(conid)]
        regular, extended = (_all(one[place] for one in told) for place in (0, 1))
        if regular is None and extended is None:
            return rules
        return msgspec.structs.replace(rules, open=regular, open_extended=extended)

    def position(self, account: str, conid: int) -> Decimal | None:
        held = self.desk.positions(account) if self.desk is not None else None
        return None if held is None else self.net(conid, lambda one: held.get(one, Decimal(0)))

    def net(self, conid: int, held: Callable[[int], Decimal]) -> Decimal:
        """What is held of a contract; of one answer to a question, what is held of the other counts against it."""
        other = self._opposites.get(conid)
        return held(conid) - (Decimal(0) if other is None else held(other))

    def book(self, strategy: str) -> Book | None:
        return None if self.books is None else self.books(strategy)

    def open_orders(self, account: str, conid: int) -> Sequence[OpenOrder]:
        if self.desk is None:
            return ()
        found = self.own_orders(account, conid, lambda key: True)
        found.extend(
            OpenOrder(
                key=report.order_id,
                effect=_effect(report),
                parent_key=report.parent_id,
                group=report.oca_group,
            )
            for report in self.desk.external_orders(account)
            if report.conid == conid
        )
        return found

    def own_orders(self, account: str, conid: int, whose: Callable[[str], bool]) -> list[OpenOrder]:
        """Open orders of this session's strategies on a contract, of those keys that are wanted."""
        found: list[OpenOrder] = []
        for order in () if self.desk is None else self.desk.registry:
            if not order.open or order.account != account or not whose(order.key):
                continue
            effect = effects(order.ticket, max(Decimal(0), order.ticket.quantity - order.filled)).get(conid)
            if effect:
                found.append(
                    OpenOrder(
                        key=order.key,
                        effect=effect,
                        parent_key=order.intent.parent_key,
                        group=order.group,
                    )
                )
        return found

    def open_count(self, account: str) -> int:
        if self.desk is None:
            return 0
        own = sum(order.open and order.account == account for order in self.desk.registry)
        return own + len(self.desk.external_orders(account))

    def day_pnl(self, account: str) -> float | None:
        return self._pnl.get(account)

    def net_liquidation(self, account: str) -> float | None:
        line = self._ledger.get(account, {}).get("BASE")
        return None if line is None else line.net_liquidation

    def exchange_rate(self, account: str, currency: str) -> float | None:
        line = self._ledger.get(account, {}).get(currency)
        return None if line is None else line.exchange_rate


def _all(known: Iterable[bool | None]) -> bool | None:
    values = list(known)
    return None if None in values else all(values)


def _effect(report: OrderReport) -> Decimal:
    """What another program's order may still add to the position."""
    if report.status in DONE or report.side is None:
        return Decimal(0)
    left = report.remaining_quantity
    if left is None:
        left = (report.total_quantity or Decimal(0)) - (report.filled_quantity or Decimal(0))
    return max(Decimal(0), left) * report.side.sign
