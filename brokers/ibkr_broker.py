"""The broker: backtrader's orders out, IBKR's reports back in, on cerebro's thread only.

Reports are queued raw by the session's thread and applied in ``next()``. Only executions change
positions and cash; status reports move an order's state. A notification carries a clone of the order, one per
change, in order.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import backtrader as bt
import msgspec

from bt_ibkr.brokers.commission import IBKRCommission
from bt_ibkr.brokers.tickets import check_size, exact, make_ticket, time_in_force
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.interface import (
    AccountEvent,
    CancelFailed,
    CommissionReported,
    ExecutionReported,
    LedgerChanged,
    OrderChanged,
    OrderFailed,
    OrderPlaced,
    Submission,
)
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.errors import OrderRefusedError, OutcomeUnknownError, UsageError
from bt_ibkr.feeds.ibkr_data import base_of, contract_of, is_current
from bt_ibkr.feeds.times import day_number, ns_of
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import Execution, OrderReport, OrderStatus, OrderTicket, TimeInForce
from bt_ibkr.model.portfolio import LedgerLine
from bt_ibkr.store import IBKRStore, refuse_unknown

_log = logging.getLogger(__name__)

#: After an execution, the account's own cash figure is believed again once it is this old, market seconds.
_LEDGER_SETTLES_S = 15
#: At the end of a run, seconds that the executions of an order just answered are waited for.
_LAST_FILLS_S = 0.25


class _Working:
    """What the broker knows of one order beside backtrader's own record."""

    def __init__(self, order: Any, coid: str) -> None:
        self.order = order
        self.coid = coid
        self.order_id: str | None = None
        self.quantity = Decimal(0)
        self.filled = Decimal(0)
        self.submitted = False
        self.accepted = False
        self.cancel_wanted = False
        self.expiring = False
        self.expires_ns: int | None = None
        self.day_order = False
        self.ending: OrderStatus | None = None
        self.reported_filled: Decimal | None = None
        self.done = False


class _Waiting:
    """A report in the queue; an execution without its commission is held until ``hold_until_s``."""

    __slots__ = ("event", "hold_until_s")

    def __init__(self, event: AccountEvent, hold_until_s: float) -> None:
        self.event = event
        self.hold_until_s = hold_until_s


class IBKRBroker(bt.BrokerBase):  # type: ignore[misc]
    """backtrader broker over an IBKR account.

    Parameters:

    - ``store``: the store; ``store.getbroker()`` gives it.
    - ``outside_rth``: orders may trade in extended hours.
    - ``round_prices``: limit and stop prices are rounded to the contract's tick, which IBKR demands.
    - ``commission_wait``: an execution waits so many seconds for its commission before it is shown without one;
      the commission is then added when it comes.
    - ``order_prefix``: begins every ``cOID``; must differ between programs and days. By default made from the time.

    Keyword ``outsideRth=True`` of ``buy()`` and ``sell()`` overrides ``outside_rth`` for one order.
    """

    params = (
        ("store", None),
        ("outside_rth", False),
        ("round_prices", True),
        ("commission_wait", 0.5),
        ("order_prefix", None),
    )

    def __init__(self, **unknown: Any) -> None:  # backtrader's metaclass takes the parameters
        refuse_unknown("IBKRBroker", unknown)
        super().__init__()
        if not isinstance(self.p.store, IBKRStore):
            raise UsageError("IBKRBroker needs a store.", remedy="Make it with store.getbroker().")
        self._store: IBKRStore = self.p.store
        self._events: Mailbox[AccountEvent] = Mailbox(self._store.wake)
        self._notes: deque[Any] = deque()
        self._by_ref: dict[int, _Working] = {}
        self._by_order_id: dict[str, _Working] = {}
        self._by_coid: dict[str, _Working] = {}
        self._held: dict[int, list[_Working]] = {}
        self._groups: dict[int, list[int]] = {}
        self._waiting: deque[_Waiting] = deque()
        self._commissions: dict[str, float] = {}
        self._applied: dict[str, tuple[_Working | None, float | None]] = {}
        self._unmatched: dict[str, list[Execution]] = defaultdict(list)
        self._unmatched_reports: dict[str, list[OrderReport]] = defaultdict(list)
        self._positions: dict[int, Any] = {}
        self._exact_positions: dict[int, Decimal] = {}
        self._seeded: set[int] = set()
        self._marks: dict[int, tuple[float, float]] = {}
        self._datas: dict[int, Any] = {}
        self._rates: dict[str, float] = {}
        self._cash = 0.0
        self._last_fill_ns = 0
        self._sequence = 0
        self._prefix = self.p.order_prefix or f"bt{time.time_ns() // NS_PER_S:x}"
        self._started = False
        self._awaiting = 0
        self._timed: list[_Working] = []
        #: Every order of this run, oldest first, for reports: (client order id, IBKR's order id, order).
        self.orders: list[Any] = []
        #: Every execution applied to this run's orders, in order, with the ``cOID`` of its order.
        self.executions: list[tuple[str, Execution]] = []
        #: What a person should look at after the run, in words: outcomes not known, over-fills.
        self.problems: list[str] = []
        self.startingcash = self.startingvalue = 0.0

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        if self._started:
            return
        self._store.start(broker=self)
        snapshot = self._store.connection.attach_account(self._store.account, self._events)
        for position in snapshot.positions:
            self._exact_positions[position.conid] = position.quantity
            self._positions[position.conid] = bt.Position(float(position.quantity), position.average_price)
            if position.market_price is not None:
                self._marks[position.conid] = (position.market_price, _per_point(position.security_type))
        self._take_ledger(tuple(snapshot.ledger.values()))
        self.startingcash = self._cash
        self.startingvalue = self.getvalue()
        self._started = True

    def stop(self) -> None:
        super().stop()
        for held in self._held.values():
            for working in held:
                _log.warning("order-never-transmitted ref=%d coid=%s", working.order.ref, working.coid)
                self._store.put_notification("order-never-transmitted", working.order)

    def drain(self, wait_s: float) -> None:
        """Take in what is still under way when a run ends: the answers to the last orders, and their fills.

        Strategies have stopped and are told nothing of it, but the books are right. An order that has no
        answer by then is one of ``problems``.

        Args:
            wait_s: At most so long.
        """
        last = [w for w in self._by_ref.values() if w.submitted and not w.done and w.order_id is None]
        latest = time.monotonic() + wait_s
        linger = 0.0
        while (now := time.monotonic()) < latest:
            self.next()
            if self.settled() and not self._store.connection.in_flight():
                # A marketable order executes with its answer; the execution comes by another way.
                linger = linger or now + _LAST_FILLS_S
                if now >= linger or all(working.done for working in last):
                    break
            self._store.wake.wait(0.02)
        if self._awaiting:
            self.problems.extend(
                f"Order {w.coid} was sent when the run ended and has no answer: look it up before you repeat it."
                for w in last
                if w.order_id is None and not w.done
            )

    def data_started(self, data: Any) -> None:
        """A feed knows its contract now: show strategies the position that stood before them."""
        contract = contract_of(data)
        self._datas.setdefault(contract.conid, data)
        position = self._positions.get(contract.conid)
        if position is None or not position.size or contract.conid in self._seeded:
            return
        self._seeded.add(contract.conid)
        cls = bt.BuyOrder if position.size > 0 else bt.SellOrder
        order = cls(
            data=data, size=abs(position.size), price=position.price, exectype=bt.Order.Market, simulated=True
        )
        order.addcomminfo(self.getcommissioninfo(data))
        order.execute(
            0, position.size, position.price, 0, 0.0, 0.0, position.size, 0.0, 0.0, 0.0, 0.0,
            position.size, position.price,
        )  # fmt: skip
        order.completed()
        self._notify(order)

    # -- what backtrader asks ----------------------------------------------------------------------

    def getcash(self) -> float:
        return self._cash

    get_cash = getcash

    def getvalue(self, datas: Any = None) -> float:
        """Cash and positions at their last prices; of ``datas`` only, their positions alone."""
        if datas is not None:
            return float(sum(self._position_value(contract_of(d).conid) for d in datas))
        return self._cash + sum(self._position_value(conid) for conid in self._positions)

    get_value = getvalue

    def _position_value(self, conid: int) -> float:
        position = self._positions.get(conid)
        if position is None or not position.size:
            return 0.0
        data = self._datas.get(conid)
        multiplier, currency, future = 1.0, "", False
        if data is not None:
            contract = contract_of(data)
            multiplier, currency = contract.multiplier, contract.currency
            future = contract.security_type in (SecurityType.FUTURE, SecurityType.CFD)
            price = data.close[0] if len(data) else self._marks.get(conid, (position.price, 1.0))[0]
        else:
            price, multiplier = self._marks.get(conid, (position.price, 1.0))
        if future:
            price -= position.price
        return float(position.size * price * multiplier * self._rates.get(currency, 1.0))

    def getposition(self, data: Any, clone: bool = True) -> Any:
        position = self._positions.get(contract_of(data).conid)
        if position is None:
            return bt.Position(0, 0.0)
        return position.clone() if clone else position

    @property
    def positions(self) -> dict[Any, Any]:
        """Position by data, for the datas of this run."""
        return {
            data: self._positions[conid] for conid, data in self._datas.items() if conid in self._positions
        }

    def getcommissioninfo(self, data: Any) -> Any:
        """The scheme set for the data, the one set for all, or IBKR's fixed schedule for its contract."""
        name = base_of(data)._name
        chosen = self.comminfo.get(data._name) or self.comminfo.get(name)
        if chosen is None:
            contract = contract_of(data)
            chosen = self.comminfo[name] = IBKRCommission(
                security_type=contract.security_type.value, mult=contract.multiplier
            )
        return chosen

    def get_orders_open(self, safe: bool = False) -> list[Any]:
        """Orders that may still execute; clones if ``safe``."""
        live = [w.order for w in self._by_ref.values() if not w.done]
        return [order.clone() for order in live] if safe else live

    def orderstatus(self, order: Any) -> int:
        """The order's status in this broker."""
        working = self._by_ref.get(order.ref)
        status: int = working.order.status if working is not None else order.status
        return status

    def get_notification(self) -> Any:
        return self._notes.popleft() if self._notes else None

    def _notify(self, order: Any) -> None:
        self._notes.append(order.clone())

    def client_order_id(self, order: Any) -> str | None:
        """The ``cOID`` of an order of this run; a bracket's child has one here, though not on the wire."""
        working = self._by_ref.get(order.ref)
        return None if working is None else working.coid

    def order_id(self, order: Any) -> str | None:
        """IBKR's id of an order of this run, once it has one."""
        working = self._by_ref.get(order.ref)
        return None if working is None else working.order_id

    # -- orders out --------------------------------------------------------------------------------

    def buy(self, owner: Any, data: Any, size: float, price: float | None = None, plimit: float | None = None,
            exectype: int | None = None, valid: Any = None, tradeid: int = 0, oco: Any = None,
            trailamount: float | None = None, trailpercent: float | None = None,
            parent: Any = None, transmit: bool = True, **kwargs: Any) -> Any:  # fmt: skip
        """See backtrader. Raises ``OrderRefusedError`` for what can never be an order."""
        return self._order(bt.BuyOrder, owner, data, size, price, plimit, exectype, valid, tradeid, oco,
                           trailamount, trailpercent, parent, transmit, kwargs)  # fmt: skip

    def sell(self, owner: Any, data: Any, size: float, price: float | None = None, plimit: float | None = None,
             exectype: int | None = None, valid: Any = None, tradeid: int = 0, oco: Any = None,
             trailamount: float | None = None, trailpercent: float | None = None,
             parent: Any = None, transmit: bool = True, **kwargs: Any) -> Any:  # fmt: skip
        """See ``buy``."""
        return self._order(bt.SellOrder, owner, data, size, price, plimit, exectype, valid, tradeid, oco,
                           trailamount, trailpercent, parent, transmit, kwargs)  # fmt: skip

    def _order(self, cls: Any, owner: Any, data: Any, size: Any, price: Any, plimit: Any, exectype: Any,
               valid: Any, tradeid: int, oco: Any, trailamount: Any, trailpercent: Any, parent: Any,
               transmit: bool, info: dict[str, Any]) -> Any:  # fmt: skip
        contract = contract_of(data)
        what = f"{'buy' if cls is bt.BuyOrder else 'sell'} {contract.symbol}"
        size = check_size(size, what)
        time_in_force(valid)
        if not len(data):
            raise OrderRefusedError(
                f"{what}: the order was placed before the first bar of {contract.symbol}.",
                remedy="Place orders in next(), or once len(self.data) is above 0.",
            )
        order = cls(
            owner=owner, data=data, size=size, price=price, pricelimit=plimit, exectype=exectype, valid=valid,
            tradeid=tradeid, trailamount=trailamount, trailpercent=trailpercent, parent=parent, transmit=transmit,
        )  # fmt: skip
        order.addinfo(**info)
        order.addcomminfo(self.getcommissioninfo(data))
        self._sequence += 1
        working = _Working(order, f"{self._prefix}-{self._sequence}")
        working.quantity = exact(size)
        working.expires_ns = self._expiry_ns(valid)
        # Refuse what cannot be said now, not when the bracket is transmitted.
        working.day_order = self._ticket(working).time_in_force is TimeInForce.DAY
        self._by_ref[order.ref] = working
        self._by_coid[working.coid] = working
        self.orders.append(order)
        if working.expires_ns is not None:
            self._timed.append(working)
        if not is_current(data):
            self._refuse(working, f"{what}: the bar it was decided on is history, not the present market")
            return order
        if oco is not None:
            self._join_group(order.ref, oco.ref)
        self._queue_or_send(working, parent, transmit)
        return order

    def _queue_or_send(self, working: _Working, parent: Any, transmit: bool) -> None:
        order = working.order
        if parent is not None:
            held = self._held.get(parent.ref)
            if held is None:
                self._refuse(working, f"its parent (ref {parent.ref}) is not waiting to be transmitted")
                return
            held.append(working)
            if not transmit:
                return
            self._held.pop(parent.ref)
            self._send(held)
        elif transmit:
            self._send([working])
        else:
            self._held[order.ref] = [working]

    def _refuse(self, working: _Working, why: str) -> None:
        _log.warning("order-refused coid=%s why=%s", working.coid, why)
        self._store.put_notification("order-refused", working.order, why=why)
        working.done = True
        working.order.addinfo(reason=why)
        working.order.reject(self)
        self._notify(working.order)

    def _ticket(self, working: _Working) -> OrderTicket:
        order = working.order
        parent = order.p.parent
        parent_working = self._by_ref.get(parent.ref) if parent is not None else None
        return make_ticket(
            order,
            account=self._store.account,
            contract=contract_of(order.data),
            client_order_id=None if parent is not None else working.coid,
            parent=parent_working.coid if parent_working is not None else None,
            outside_regular_hours=bool(order.info.get("outsideRth", self.p.outside_rth)),
            round_prices=self.p.round_prices,
            protective=self._protects(working),
        )

    def _protects(self, working: _Working) -> bool:
        """Whether the order can only make the present position smaller."""
        contract = contract_of(working.order.data)
        held = self._exact_positions.get(contract.conid, Decimal(0))
        if not held or working.order.isbuy() == (held > 0):
            return False
        return working.quantity <= abs(held)

    def _send(self, group: list[_Working]) -> None:
        submissions = tuple(Submission(w.order.ref, self._ticket(w)) for w in group)
        for working in group:
            working.submitted = True
            working.order.submit(self)
            self._notify(working.order)
        self._awaiting += len(group)
        self._store.connection.place(submissions, self._events)

    def cancel(self, order: Any) -> Any:
        """Ask IBKR to cancel; the order is Canceled when IBKR says so."""
        working = self._by_ref.get(order.ref)
        if working is None or working.done:
            return order
        if not working.submitted:
            self._withdraw_held(working)
            return order
        working.cancel_wanted = True
        if working.order_id is not None:
            self._store.connection.cancel(
                self._store.account, working.order_id, working.order.ref, self._events
            )
        return order

    def _withdraw_held(self, working: _Working) -> None:
        """An order that was never transmitted: cancelled here, with its children."""
        group = self._held.pop(working.order.ref, None)
        if group is None:
            for held in self._held.values():
                if working in held:
                    held.remove(working)
            group = [working]
        for one in group:
            one.done = True
            one.order.cancel()
            self._notify(one.order)
            self._cancel_group(one)

    def _expiry_ns(self, valid: Any) -> int | None:
        """The moment at which the broker itself cancels, as the wire has no good-till-date."""
        now_ns = self._store.connection.clock.now_ns()
        if isinstance(valid, datetime):
            return ns_of(valid)
        if isinstance(valid, date):
            return ns_of(datetime(valid.year, valid.month, valid.day))  # noqa: DTZ001 - naive is UTC here
        if isinstance(valid, timedelta) and valid != timedelta():
            return now_ns + int(valid.total_seconds() * NS_PER_S)
        if isinstance(valid, (int, float)) and not isinstance(valid, bool) and valid > 0:
            # A number counts days from the last bar, as in backtrader's own broker.
            return now_ns + int(valid * 86_400 * NS_PER_S)
        return None

    # -- reports in (cerebro's thread) ---------------------------------------------------------------

    def pending(self) -> bool:
        """See ``StoreBroker``: something is to be applied or fetched now."""
        return bool(self._notes or len(self._events) or self._head_ready() or self._expiry_due())

    def settled(self) -> bool:
        """Whether everything asked of IBKR is answered and everything reported is applied."""
        return not self._awaiting and not self._waiting and not len(self._events)

    def next(self) -> None:
        """Apply what has arrived, in the order it was reported; cerebro calls this once per cycle."""
        while len(self._events):
            event = self._events.take()
            if isinstance(event, CommissionReported):
                # Belongs to an execution reported before it, which may be waiting for just this.
                self._take_commission(event.execution)
            elif event is not None:
                self._waiting.append(_Waiting(event, time.monotonic() + self.p.commission_wait))
        while self._head_ready():
            self._apply(self._waiting.popleft().event)
        if self._expiry_due():
            self._expire_due()

    def _head_ready(self) -> bool:
        """Whether the oldest report can be applied: an execution waits a moment for its commission, and
        what was reported after it waits with it."""
        if not self._waiting:
            return False
        head = self._waiting[0]
        if not isinstance(head.event, ExecutionReported):
            return True
        execution = head.event.execution
        return (
            execution.commission is not None
            or execution.execution_id in self._commissions
            or time.monotonic() >= head.hold_until_s
        )

    def _apply(self, event: AccountEvent) -> None:
        if isinstance(event, ExecutionReported):
            self._take_execution(event.execution)
        elif isinstance(event, CommissionReported):
            self._take_commission(event.execution)
        elif isinstance(event, OrderChanged):
            self._take_report(event.report)
        elif isinstance(event, OrderPlaced):
            self._take_placed(event)
        elif isinstance(event, OrderFailed):
            self._take_failed(event)
        elif isinstance(event, CancelFailed):
            self._take_cancel_failed(event)
        elif isinstance(event, LedgerChanged):
            now_ns = self._store.connection.clock.now_ns()
            if now_ns - self._last_fill_ns > _LEDGER_SETTLES_S * NS_PER_S:
                self._take_ledger(event.lines)

    def _take_placed(self, event: OrderPlaced) -> None:
        working = self._by_ref[event.ref]
        self._awaiting -= 1
        working.order_id = event.order_id
        self._by_order_id[event.order_id] = working
        self._accept(working)
        for execution in self._unmatched.pop(event.order_id, ()):
            self._apply_fill(execution)
        for report in self._unmatched_reports.pop(event.order_id, ()):
            self._take_report(report)
        if working.cancel_wanted and not working.done:
            self.cancel(working.order)
        self._release_unmatched()

    def _release_unmatched(self) -> None:
        """With no answer outstanding, what still belongs to no order of ours is another client's."""
        if self._awaiting:
            return
        for executions in self._unmatched.values():
            for execution in executions:
                self._apply_fill(execution)
        self._unmatched.clear()
        self._unmatched_reports.clear()

    def _accept(self, working: _Working) -> None:
        if not working.accepted and not working.done:
            working.accepted = True
            working.order.accept(self)
            self._notify(working.order)

    def _take_failed(self, event: OrderFailed) -> None:
        working = self._by_ref[event.ref]
        self._awaiting -= 1
        self._release_unmatched()
        error = event.error
        self._store.put_notification("order-failed", working.order, error=error)
        if isinstance(error, OutcomeUnknownError):
            # Neither accepted nor rejected: it stays as submitted until a report tells.
            _log.error("order-outcome-unknown coid=%s problem=%s", working.coid, error)
            self.problems.append(str(error))
            return
        if working.done or working.accepted:
            return
        working.done = True
        _log.warning("order-rejected coid=%s problem=%s", working.coid, error)
        working.order.addinfo(reason=str(error))
        if isinstance(error, OrderRefusedError) and error.margin:
            working.order.margin()
        else:
            working.order.reject(self)
        self._notify(working.order)
        self._cancel_group(working)

    def _take_cancel_failed(self, event: CancelFailed) -> None:
        working = self._by_ref[event.ref]
        _log.info("cancel-failed coid=%s problem=%s", working.coid, event.error)
        if not working.done:
            self._store.put_notification("cancel-failed", working.order, error=event.error)
            working.cancel_wanted = working.expiring = False

    def _find(self, order_id: str | None, order_ref: str | None) -> _Working | None:
        working = self._by_order_id.get(order_id or "")
        if working is None and order_ref:
            working = self._by_coid.get(order_ref)
            if working is not None and order_id:
                working.order_id = order_id
                self._by_order_id[order_id] = working
        return working

    def _take_report(self, report: OrderReport) -> None:
        working = self._find(report.order_id, report.order_ref)
        if working is None:
            if self._awaiting:
                self._unmatched_reports[report.order_id].append(report)
            return
        if report.filled_quantity is not None:
            working.reported_filled = max(report.filled_quantity, working.reported_filled or Decimal(0))
        if report.status in (OrderStatus.PRE_SUBMITTED, OrderStatus.SUBMITTED):
            self._accept(working)
        elif report.status in (OrderStatus.CANCELLED, OrderStatus.FAILED):
            working.ending = report.status
            if report.reason:
                working.order.addinfo(reason=report.reason)
            self._maybe_end(working)

    def _maybe_end(self, working: _Working) -> None:
        """End a cancelled order once every execution that was reported for it has been applied."""
        if working.done or working.ending is None:
            return
        if (working.reported_filled or Decimal(0)) > working.filled:
            return
        working.done = True
        order = working.order
        if working.ending is OrderStatus.FAILED:
            order.reject(self)
        elif working.expiring or (working.day_order and not working.cancel_wanted):
            order.status = order.Expired
            order.executed.dt = order.data.datetime[0]
        else:
            order.cancel()
        self._notify(order)
        self._cancel_group(working)

    def _take_execution(self, execution: Execution) -> None:
        working = self._find(execution.order_id, execution.order_ref)
        if working is None and self._awaiting and execution.order_id:
            # A bracket's child may execute before the answer that tells its id.
            self._unmatched[execution.order_id].append(execution)
            return
        self._apply_fill(execution)

    def _take_commission(self, execution: Execution) -> None:
        assert execution.commission is not None
        applied = self._applied.get(execution.execution_id)
        if applied is None:
            self._commissions[execution.execution_id] = execution.commission
            return
        working, before = applied
        if before == execution.commission:
            return
        difference = execution.commission - (before or 0.0)
        self._cash -= difference * self._rate_of(execution.conid)
        self._applied[execution.execution_id] = (working, execution.commission)
        if working is not None:
            working.order.executed.comm += difference
            self._store.put_notification("late-commission", working.order, execution=execution)

    def _apply_fill(self, execution: Execution) -> None:
        """Position, cash, order and notification of one execution."""
        commission = self._commissions.pop(execution.execution_id, execution.commission)
        working = self._find(execution.order_id, execution.order_ref)
        self._applied[execution.execution_id] = (working, commission)
        self._last_fill_ns = max(self._last_fill_ns, self._store.connection.clock.now_ns())
        conid = execution.conid
        size = float(execution.quantity) * execution.side.sign
        position = self._positions.setdefault(conid, bt.Position(0, 0.0))
        before = position.price
        new_size, new_price, opened, closed = position.update(size, execution.price)
        self._settle_position(conid, execution)
        data = self._datas.get(conid)
        multiplier = contract_of(data).multiplier if data is not None else 1.0
        rate = self._rate_of(conid)
        future = data is not None and contract_of(data).security_type in (
            SecurityType.FUTURE,
            SecurityType.CFD,
        )
        if future:
            self._cash += -closed * (execution.price - before) * multiplier * rate
        else:
            self._cash -= size * execution.price * multiplier * rate
        self._cash -= (commission or 0.0) * rate
        if working is None:
            _log.info("external-execution id=%s conid=%d", execution.execution_id, conid)
            self._store.put_notification("external-execution", execution)
            return
        self._accept(working)
        self.executions.append((working.coid, msgspec.structs.replace(execution, commission=commission)))
        self._execute(working, execution, commission or 0.0, before, new_size, new_price, opened, closed)

    def _rate_of(self, conid: int) -> float:
        """Units of base currency per unit of the instrument's."""
        data = self._datas.get(conid)
        return 1.0 if data is None else self._rates.get(contract_of(data).currency, 1.0)

    def _settle_position(self, conid: int, execution: Execution) -> None:
        """Keep the exact size beside backtrader's float, so that 0.1 three times is 0.3."""
        total = self._exact_positions.get(conid, Decimal(0)) + execution.quantity * execution.side.sign
        self._exact_positions[conid] = total
        position = self._positions[conid]
        position.size = int(total) if total == total.to_integral_value() else float(total)
        if not total:
            position.price = 0.0

    def _execute(self, working: _Working, execution: Execution, commission: float, before: float,
                 new_size: float, new_price: float, opened: float, closed: float) -> None:  # fmt: skip
        order = working.order
        comminfo = order.comminfo
        status_before = order.status
        size = opened + closed
        closed_commission = commission * abs(closed / size)
        pnl = comminfo.profitandloss(-closed, before, execution.price)
        order.execute(
            day_number(execution.time_ns),
            size,
            execution.price,
            closed,
            comminfo.getoperationcost(closed, before),
            closed_commission,
            opened,
            comminfo.getoperationcost(opened, execution.price),
            commission - closed_commission,
            comminfo.margin,
            pnl,
            new_size,
            new_price,
        )
        working.filled += execution.quantity
        if working.filled >= working.quantity:
            # By exact count: floats of fractional fills need not add up.
            order.executed.remsize = 0
            order.completed()
            working.done = True
            if working.filled > working.quantity:
                _log.error(
                    "order-overfilled coid=%s filled=%s of=%s", working.coid, working.filled, working.quantity
                )
                self.problems.append(f"Order {working.coid}: {working.filled} filled of {working.quantity}.")
                self._store.put_notification("order-overfilled", order)
        elif working.done:
            # Reported after the order's end: it counts, but the order does not live again.
            order.status = status_before
        else:
            order.partial()
        self._notify(order)
        if working.done:
            self._cancel_group(working)
        else:
            self._maybe_end(working)

    def _join_group(self, ref: int, other: int) -> None:
        """``oco=``: ``ref`` joins the group of ``other``, which may be any of its members."""
        group = self._groups.setdefault(other, [other])
        group.append(ref)
        self._groups[ref] = group

    def _cancel_group(self, working: _Working) -> None:
        """When one of an ``oco=`` group is done, the others are cancelled."""
        for ref in self._groups.pop(working.order.ref, ()):
            other = self._by_ref.get(ref)
            if other is not None and other is not working and not other.done and not other.cancel_wanted:
                self.cancel(other.order)

    # -- cash ----------------------------------------------------------------------------------------

    def _take_ledger(self, lines: tuple[LedgerLine, ...]) -> None:
        """Cash in the account's base currency: the line at rate 1, or the line that sums all."""
        named = [line for line in lines if line.currency != "BASE"]
        for line in named:
            self._rates[line.currency] = line.exchange_rate
        base = next((line for line in named if line.exchange_rate == 1.0), None)
        chosen = base or next((line for line in lines if line.currency == "BASE"), None)
        if chosen is not None:
            self._cash = chosen.cash

    # -- expiry --------------------------------------------------------------------------------------

    def _expiry_due(self) -> bool:
        if not self._timed:
            return False
        now_ns = self._store.connection.clock.now_ns()
        return any(w.expires_ns is not None and w.expires_ns <= now_ns for w in self._timed)

    def deadline_ns(self) -> int | None:
        """See ``StoreBroker``: the next moment at which an order ends by its ``valid``."""
        return min((w.expires_ns for w in self._timed if w.expires_ns and not w.done), default=None)

    def _expire_due(self) -> None:
        now_ns = self._store.connection.clock.now_ns()
        due = [w for w in self._timed if w.expires_ns is not None and w.expires_ns <= now_ns]
        self._timed = [w for w in self._timed if w not in due and not w.done]
        for working in due:
            if not working.done:
                working.expiring = True
                self.cancel(working.order)


def _per_point(security_type: str) -> float:
    """Value of one unit where no feed tells the multiplier; options are by the hundred."""
    return 100.0 if security_type in ("OPT", "FOP") else 1.0
