"""How an order's state moves: it stands, it is complete, it has ended; what has ended stays ended.

An order that IBKR calls cancelled ends once every execution that was reported for it has been applied.
"""

from __future__ import annotations

import logging

import backtrader as bt

from bt_ibkr.brokers.outgoing import Outgoing
from bt_ibkr.brokers.records import Records, Working
from bt_ibkr.model.order import OrderReport, OrderStatus, TimeInForce

_log = logging.getLogger(__name__)


class Endings:
    """Moves orders from state to state and tells of it.

    Args:
        records: The broker's orders.
        outgoing: Told what has ended: groups follow.
    """

    def __init__(self, records: Records, outgoing: Outgoing) -> None:
        self._records = records
        self._outgoing = outgoing

    def accept(self, working: Working) -> None:
        """It stands at IBKR."""
        self._records.settle(working)
        if not working.accepted and not working.done:
            working.accepted = True
            working.order.accept(working.order.broker)
            self._records.notify(working.order)

    def check_reappeared(self, working: Working) -> None:
        """An order that was told as refused stands after all: the strategy does not know it, so it must go."""
        if not working.refused or working.cancel_wanted:
            return
        working.cancel_wanted = True
        text = f"Order {working.key} was refused, but stands at IBKR as {working.order_id}: it is cancelled."
        _log.error("order-reappeared key=%s order_id=%s", working.key, working.order_id)
        self._records.problem(text)
        self._records.tell("order-reappeared", working.order, text=text)
        self._outgoing.cancel_key(working.key)

    def take_end(self, working: Working, report: OrderReport) -> None:
        """IBKR says that an order is filled, cancelled or failed."""
        if report.status is OrderStatus.FILLED:
            # Frames tell what has changed.
            total = report.total_quantity or working.reported_total
            filled = report.filled_quantity or working.reported_filled
            if working.quantity is not None and (total is None or filled is None or filled < total):
                # Its executions tell, and they may still be on their way.
                return
        working.ending = report.status
        if report.reason:
            working.order.addinfo(reason=report.reason)
        self.maybe_end(working)

    def maybe_end(self, working: Working) -> None:
        """End an order once every execution that was reported for it has been applied."""
        if working.done or working.ending is None:
            return
        if not working.all_applied():
            return
        if working.ending is OrderStatus.FILLED:
            if working.filled:
                self.complete(working)
            return
        if working.ending is OrderStatus.FAILED and not working.filled:
            status = bt.Order.Rejected
        elif working.expiring or self._day_is_over(working):
            status = bt.Order.Expired
        else:
            status = bt.Order.Canceled
        self.end(working, status)

    @staticmethod
    def _day_is_over(working: Working) -> bool:
        """Whether an order for the day was ended by nobody but the day."""
        if working.ticket.time_in_force is not TimeInForce.DAY or working.cancel_wanted:
            return False
        rest = [one for one in working.family if one is not working]
        if working.parent_key is not None:
            parent = next((one for one in rest if one.key == working.parent_key), None)
            if parent is not None and parent.done and not parent.filled:
                return bool(parent.order.status == bt.Order.Expired)
            rest = [one for one in rest if one.parent_key == working.parent_key]
        elif not working.native:
            rest = []
        # A bracket's or group's other order executed, or was cancelled: IBKR took this one along.
        return not any(one.filled or one.cancel_wanted for one in rest)

    def end(self, working: Working, status: int) -> None:
        """End it, other than by execution."""
        self._records.end(working, status)
        self._outgoing.ended(working)

    def complete(self, working: Working, *, notify: bool = True) -> None:
        """All of it has executed."""
        working.order.executed.remsize = 0
        working.order.completed()
        self._records.close(working)
        if notify:
            self._records.notify(working.order)
        self._outgoing.ended(working)

    def resized(self, working: Working) -> None:
        """The order has another size: perhaps all of it has executed."""
        if working.done or not working.filled:
            return
        self.tell_overfill(working)
        if working.complete():
            self.complete(working)

    def tell_overfill(self, working: Working) -> None:
        """Say loudly if more has executed than was ordered."""
        if working.quantity is None or working.filled <= working.most():
            return
        text = f"Order {working.key}: {working.filled:f} filled of {working.quantity:f}."
        if text in self._records.problems:
            return
        _log.error("order-overfilled key=%s filled=%s of=%s", working.key, working.filled, working.quantity)
        self._records.problem(text)
        self._records.tell("order-overfilled", working.order)
