"""Positions, exact to the last decimal, cash and values, by account. Only executions change positions.

backtrader counts in floats; beside each of its positions stands the exact size, so that 0.1 three times is 0.3.
Every execution is kept: one that IBKR corrects later is replaced in its place, and the position's price is counted
again from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_DOWN, Decimal
from typing import Any, NamedTuple

import backtrader as bt

from bt_ibkr.brokers.instruments import Instruments
from bt_ibkr.clock import NS_PER_S, Clock
from bt_ibkr.connection.interface import Difference
from bt_ibkr.model.order import Execution
from bt_ibkr.model.portfolio import LedgerLine, Position

#: After an execution, the account's own cash figure is believed again once it is this old, market seconds.
LEDGER_SETTLES_S = 15
#: So long after an execution IBKR's position may not show it yet, market seconds.
POSITION_LAGS_S = 15

#: An average price that is so near, as a fraction, is the same one.
_SAME_AVERAGE = 0.01


class Applied(NamedTuple):
    """What an execution did to a position; sizes are signed.

    Attributes:
        opened, closed: The parts of its size that opened or added, and that closed.
        price_before: Of the position.
        size, price: Of the position now.
    """

    opened: float
    closed: float
    price_before: float
    size: float
    price: float


class Adopted(NamedTuple):
    """A position that was not as the book had it.

    Attributes:
        difference: In words.
        conid: Of what.
        applied: What became of the position, as if it had been traded.
        price: At which that would have been.
    """

    difference: Difference
    conid: int
    applied: Applied
    price: float


class _History:
    """An instrument's executions on top of the position that was there before them."""

    __slots__ = ("base_price", "base_size", "executions")

    def __init__(self, size: Decimal, price: float) -> None:
        self.base_size = size
        self.base_price = price
        self.executions: list[Execution] = []

    def replay(self) -> tuple[Decimal, float, float]:
        """Size, average price, and profit in points times units."""
        total, realised = self.base_size, 0.0
        position = bt.Position(_plain(total), self.base_price)
        for execution in self.executions:
            before = position.price
            total += signed(execution)
            _, _, _, closed = position.update(float(signed(execution)), execution.price)
            realised -= closed * (execution.price - before)
            _settle(position, total)
        return total, position.price, realised

    def put(self, old: Execution, new: Execution) -> None:
        """``new`` in the place of ``old``; of what was executed before, size and cost are all that is known."""
        for index, execution in enumerate(self.executions):
            if execution.execution_id == old.execution_id:
                self.executions[index : index + 1] = [new] if new.quantity else []
                return
        size = self.base_size + signed(new) - signed(old)
        cost = float(self.base_size) * self.base_price + _cost(new) - _cost(old)
        if size and cost / float(size) > 0:
            self.base_price = cost / float(size)
        self.base_size = size


class AccountBook:
    """One account. Cash is in its base currency.

    Args:
        account: IBKR's id.
        instruments: Shared by all accounts.
        clock: Market clock.
    """

    def __init__(self, account: str, instruments: Instruments, clock: Clock) -> None:
        self.account = account
        self.cash = 0.0
        self.instruments = instruments
        self._clock = clock
        self._positions: dict[int, Any] = {}
        self._exact: dict[int, Decimal] = {}
        self._history: dict[int, _History] = {}
        self._rates: dict[str, float] = {}
        self._last_fill_ns = 0
        #: By how much IBKR's last cash figure differed from ours, as far as no execution has explained it since;
        #: and the figure's time.
        self._unexplained = 0.0
        self._figure_ns = 0
        #: When the last execution of each instrument was applied.
        self._filled_ns: dict[int, int] = {}

    def seed(self, positions: Iterable[Position], lines: Iterable[LedgerLine]) -> None:
        """As the account stood when it was attached."""
        for position in positions:
            self._set(position)
        self.take_ledger(tuple(lines), at_once=True)

    # -- positions ---------------------------------------------------------------------------------

    def position(self, conid: int) -> Any:
        """backtrader's position; ``None`` if there never was one. Of a combo: what its legs' positions make."""
        legs = self.instruments.legs(conid)
        if not legs:
            return self._positions.get(conid)
        size = self.exact(conid)
        if not size:
            return bt.Position(0, 0.0)
        points = self.instruments.leg_points
        price = sum(points(conid, leg) * self._positions[leg.conid].price for leg in legs)
        return bt.Position(_plain(size), price)

    def exact(self, conid: int) -> Decimal:
        """Its size; 0 if there is none. Of a combo: as many whole ones as the positions of its legs hold."""
        legs = self.instruments.legs(conid)
        if not legs:
            return self._exact.get(conid, Decimal(0))
        held = [self.exact(leg.conid) / leg.ratio for leg in legs]
        if not all(held) or len({size > 0 for size in held}) > 1:
            return Decimal(0)
        return min(held, key=abs).to_integral_value(ROUND_DOWN)

    @property
    def positions(self) -> dict[int, Any]:
        return self._positions

    def apply(self, execution: Execution, commission: float) -> Applied:
        """Position and cash after one execution."""
        conid = execution.conid
        self._note_fill(conid)
        self._history_of(conid).executions.append(execution)
        position = self._positions.setdefault(conid, bt.Position(0, 0.0))
        before = position.price
        size, price, opened, closed = position.update(float(signed(execution)), execution.price)
        total = self._exact[conid] = self.exact(conid) + signed(execution)
        _settle(position, total)
        points = -closed * (execution.price - before) if self.instruments.margined(conid) else None
        self._move_cash(execution, points, commission)
        return Applied(opened, closed, before, size, price)

    def convert(self, execution: Execution, commission: float) -> Applied:
        """Cash after one execution of a currency conversion, which leaves no position of the pair."""
        self._last_fill_ns = self._clock.now_ns()
        self._move_cash(execution, None, commission)
        return Applied(float(signed(execution)), 0.0, 0.0, 0.0, 0.0)

    def correct(self, old: Execution, new: Execution, commission: float) -> None:
        """``new`` in the place of ``old``; a ``new`` of quantity 0 takes it back altogether.

        Args:
            old, new: The execution as it was applied, and as it is now.
            commission: What the commission changes by.
        """
        conid = old.conid
        self._note_fill(conid)
        history = self._history_of(conid)
        _, _, realised = history.replay()
        history.put(old, new)
        total, price, corrected = history.replay()
        self._exact[conid] = total
        position = self._positions.setdefault(conid, bt.Position(0, 0.0))
        position.set(_plain(total), price)
        margined = self.instruments.margined(conid)
        moved = corrected - realised if margined else _cost(old) - _cost(new)
        self._add_cash(conid, moved * self.instruments.multiplier(conid) - commission, new.time_ns)

    def _note_fill(self, conid: int) -> None:
        now_ns = self._clock.now_ns()
        self._filled_ns[conid] = now_ns
        self._last_fill_ns = max(self._last_fill_ns, now_ns)

    def _history_of(self, conid: int) -> _History:
        history = self._history.get(conid)
        if history is None:
            held = self._positions.get(conid)
            price = held.price if held is not None else 0.0
            history = self._history[conid] = _History(self.exact(conid), price)
        return history

    def adopt(self, positions: Sequence[Position], time_ns: int) -> list[Adopted]:
        """Believe IBKR's positions; what differed from the book.

        IBKR's positions lag behind executions by seconds: one that was traded just before is left as it is.

        Args:
            positions: All of the account.
            time_ns: When they were read.
        """
        reported = {position.conid: position for position in positions}
        found = []
        for conid in sorted({*reported, *self._exact}):
            told = reported.get(conid)
            theirs = Decimal(0) if told is None else told.quantity
            if told is not None:
                self.instruments.note(told)
            ours = self.exact(conid)
            lagging = time_ns - self._filled_ns.get(conid, 0) < POSITION_LAGS_S * NS_PER_S
            if ours != theirs and not lagging:
                found.append(self._adopt(conid, ours, theirs, told))
        return found

    def _adopt(self, conid: int, ours: Decimal, theirs: Decimal, told: Position | None) -> Adopted:
        position = self._positions.setdefault(conid, bt.Position(0, 0.0))
        before = position.price
        price = self.instruments.price(conid, before)
        if told is not None:
            price = _implied_price(ours, before, theirs, told.average_price, price)
        size, new_price, opened, closed = position.clone().update(float(theirs - ours), price)
        if told is not None:
            self._set(told)
        else:
            self._exact[conid] = theirs
            _settle(position, theirs)
        self._history.pop(conid, None)
        applied = Applied(opened, closed, before, size, new_price)
        return Adopted(self._difference(conid, ours, theirs), conid, applied, price)

    def _difference(self, conid: int, ours: Decimal, theirs: Decimal) -> Difference:
        name = self.instruments.name(conid)
        return Difference(
            kind="position",
            subject=name,
            recorded=f"{ours:f}",
            reported=f"{theirs:f}",
            text=f"{name} in {self.account}: the book had {ours:f}, IBKR reports {theirs:f}. IBKR is believed; "
            "nothing was traded.",
        )

    def _set(self, told: Position) -> None:
        self.instruments.note(told)
        self._exact[told.conid] = told.quantity
        position = self._positions.setdefault(told.conid, bt.Position(0, 0.0))
        position.set(_plain(told.quantity), told.average_price)
        _settle(position, told.quantity)

    # -- cash and values ---------------------------------------------------------------------------

    def add_commission(self, execution: Execution, amount: float) -> None:
        """Commission that came after its execution; in the instrument's currency."""
        self._add_cash(execution.conid, -amount, execution.time_ns)

    def _move_cash(self, execution: Execution, points: float | None, commission: float) -> None:
        conid = execution.conid
        moved = -_cost(execution) if points is None else points
        self._add_cash(conid, moved * self.instruments.multiplier(conid) - commission, execution.time_ns)

    def _add_cash(self, conid: int, amount: float, time_ns: int) -> None:
        """What an execution of ``time_ns`` moved, in the instrument's currency.

        IBKR's cash may have arrived before the execution, as it does after a break of the stream: what it explains
        of that figure is in it already.
        """
        moved = amount * self._rate(conid)
        known = time_ns <= self._figure_ns + NS_PER_S
        if known and abs(self._unexplained - moved) < abs(self._unexplained):
            self._unexplained -= moved
        else:
            self.cash += moved

    def _rate(self, conid: int) -> float:
        """Units of base currency per unit of the instrument's."""
        return self._rates.get(self.instruments.currency(conid), 1.0)

    def value(self, conids: Iterable[int] | None = None) -> float:
        """Cash and all positions, or the positions of ``conids`` alone."""
        if conids is not None:
            return float(sum(self._worth(conid) for conid in conids))
        return self.cash + sum(self._worth(conid) for conid in self._positions)

    def _worth(self, conid: int) -> float:
        position = self.position(conid)
        if position is None or not position.size:
            return 0.0
        price = self.instruments.price(conid, position.price)
        if self.instruments.margined(conid):
            price -= position.price
        return float(position.size * price * self.instruments.multiplier(conid) * self._rate(conid))

    def take_ledger(self, lines: tuple[LedgerLine, ...], *, at_once: bool = False) -> None:
        """Cash in the account's base currency: the line at rate 1, or the line that sums all.

        A figure that may be from before the last execution is not believed.
        """
        settled = self._clock.now_ns() - self._last_fill_ns > LEDGER_SETTLES_S * NS_PER_S
        if not at_once and not settled:
            return
        named = [line for line in lines if line.currency != "BASE"]
        for line in named:
            self._rates[line.currency] = line.exchange_rate
        base = next((line for line in named if line.exchange_rate == 1.0), None)
        chosen = base or next((line for line in lines if line.currency == "BASE"), None)
        if chosen is not None:
            self._unexplained = 0.0 if at_once else chosen.cash - self.cash
            self._figure_ns = chosen.time_ns
            self.cash = chosen.cash


class Books:
    """All accounts that the broker trades in; the first is the store's."""

    def __init__(self, clock: Clock) -> None:
        self.instruments = Instruments()
        self._clock = clock
        self._accounts: dict[str, AccountBook] = {}

    def open(self, account: str) -> AccountBook:
        book = self._accounts[account] = AccountBook(account, self.instruments, self._clock)
        return book

    def of(self, account: str) -> AccountBook | None:
        """``None`` for an account that is not attached."""
        return self._accounts.get(account)

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(self._accounts)

    def __iter__(self) -> Any:
        return iter(self._accounts.values())


def signed(execution: Execution) -> Decimal:
    """Its quantity, below 0 for a sale."""
    return execution.quantity * execution.side.sign


def _cost(execution: Execution) -> float:
    return float(signed(execution)) * execution.price


def _implied_price(ours: Decimal, before: float, theirs: Decimal, average: float, market: float) -> float:
    """At which the difference was traded, by what the position has cost; 0 if nothing was paid for it, as in a split.

    A sale leaves the average as it was and tells nothing of its price: then it is the market's.
    """
    if ours * theirs <= 0:
        return average if abs(theirs) > abs(ours) else market
    if abs(theirs) < abs(ours) and abs(average - before) <= _SAME_AVERAGE * abs(before):
        return market
    price = (float(theirs) * average - float(ours) * before) / float(theirs - ours)
    return price if price >= 0 else market


def _plain(size: Decimal) -> int | float:
    """As people write it: whole numbers without a point."""
    return int(size) if size == size.to_integral_value() else float(size)


def _settle(position: Any, total: Decimal) -> None:
    """The exact size into backtrader's position."""
    position.size = _plain(total)
    if not total:
        position.price = 0.0
