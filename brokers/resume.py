"""After a restart: orders of earlier runs become backtrader's orders again, and strategies are told where they stand.

The journal knows each order's strategy by name. What is open is found in ``broker.get_orders_open()`` again, with its
price, size, validity, bracket and group, and belongs to the strategy of that name; what executed before shows in
``order.executed``, but makes no trade a second time: positions were taken over whole. Orders that this run has no
strategy or no feed for stay as they are, watched by ``Strays``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import backtrader as bt

from bt_ibkr.brokers.books import Books
from bt_ibkr.brokers.changes import show_prices
from bt_ibkr.brokers.exec_types import ExecType
from bt_ibkr.brokers.fills import count
from bt_ibkr.brokers.names import Names
from bt_ibkr.brokers.outgoing import Outgoing
from bt_ibkr.brokers.records import Records, Working
from bt_ibkr.brokers.strays import Strays
from bt_ibkr.brokers.tickets import ORDER_TYPES
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.interface import AccountSnapshot, Difference, StandingOrder
from bt_ibkr.errors import UsageError
from bt_ibkr.feeds.ibkr_data import contract_of
from bt_ibkr.feeds.times import day_number
from bt_ibkr.model.intent import OrderIntent, parse_key
from bt_ibkr.model.order import Execution, OrderStatus, OrderType, TimeInForce

_log = logging.getLogger(__name__)

#: What is done with open orders of earlier runs.
POLICIES = ("default", "keep", "cancel")
#: backtrader's execution type for IBKR's.
_EXEC_TYPES: dict[OrderType, Any] = {kind: number for number, kind in ORDER_TYPES.items()}


class Resumed(NamedTuple):
    """Where a strategy stands when it begins.

    Attributes:
        orders: Its open orders of earlier runs, oldest first: the objects that later notifications are about.
        unknown: Those of them that were sent, but were not found so far; nobody may assume that they do not stand.
        cancelled: Those of them whose cancellation was just asked for, by the broker's ``on_resume``.
        ended: Its orders that ended while it did not run.
        unfollowed: Its open orders in instruments that this run has no feed for.
        positions: Of the account, by data; every data of the run is in it.
        executions: Its last executions, oldest first: of these orders, and all of today.
        differences: Between the record and IBKR, found at the start.
    """

    orders: tuple[Any, ...]
    unknown: tuple[Any, ...]
    cancelled: tuple[Any, ...]
    ended: tuple[Any, ...]
    unfollowed: tuple[StandingOrder, ...]
    positions: dict[Any, Any]
    executions: tuple[Execution, ...]
    differences: tuple[Difference, ...]


def check_policy(policy: object) -> str:
    """A value of the broker's ``on_resume``.

    Raises:
        UsageError: It is none.
    """
    if policy not in POLICIES:
        raise UsageError(
            f"IBKRBroker: on_resume={policy!r} is not known.", remedy=f"Give one of {', '.join(POLICIES)}."
        )
    return str(policy)


class Resume:
    """Turns standing orders into backtrader's, once the strategies exist.

    Args:
        policy: What is done with open orders: ``default`` leaves them to a strategy that has ``notify_resume``, and
            for one that has not keeps what only reduces a position and cancels the rest; ``keep``; ``cancel``.
        records, books, outgoing, strays, names: The broker's.
        scheme: The commission scheme of a data.
        known: Told of executions that positions contain already.
    """

    def __init__(
        self,
        policy: str,
        records: Records,
        books: Books,
        outgoing: Outgoing,
        strays: Strays,
        names: Names,
        scheme: Callable[[Any], Any],
        known: Callable[[Execution, Working | None], None],
    ) -> None:
        self._policy = policy
        self._records = records
        self._books = books
        self._outgoing = outgoing
        self._strays = strays
        self._names = names
        self._scheme = scheme
        self._known = known
        self._standing: list[StandingOrder] = []
        self._executions: list[Execution] = []
        self._differences: list[Difference] = []
        self.done = False

    def hold(self, snapshot: AccountSnapshot) -> None:
        """Keep what an account's snapshot says until there are strategies."""
        self._standing.extend(snapshot.standing)
        self._executions.extend(snapshot.executions)
        self._differences.extend(snapshot.differences)
        for execution in snapshot.executions:
            self._known(execution, None)

    def run(self, strategies: Sequence[Any], datas: Sequence[Any]) -> None:
        """Take the orders over and tell the strategies."""
        self.done = True
        self._names.assign(strategies)
        self._standing.sort(key=_sequence)
        ended: list[Working] = []
        for standing in self._standing:
            owner, data = self._names.strategy(standing.intent.strategy), _data_of(standing.intent, datas)
            if owner is not None and data is not None:
                working = self._revive(standing, owner, data)
                if working.done:
                    ended.append(working)
            elif standing.open:
                self._strays.add(standing)
        self._join_groups()
        for name, strategy in self._names.strategies.items():
            self._resume_strategy(name, strategy, datas, ended)
        self._standing.clear()
        self._executions.clear()

    # -- orders ----------------------------------------------------------------------------------------

    def _revive(self, standing: StandingOrder, owner: Any, data: Any) -> Working:
        """One order, as it stands or as it ended."""
        intent, ticket = standing.intent, standing.intent.ticket
        parent = self._records.find(intent.parent_key)
        order = _blank_order(intent, owner, data, None if parent is None else parent.order)
        order.addcomminfo(self._scheme(data))
        order.addinfo(**intent.info)
        order.broker, order.plen = self._records.broker, 0
        show_prices(order, ticket)
        working = Working(order, intent.key, intent.strategy, ticket)
        working.order_id = standing.order_id
        working.parent_key, working.group, working.expires_ns = (
            intent.parent_key,
            intent.group,
            intent.expires_ns,
        )
        working.native = ticket.one_cancels_all
        working.submitted = True
        working.accepted = standing.known
        if not standing.known and not standing.open:
            # It never left: should it stand after all, the strategy has been told otherwise.
            working.refused = True
            order.addinfo(reason="it was written down, but never reached IBKR")
        elif not standing.known:
            working.unknown = (
                f"Whether the order {working.key} of an earlier run stands at IBKR is not known."
            )
            self._records.problem(working.unknown)
        if parent is not None:
            parent.family.append(working)
            working.family = parent.family
        if working.expires_ns is not None:
            order.valid = day_number(working.expires_ns)
        for execution in standing.executions:
            working.executions[execution.execution_id] = execution
            self._known(execution, working)
        count(working)
        order.executed.value = abs(order.comminfo.getoperationcost(order.executed.size, order.executed.price))
        order.status = _status_of(standing, working)
        working.done = not standing.open
        if working.done:
            order.executed.remsize = 0 if order.status == bt.Order.Completed else order.executed.remsize
        self._records.add(working)
        self._outgoing.watch(working)
        _log.info(
            "order-resumed key=%s order_id=%s status=%s", working.key, working.order_id, order.getstatusname()
        )
        return working

    def _join_groups(self) -> None:
        """Groups go on. A member that executed or ended while nobody watched cancels the others now."""
        groups = self._outgoing.groups
        for standing in self._standing:
            if standing.intent.group is not None:
                groups.restore(standing.intent.group, standing.intent.key)
        by_key = {standing.intent.key: standing for standing in self._standing}
        for group in groups.names():
            for key in groups.members(group):
                working = self._records.find(key)
                if working is not None:
                    working.group = group
                one = by_key.get(key)
                # A member that is no longer among the standing orders ended in an earlier run.
                if one is None or not one.open or one.executions:
                    groups.fire(key, group)

    # -- strategies --------------------------------------------------------------------------------------

    def _resume_strategy(self, name: str, strategy: Any, datas: Sequence[Any], ended: list[Working]) -> None:
        mine = [w for w in self._records.live if w.strategy == name]
        unfollowed = tuple(s for s in self._strays.orders if s.intent.strategy == name)
        hook = getattr(strategy, "notify_resume", None)
        cancelled = self._apply_policy(mine, unfollowed, keeps=hook is not None)
        if hook is None:
            return
        today = [e for e in self._executions if _name_in(e.order_ref) == name]
        of_orders = [e for w in (*mine, *ended) if w.strategy == name for e in w.executions.values()]
        executions = {e.execution_id: e for e in (*today, *of_orders)}
        hook(
            Resumed(
                orders=tuple(w.order for w in mine),
                unknown=tuple(w.order for w in mine if w.unknown),
                cancelled=tuple(w.order for w in cancelled),
                ended=tuple(w.order for w in ended if w.strategy == name),
                unfollowed=unfollowed,
                positions={data: strategy.broker.getposition(data) for data in datas},
                executions=tuple(sorted(executions.values(), key=lambda e: e.time_ns)),
                differences=tuple(self._differences),
            )
        )

    def _apply_policy(
        self, mine: list[Working], unfollowed: Iterable[StandingOrder], *, keeps: bool
    ) -> list[Working]:
        """Cancel what is not to go on; what was cancelled."""
        if self._policy == "keep" or (self._policy == "default" and keeps):
            return []
        protects = self._reducing(mine, unfollowed) if self._policy == "default" else set()
        cancelled = [working for working in mine if working.key not in protects]
        going = {working.key for working in cancelled}
        for working in cancelled:
            # A parent takes its children along.
            if working.parent_key not in going:
                self._outgoing.cancel(working)
        for standing in unfollowed:
            if standing.intent.key not in protects:
                self._outgoing.cancel_key(standing.intent.key)
        for working in cancelled:
            _log.warning("order-cancelled-on-resume key=%s", working.key)
            self._records.tell("order-cancelled-on-resume", working.order)
        return cancelled

    def _reducing(self, mine: Iterable[Working], unfollowed: Iterable[StandingOrder]) -> set[str]:
        """Keys of the orders that together can only make positions smaller.

        Children of one bracket, and members of one group, cancel each other: they count as one.
        """
        candidates = [(w.key, w.ticket, w.remaining, w.group or w.parent_key or w.key) for w in mine]
        for standing in unfollowed:
            intent, done = standing.intent, sum((e.quantity for e in standing.executions), Decimal(0))
            left = intent.ticket.quantity - done
            candidates.append(
                (intent.key, intent.ticket, left, intent.group or intent.parent_key or intent.key)
            )
        spoken_for: dict[tuple[str, int], dict[str, Decimal]] = {}
        kept: set[str] = set()
        for key, ticket, left, together in candidates:
            book = self._books.of(ticket.account)
            held = Decimal(0) if book is None else book.exact(ticket.contract_id)
            if not held or not left or (ticket.side.sign > 0) == (held > 0):
                continue
            taken = spoken_for.setdefault((ticket.account, ticket.contract_id), {})
            others = sum((size for name, size in taken.items() if name != together), Decimal(0))
            if others + left <= abs(held):
                taken[together] = max(left, taken.get(together, Decimal(0)))
                kept.add(key)
        return kept


def _blank_order(intent: OrderIntent, owner: Any, data: Any, parent: Any) -> Any:
    """backtrader's order; made as a simulated one, as another wants a bar to be there."""
    ticket = intent.ticket
    kind = ticket.order_type
    exectype = _EXEC_TYPES.get(kind)
    if exectype is None:
        exectype = getattr(ExecType, kind.value)
    percent = ticket.trail_percent
    price = ticket.stop_price if ticket.stop_price is not None else ticket.limit_price
    cls = bt.BuyOrder if ticket.side.sign > 0 else bt.SellOrder
    order = cls(
        owner=owner, data=data, size=_plain(ticket.quantity), price=price, pricelimit=ticket.limit_price,
        exectype=exectype, tradeid=intent.trade_id, trailamount=ticket.trail_amount,
        trailpercent=None if percent is None else percent / 100, parent=parent, simulated=True,
    )  # fmt: skip
    order.p.simulated = False
    if intent.expires_ns is not None:
        order.p.valid = datetime.fromtimestamp(intent.expires_ns / NS_PER_S, tz=UTC)
    elif ticket.time_in_force is TimeInForce.DAY:
        order.p.valid = bt.Order.DAY
    return order


def _status_of(standing: StandingOrder, working: Working) -> int:
    """backtrader's status for an order of an earlier run."""
    status: int
    if standing.open:
        if not standing.known:
            status = bt.Order.Submitted
        else:
            status = bt.Order.Partial if working.filled else bt.Order.Accepted
    elif standing.status is OrderStatus.FILLED or (working.quantity and working.filled >= working.quantity):
        status = bt.Order.Completed
    elif (standing.status is OrderStatus.FAILED or not standing.known) and not working.filled:
        status = bt.Order.Rejected
    else:
        status = bt.Order.Canceled
    return status


def _data_of(intent: OrderIntent, datas: Sequence[Any]) -> Any:
    """The feed of an order: the one it was placed on, by name, else the first that trades its contract."""
    trading = [data for data in datas if contract_of(data).conid == intent.ticket.contract_id]
    named = [data for data in trading if getattr(data, "_name", None) == intent.dataname]
    return next(iter(named or trading), None)


def _sequence(standing: StandingOrder) -> tuple[str, int]:
    parts = parse_key(standing.intent.key)
    return (standing.intent.strategy, 0 if parts is None else parts.number)


def _name_in(order_ref: str | None) -> str | None:
    parts = None if order_ref is None else parse_key(order_ref)
    return None if parts is None else parts.name


def _plain(size: Decimal) -> int | float:
    return int(size) if size == size.to_integral_value() else float(size)
