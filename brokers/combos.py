"""Combos: one order, several positions.

IBKR reports an execution of a combo as an envelope, with the combo's own price, that changes no position, and one
execution for each leg. Legs are booked as they come; the order executes as far as all of its legs have.
"""

from __future__ import annotations

from collections import defaultdict, deque
from decimal import ROUND_FLOOR, Decimal

import backtrader as bt
import msgspec

from bt_ibkr.brokers.books import AccountBook, Applied, signed
from bt_ibkr.brokers.fills import moved
from bt_ibkr.brokers.records import Working
from bt_ibkr.model.contract import Leg
from bt_ibkr.model.order import Execution, Side


def is_envelope(execution: Execution) -> bool:
    """Whether it is of a combo as a whole: the keys of combos are below 0."""
    return execution.conid < 0


class ComboProgress:
    """How far one combo order's legs have executed.

    Args:
        working: The order.
    """

    def __init__(self, working: Working) -> None:
        ticket = working.ticket
        self._conid, self._legs, self._sign = ticket.contract_id, ticket.legs, ticket.side.sign
        self._filled: dict[int, Decimal] = defaultdict(Decimal)
        self._cost: dict[int, float] = defaultdict(float)
        self._envelopes: deque[tuple[Decimal, float]] = deque()
        self._shown = Decimal(0)
        self._shown_cost = 0.0
        self._commission = 0.0

    def add_envelope(self, execution: Execution) -> None:
        """The combo's own price for so many units."""
        self._envelopes.append((execution.quantity, execution.price))

    def add_leg(self, execution: Execution) -> None:
        """One leg's execution."""
        self._filled[execution.conid] += execution.quantity
        self._cost[execution.conid] += float(execution.quantity) * execution.price
        self._commission += execution.commission or 0.0

    def advance(self, book: AccountBook, last: Execution) -> tuple[Execution, Applied] | None:
        """The units that are complete now and were not before, as one execution of the combo.

        Args:
            book: The account's; the legs of ``last`` are in it.
            last: The execution that came last.
        """
        units = min(self._filled[leg.conid] / abs(leg.ratio) for leg in self._legs)
        whole = units.to_integral_value(ROUND_FLOOR)
        new = whole - self._shown
        if new <= 0:
            return None
        price = self._price(book, whole, new)
        self._shown, self._shown_cost = whole, self._shown_cost + float(new) * price
        commission, self._commission = self._commission, 0.0
        execution = msgspec.structs.replace(
            last, execution_id=f"{last.execution_id}+", conid=self._conid, quantity=new, price=price,
            side=Side.BUY if self._sign > 0 else Side.SELL, commission=commission,
        )  # fmt: skip
        # The legs are booked: what the combo's position was is what they were before these units.
        after = book.position(self._conid)
        before = bt.Position(after.size - float(signed(execution)), after.price if after.size else price)
        return execution, moved(before, float(signed(execution)), price)

    def _price(self, book: AccountBook, whole: Decimal, new: Decimal) -> float:
        """By the envelopes, if they tell of so many units, else by what the legs cost."""
        told = sum((quantity for quantity, _ in self._envelopes), Decimal(0))
        if told >= whole:
            paid, left = 0.0, whole
            for quantity, price in self._envelopes:
                taken = min(quantity, left)
                paid, left = paid + float(taken) * price, left - taken
        else:
            paid = sum(
                book.instruments.leg_points(self._conid, leg) * float(whole) * self._average(leg)
                for leg in self._legs
            )
        return (paid - self._shown_cost) / float(new)

    def _average(self, leg: Leg) -> float:
        return self._cost[leg.conid] / float(self._filled[leg.conid])
