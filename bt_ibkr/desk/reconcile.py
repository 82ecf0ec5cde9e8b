"""Reading an account again and comparing it with the record.

One pass: orders, executions, positions, cash are read whole or nothing is concluded. What IBKR says is believed over
the record, and each difference is told with both sides. Nothing is ever sent from here: what is only in the record is
not sent again, what is only at IBKR is adopted as somebody else's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import msgspec

from bt_ibkr.clock import NS_PER_S, Clock
from bt_ibkr.connection.interface import AccountSnapshot, Difference, Reconciled, StandingOrder
from bt_ibkr.desk.left import change_made, named, state_of
from bt_ibkr.desk.listed import ListReader
from bt_ibkr.desk.reading import Reading, caught_up, effect, quantities, read_account
from bt_ibkr.desk.registry import Registry, Sink, Tracked
from bt_ibkr.desk.reports import ReportRouter
from bt_ibkr.errors import BtIbkrError, JournalError
from bt_ibkr.journal import Journal, JournalOrder
from bt_ibkr.model.intent import OPEN, UNPROVEN, OrderState
from bt_ibkr.model.order import Execution, OrderReport
from bt_ibkr.model.portfolio import Position
from bt_ibkr.services.executions import ExecutionBook
from bt_ibkr.services.matching import found
from bt_ibkr.services.orders import OrderService
from bt_ibkr.services.portfolio import MOST_LISTED, PortfolioService

_log = logging.getLogger(__name__)

#: IBKR's positions may lag its executions so long, market seconds (fault 50).
GRACE_S = 15
#: Days of executions that ``/trades`` reaches.
TRADES_REACH_DAYS = 7
_HOUR_NS = 3600 * NS_PER_S
_DAY_NS = 24 * _HOUR_NS
#: From UTC to the clocks by which IBKR may end its day: New York, Zurich, Hong Kong, in winter and in summer.
_EAST_NS = tuple(hours * _HOUR_NS for hours in (-5, -4, 0, 1, 2, 8))


class Reconciler:
    """Compares the accounts with the journal.

    Args:
        portfolio, service: For reading.
        journal, registry, router: The record, and where what is new goes.
        clock: Market clock.
        tell: Alarms, by kind and text.
    """

    def __init__(
        self,
        *,
        portfolio: PortfolioService,
        service: OrderService,
        journal: Journal,
        registry: Registry,
        router: ReportRouter,
        clock: Clock,
        tell: Callable[[str, str], None],
    ) -> None:
        self._tell = tell
        self._portfolio = portfolio
        self._journal = journal
        self._registry = registry
        self._router = router
        self._clock = clock
        self._lists = ListReader(service=service, portfolio=portfolio, registry=registry, router=router)
        self._locks: dict[str, asyncio.Lock] = {}
        #: Positions by account and contract, as last believed plus executions since.
        self.positions: dict[str, dict[int, Decimal]] = {}
        self._last_fill_ns: dict[str, int] = {}
        #: Market time of the first and of the last whole reading, by account.
        self._first_read_ns: dict[str, int] = {}
        self._last_read_ns: dict[str, int] = {}
        router.on_execution = self._count

    def _count(self, execution: Execution, replaced: Execution | None) -> None:
        if execution.legs:
            return  # the executions of its legs come besides
        held = self.positions.setdefault(execution.account, {})
        change = effect(execution) - (effect(replaced) if replaced is not None else 0)
        held[execution.conid] = held.get(execution.conid, Decimal(0)) + change
        self._last_fill_ns[execution.account] = self._clock.now_ns()

    # -- at start ----------------------------------------------------------------------------------

    async def attach(self, account: str, sink: Sink) -> AccountSnapshot:
        """Read the account, settle what earlier runs left, and tell ``sink`` of it from now on."""
        since = [order.created_ns for order in self._journal.orders(open_only=True)]
        baseline = self._journal.positions_baseline(account)
        if baseline is not None:
            since.append(baseline.time_ns)
        began_ns = self._clock.now_ns()
        # A day more than needed: a later reading may reach back further than its days say, depending on where IBKR's
        # day ends, and what these positions contain must not be news then.
        days = min(TRADES_REACH_DAYS, 1 + self._days(min(since, default=0)))
        reading = await read_account(self._portfolio, account, days)
        self._first_read_ns.setdefault(account, began_ns)
        self._last_read_ns[account] = began_ns
        record = self._journal.executions(account=account)
        recorded = [one.execution for one in record]
        owners = {one.execution.execution_id: one.key for one in record}
        known = set(owners)
        positions, differences = self._after_an_outage(account, reading, recorded)
        left = [
            one
            for one in self._journal.orders(open_only=True)
            if one.intent.ticket.account == account and not self._under_way(one.intent.key)
        ]
        for order in left:
            tracked = self._registry.get(order.intent.key)
            if tracked is not None:
                tracked.sink = sink
                continue
            tracked = self._registry.add(order.intent, sink)
            tracked.state = order.state
            if order.order_id is not None:
                self._registry.give_id(tracked, order.order_id)
        self._find_ids(left, reading.orders)
        rows: list[tuple[Execution, str | None, str]] = []
        for execution in sorted(reading.executions, key=lambda one: one.time_ns):
            owner = self._registry.find(execution.order_id, execution.order_ref)
            if owner is not None and owner.order_id is None and execution.order_id:
                self._registry.give_id(owner, execution.order_id)
            if owners.get(execution.execution_id) is None and (
                owner is not None or execution.execution_id not in known
            ):
                owners[execution.execution_id] = None if owner is None else owner.key
                rows.append((execution, owners[execution.execution_id], "trades"))
        if rows:
            self._journal.add_executions(rows)
        first = account not in self._router.accounts
        # The stream tells the day's executions again: also those that this reading may have left out.
        self._router.attach(account, sink, [*recorded, *reading.executions])
        if baseline is not None:
            # Not at a first start: what happened before it concerns nobody.
            for execution, _, _ in rows:
                if execution.liquidation:
                    self._router.on_liquidation(execution)
        if first or self._settled(account):
            self._believe(account, positions)
        self._router.take_external(account, reading.orders)
        standing = []
        for order in left:
            one, difference = await self._settle_left(order, reading)
            standing.append(one)
            if difference is not None:
                differences.append(difference)
        standing += self._ended_partners(left)
        return AccountSnapshot(
            positions=positions,
            executions=tuple(named(one, owners[one.execution_id]) for one in reading.executions),
            orders=reading.orders,
            ledger=reading.ledger,
            standing=tuple(standing),
            epoch=self._journal.epoch,
            sequences=dict(self._journal.next_sequences()),
            trading=self._journal.trading_state(),
            differences=tuple(differences),
        )

    def _under_way(self, key: str) -> bool:
        """Whether this process is about to find out by itself whether the order stands."""
        tracked = self._registry.get(key)
        return tracked is not None and tracked.state in UNPROVEN

    def _ended_partners(self, left: Sequence[JournalOrder]) -> list[StandingOrder]:
        """Orders that ended, of a one-cancels-others group of which others are still open.

        A process that died between an execution and the cancellation of the others has left it half done.
        """
        groups = {order.intent.group or order.intent.key for order in left}
        mine = {order.intent.key for order in left}
        oldest = min((order.created_ns for order in left), default=None)
        if oldest is None:
            return []
        return [
            StandingOrder(
                intent=order.intent,
                order_id=order.order_id,
                status=None,
                executions=tuple(
                    row.execution for row in self._journal.executions(key=order.key) if not row.superseded
                ),
                open=False,
            )
            for order in self._journal.orders(since_ns=oldest)
            if order.intent.key not in mine
            and not order.is_open
            and (order.intent.group in groups or order.intent.key in groups)
        ]

    def _find_ids(self, left: Sequence[JournalOrder], orders: tuple[OrderReport, ...]) -> None:
        """IBKR's ids of orders whose answers an earlier run did not see; it may have changed others."""
        by_ticket = {id(one.intent.ticket): one.intent.key for one in left}
        tickets = [one.intent.ticket for one in left]
        # A bracket's children are known by their parent alone, which may have ended.
        parents = {one.intent.parent_key for one in left if one.order_id is None} - {None}
        for key in sorted(str(key) for key in parents - set(by_ticket.values())):
            parent = self._journal.order(key)
            if parent is not None:
                tickets.append(parent.intent.ticket)
        for placement in found(tickets, orders):
            tracked = self._registry.get(by_ticket.get(id(placement.ticket), ""))
            if tracked is not None:
                self._registry.give_id(tracked, placement.order_id)

    async def _settle_left(
        self, order: JournalOrder, reading: Reading
    ) -> tuple[StandingOrder, Difference | None]:
        """What became of one order that was open when an earlier run ended."""
        key = order.intent.key
        tracked = self._registry.get(key)
        assert tracked is not None
        executions = tuple(row.execution for row in self._journal.executions(key=key) if not row.superseded)
        filled = tracked.filled = sum(
            (e.quantity for e in executions if e.conid == order.intent.ticket.contract_id), Decimal(0)
        )
        report = await self._report_of(tracked, reading.orders)
        status = report.status if report is not None else None
        self._settle_change(tracked, report)
        state = state_of(status, filled, tracked)
        difference = None
        if state is None:
            # Neither listed nor executed, and IBKR knows no status of it.
            never = tracked.order_id is None and len(reading.orders) < MOST_LISTED
            state = OrderState.ABSENT if never else tracked.state
            difference = Difference(
                kind="order",
                subject=key,
                recorded=str(order.state),
                reported="not listed",
                text=(
                    f"Order {key} was written down but IBKR does not know it: it is taken as never sent, and is not "
                    "sent now."
                    if never
                    else f"Order {key} (IBKR's {tracked.order_id or 'id is not known'}) is in no list and has no "
                    "status: it is taken as open until its end is proven."
                ),
            )
            _log.warning("reconcile-difference %s", difference.text)
        if state is not tracked.state or tracked.order_id != order.order_id:
            self._router.note(tracked, state, order_id=tracked.order_id)
        return (
            StandingOrder(
                intent=msgspec.structs.replace(order.intent, ticket=tracked.ticket),
                order_id=tracked.order_id,
                status=status,
                executions=executions,
                open=state in OPEN,
                known=state not in (OrderState.ABSENT, *UNPROVEN),
            ),
            difference,
        )

    def _settle_change(self, tracked: Tracked, report: OrderReport | None) -> None:
        """A change that an earlier run asked for, and whose answer it did not see, shows in the order's figures."""
        ticket = change_made(self._journal.events(key=tracked.key), tracked.ticket, report)
        if ticket is None:
            return
        tracked.ticket = ticket
        try:
            self._journal.replace_ticket(tracked.key, ticket)
        except JournalError as problem:
            self._tell("journal-failed", str(problem))

    async def _report_of(self, tracked: Tracked, orders: tuple[OrderReport, ...]) -> OrderReport | None:
        for report in orders:
            if report.order_id == tracked.order_id or (report.order_ref and report.order_ref == tracked.key):
                return report
        if tracked.order_id is None:
            return None
        return await self._lists.status(tracked.order_id)

    # -- while running -----------------------------------------------------------------------------

    def _days(self, since_ns: int) -> int:
        """Days of executions to ask for, so that all since then are among them wherever IBKR's day ends."""
        now_ns = self._clock.now_ns()
        nights = max(
            (now_ns + east) // _DAY_NS - ((since_ns or now_ns) + east) // _DAY_NS for east in _EAST_NS
        )
        return min(TRADES_REACH_DAYS, 1 + max(0, nights))

    def _since(self, account: str, since_ns: int) -> int:
        """Since when executions are to be asked for: over midnight a list of today misses those of before."""
        last_ns = self._last_read_ns.get(account, 0)
        return max(min(since_ns or last_ns, last_ns), self._first_read_ns.get(account, 0))

    async def reconcile(
        self, account: str, cause: str, since_ns: int = 0
    ) -> tuple[Reconciled, tuple[Execution, ...]]:
        """Read again and compare; what was missed is handed on before this returns. Tells everybody attached.

        Args:
            account: Which.
            cause: Why, in words.
            since_ns: Market time up to which the stream was whole, if that was before the last whole reading.

        Returns:
            The result, and the executions that only this reading brought.
        """
        missed: tuple[Execution, ...] = ()
        lock = self._locks.setdefault(account, asyncio.Lock())
        async with lock:
            try:
                result, missed = await self._once(account, cause, since_ns)
            except BtIbkrError as problem:
                _log.warning("reconcile-incomplete account=%s cause=%s problem=%s", account, cause, problem)
                result = Reconciled(
                    account=account,
                    cause=cause,
                    time_ns=self._clock.now_ns(),
                    complete=False,
                    problem=str(problem),
                )
        self._router.tell_all(account, result)
        return result, missed

    async def read_positions(self, account: str) -> tuple[Position, ...]:
        """The account's positions as IBKR has them now."""
        return await self._portfolio.positions(account)

    def agrees(self, account: str, positions: Sequence[Position]) -> bool:
        """Whether these positions are the ones that our record makes of them."""
        return quantities(positions) == {c: q for c, q in self.positions.get(account, {}).items() if q}

    async def _once(
        self, account: str, cause: str, since_ns: int
    ) -> tuple[Reconciled, tuple[Execution, ...]]:
        began_ns = self._clock.now_ns()
        reading = await read_account(self._portfolio, account, self._days(self._since(account, since_ns)))
        self._last_read_ns[account] = began_ns
        missed = tuple(e for e in reading.executions if not self._router.knows(e))
        self._router.take_executions(reading.executions, "trades")
        await self._lists.take(account, reading.orders)
        differences = [
            Difference(
                kind="execution",
                subject=e.execution_id,
                recorded="not reported by the stream",
                reported=f"{e.side} {e.quantity} {e.symbol} at {e.price}",
                text=f"The stream did not tell of execution {e.execution_id}.",
            )
            for e in missed
        ]
        settled = self._settled(account)
        if settled:
            differences += self._differences(account, self.positions.get(account, {}), reading.positions)
            self._believe(account, reading.positions)
        result = Reconciled(
            account=account,
            cause=cause,
            time_ns=self._clock.now_ns(),
            complete=True,
            positions=reading.positions if settled else None,
            differences=tuple(differences),
        )
        return result, missed

    def _settled(self, account: str) -> bool:
        """Whether IBKR's positions have had the time to follow the executions that we know of, and all count."""
        age_ns = self._clock.now_ns() - self._last_fill_ns.get(account, 0)
        return age_ns > GRACE_S * NS_PER_S and not self._router.keeps_executions(account)

    def _after_an_outage(
        self, account: str, reading: Reading, recorded: Sequence[Execution]
    ) -> tuple[tuple[Position, ...], list[Difference]]:
        """IBKR's positions, and where they are not what record and executions make of those of before the outage.

        Where they lag behind executions of the last moments, they are told as they will be: whoever begins with an
        older position would trade for it again.
        """
        baseline = self._journal.positions_baseline(account)
        if baseline is None:
            return reading.positions, []
        expected = dict(baseline.positions)
        for conid, quantity in self._journal.changes_since_baseline(account).items():
            expected[conid] = expected.get(conid, Decimal(0)) + quantity
        book = ExecutionBook()
        for execution in recorded:
            book.add(execution)
        # The list begins at some midnight, and may tell of what the positions of then contained already.
        since_ns = baseline.time_ns - _HOUR_NS
        for execution in sorted(reading.executions, key=lambda one: one.time_ns):
            seen = book.add(execution)
            if seen.new and not execution.legs and execution.time_ns > since_ns:
                change = effect(execution) - (effect(seen.replaces) if seen.replaces else 0)
                expected[execution.conid] = expected.get(execution.conid, Decimal(0)) + change
        begin_ns = self._clock.now_ns() - GRACE_S * NS_PER_S
        # Those that IBKR lists itself: what only the record has may have been taken back.
        young = [one for one in reading.executions if one.time_ns >= begin_ns and not one.legs]
        positions = caught_up(reading.positions, expected, young)
        if positions != reading.positions:
            _log.info("reconcile-positions-lag account=%s", account)
            self._last_fill_ns.setdefault(account, max(one.time_ns for one in young))
        return positions, self._differences(account, expected, positions)

    def _differences(
        self, account: str, expected: Mapping[int, Decimal], positions: Sequence[Position]
    ) -> list[Difference]:
        reported = quantities(positions)
        differences = []
        for conid in sorted(expected.keys() | reported.keys()):
            ours, theirs = expected.get(conid, Decimal(0)), reported.get(conid, Decimal(0))
            if ours == theirs:
                continue
            differences.append(
                Difference(
                    kind="position",
                    subject=str(conid),
                    recorded=str(ours),
                    reported=str(theirs),
                    text=f"Position in contract {conid} of {account}: {ours} by our record, {theirs} at IBKR, which "
                    "is believed. No order was made of the difference.",
                )
            )
            _log.warning("reconcile-difference %s", differences[-1].text)
        return differences

    def _believe(self, account: str, positions: tuple[Position, ...]) -> None:
        held = self.positions[account] = quantities(positions)
        try:
            self._journal.set_positions_baseline(account, held, self._clock.now_ns())
        except JournalError as problem:
            _log.error("journal-failed positions of %s problem=%s", account, problem)
            self._tell("journal-failed", str(problem))
