"""What strategies are told of a session's troubles, once each, and what is counted of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.interface import (
    AccountEvent,
    ExecutionReported,
    OrderChanged,
    OrderFailed,
    OrderPlaced,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.desk.reconcile import Reconciler
from bt_ibkr.desk.registry import Registry
from bt_ibkr.desk.reports import ReportRouter
from bt_ibkr.errors import SessionError, UnreachableError
from bt_ibkr.journal import Journal
from bt_ibkr.model.order import Execution, OrderStatus, Side
from bt_ibkr.model.portfolio import LedgerLine
from bt_ibkr.session.transfer import transfer
from bt_ibkr.store import IBKRStore
from tests.connection.conftest import ACCOUNT

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape
    from tests.faults.conftest import Bed, MakeBed

PATIENCE_S = 10.0
HOUR_NS = 3600 * NS_PER_S
DAY_NS = 24 * HOUR_NS


def _kinds(made: Bed) -> list[str]:
    return [one.kind for one in made.notices()]


def _fill(made: Bed) -> None:
    made.emulator.call(lambda s: s.drive.step(until_ns=None, max_events=5, received={}))


# -- reading again after a break ----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/iserver/account/orders", "/iserver/account/trades"])
def test_a_repair_that_fails_is_told_and_tried_again(bed: MakeBed, path: str) -> None:
    """Told at once, once; nothing is concluded meanwhile; tried again until it was read, which is told too."""
    made = bed()
    made.attach()
    contract = made.stream()
    made.buy(contract)
    made.until(lambda: made.of(OrderPlaced))
    # Only asking brings what happens from here on.
    for topic in ("sor", "str"):
        made.fault("silence", topic=topic)
    number = made.fault("http", action="status", path=path, count=0)
    made.fault("ws_reset")
    made.until(lambda: "unread" in _kinds(made))
    _fill(made)
    made.until(lambda: made.hits(number) >= 4)
    assert _kinds(made).count("unread") == 1
    assert "reread" not in _kinds(made)
    assert made.connection.in_flight() == 0
    ends = [e.report.status for e in made.of(OrderChanged) if e.report.status is not OrderStatus.FILLED]
    assert OrderStatus.CANCELLED not in ends
    made.control.post("/clear_faults", {"id": number})
    made.until(lambda: "reread" in _kinds(made))
    made.until(lambda: any(e.report.status is OrderStatus.FILLED for e in made.of(OrderChanged)))
    made.until(lambda: made.of(ExecutionReported))
    ids = [e.execution.execution_id for e in made.of(ExecutionReported)]
    assert len(ids) == len(set(ids))
    assert _kinds(made).count("reread") == 1
    assert made.connection.metrics().unread_reports >= 4


class _Portfolio:
    """An account without orders. Its lists of executions begin at a midnight ``east_ns`` from UTC's."""

    def __init__(self, executions: list[Execution], clock: ManualClock, east_ns: int) -> None:
        self._executions = executions
        self._clock = clock
        self._east_ns = east_ns
        self.asked: list[int] = []

    async def live_orders(self, account: str) -> tuple[()]:
        return ()

    async def positions(self, account: str) -> tuple[()]:
        return ()

    async def ledger(self, account: str) -> dict[str, LedgerLine]:
        return {}

    async def trades(self, account: str, days: int = 1) -> tuple[Execution, ...]:
        self.asked.append(days)
        now_ns = self._clock.now_ns()
        today = (now_ns + self._east_ns) // DAY_NS
        since_ns = (today - days + 1) * DAY_NS - self._east_ns
        return tuple(one for one in self._executions if since_ns <= one.time_ns <= now_ns)


class _Account:
    """An account that is read at will; news of it are in ``news``."""

    def __init__(self, executions: list[Execution], attached_ns: int, east_ns: int) -> None:
        self.clock = ManualClock(attached_ns)
        self.portfolio = _Portfolio(executions, self.clock, east_ns)
        self._box: Mailbox[AccountEvent] = Mailbox(WakeUp())
        journal, registry = Journal.open(None, clock=self.clock), Registry()
        portfolio: Any = self.portfolio
        nobody: Any = None
        self.reconciler = Reconciler(
            portfolio=portfolio,
            service=nobody,
            journal=journal,
            registry=registry,
            router=ReportRouter(registry, journal, _hushed),
            clock=self.clock,
            tell=_hushed,
        )

    async def read(self, hours: float, since_ns: int = 0) -> None:
        """Read it so many hours later."""
        self.clock.set_ns(self.clock.now_ns() + int(hours * HOUR_NS))
        result, _ = await self.reconciler.reconcile(ACCOUNT, "a test", since_ns)
        assert result.complete, result.problem

    async def attach(self) -> None:
        await self.reconciler.attach(ACCOUNT, self._box)

    def news(self) -> list[str]:
        told = []
        while (event := self._box.take()) is not None:
            if isinstance(event, ExecutionReported):
                told.append(event.execution.execution_id)
        return told


def _hushed(kind: str, text: str) -> None:
    raise AssertionError((kind, text))


def execution_of(execution_id: str, time_ns: int) -> Execution:
    return Execution(
        execution_id=execution_id,
        account=ACCOUNT,
        conid=265598,
        symbol="AAPL",
        side=Side.BUY,
        quantity=Decimal(1),
        price=100.0,
        time_ns=time_ns,
    )


#: 2026-03-02, 15:00 UTC.
ATTACHED_NS = 1_772_463_600 * NS_PER_S
NEW_YORK_NS = -5 * HOUR_NS


@pytest.mark.parametrize(
    ("hours", "asked"), [(0.5, [1, 1]), (10, [2, 1]), (24, [2, 1]), (72, [4, 1]), (720, [7, 1])]
)
def test_a_break_over_midnight_asks_for_more_days(hours: float, asked: list[int]) -> None:
    """Executions of the break's first day are in no list of today."""
    first = execution_of("first", ATTACHED_NS + 1)
    new = execution_of("new", ATTACHED_NS + int((hours - 0.25) * HOUR_NS))
    account = _Account([execution_of("old", ATTACHED_NS - HOUR_NS), first, new], ATTACHED_NS, NEW_YORK_NS)

    async def live() -> None:
        await account.attach()
        account.portfolio.asked.clear()
        await account.read(hours, ATTACHED_NS + 1)
        await account.read(0)

    asyncio.run(live())
    # In the order of their time; a week is the most that can be asked for.
    assert account.news() == (["first", "new"] if hours < 720 else ["new"])
    assert account.portfolio.asked == asked


def test_midnight_between_two_readings_hides_nothing() -> None:
    """Without any break: what the stream lost just before midnight is found just after it."""
    midnight_ns = ATTACHED_NS + 14 * HOUR_NS  # 05:00 UTC
    account = _Account(
        [execution_of("late", midnight_ns - NS_PER_S)], midnight_ns - HOUR_NS // 60, NEW_YORK_NS
    )

    async def live() -> None:
        await account.attach()
        await account.read(2 / 60)

    asyncio.run(live())
    assert account.news() == ["late"]


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0, 24),
    st.sampled_from([-5, -4, 0, 1, 2, 8]),
    st.lists(st.tuples(st.floats(0, 48), st.booleans()), min_size=1, max_size=4),
)
def test_what_was_before_is_never_news_and_what_came_later_is_once(
    began: float, east: int, readings: list[tuple[float, bool]]
) -> None:
    """Wherever IBKR's day ends, New York, Zurich or Hong Kong. What happened before the account was read is in its
    positions; a list that reaches further back than the first one must not add it to them."""
    attached_ns = ATTACHED_NS + int(began * HOUR_NS)
    hours = range(-96, 0)
    executions = [execution_of(f"old{hour}", attached_ns + hour * HOUR_NS) for hour in hours]
    moment_ns, expected = attached_ns, []
    for number, (later, _) in enumerate(readings):
        executions.append(execution_of(f"new{number}", moment_ns + int(later * HOUR_NS / 2) + number + 1))
        expected.append(f"new{number}")
        moment_ns += int(later * HOUR_NS) + 10
    account = _Account(executions, attached_ns, east * HOUR_NS)

    async def live() -> None:
        await account.attach()
        for later, told in readings:
            since_ns = account.clock.now_ns()
            await account.read(later + 10 / HOUR_NS, since_ns if told else 0)

    asyncio.run(live())
    # A reading at the very moment of an execution may miss it; the next one does not.
    account.clock.set_ns(moment_ns + NS_PER_S)
    asyncio.run(account.read(0))
    assert account.news() == expected


# -- refusals of the stream ---------------------------------------------------------------------------


def test_renewals_without_a_session_are_told_once(bed: MakeBed) -> None:
    """Each subscription is refused at each renewal: one notice an episode, all of them counted."""
    made = bed({"heartbeat_s": 0.1})
    made.attach()
    made.stream()
    for episode in (1, 2):
        # A request would have the session opened again.
        made.until(lambda: not made.connection.in_flight())
        made.fault("expire", told=False)
        for _ in range(3):
            made.on_loop(lambda: made.session.socket.ask_again("smd+265598", "sor", "str"))
        made.until(partial(_refused, made, episode * 9))
        made.look()
        assert _kinds(made).count("error") == episode
        made.fault("ws_reset")
        made.back(episode)
    assert made.connection.metrics().stream_errors == 18


def _refused(made: Bed, times: int) -> bool:
    return made.connection.metrics().stream_errors >= times


# -- the end --------------------------------------------------------------------------------------------


def test_an_end_during_an_order_leaves_no_alarm(bed: MakeBed, caplog: pytest.LogCaptureFixture) -> None:
    """One order's POST is under way, another waits for its turn: no word of aiohttp's is logged."""
    made = bed()
    made.attach()
    contract = made.stream()
    held = made.fault("http", action="hold", method="POST", path="/iserver/account/*/orders", count=0)
    with caplog.at_level(logging.INFO):
        made.buy(contract, 1)
        made.buy(contract, 2)
        made.until(lambda: made.hits(held) == 1)
        made.connection.close()
    made.until(lambda: len(made.of(OrderFailed)) == 2 or not made.connection.in_flight())
    assert "Session is closed" not in caplog.text
    assert "Traceback" not in caplog.text
    assert made.hits(held) == 1


def test_a_closed_client_is_named() -> None:
    async def ask() -> None:
        client = aiohttp.ClientSession()
        await client.close()
        await transfer(
            client, "POST", "http://127.0.0.1:9/x", at="here", timeout=aiohttp.ClientTimeout(5), tls=True
        )

    with pytest.raises(UnreachableError, match="was not sent: the session is closed"):
        asyncio.run(ask())


# -- by a strategy --------------------------------------------------------------------------------------


def test_a_strategy_takes_the_session_over(bench: Bench, tape: type[Tape]) -> None:
    """`competing="ask"`: it waits for the word, which a strategy can give; and what happened can be read."""
    line = bench.line(market=bench.market(AAPL=tape().every_second(360, lambda s: 100.0)))
    line.store = IBKRStore(
        settings=SessionSettings(
            base_url=line.emulator.url, paced=False, reconnect_first_s=0.01, competing="ask"
        ),
        clock=line.clock,
        bar_grace_s=0.0,
    )
    store, seen = line.store, []

    def until(state: str) -> None:
        latest = time.monotonic() + PATIENCE_S
        while store.metrics().state != state:
            assert time.monotonic() < latest, store.metrics()
            store.wake.wait(0.1)

    def script(strategy: Any) -> None:
        if len(strategy) == 3:
            line.control.post("/fault", {"kind": "compete", "rematches": 0})
            until("competing")

    def told(strategy: Any, message: str, args: tuple[Any, ...]) -> None:
        if message == "competing":
            seen.append(store.metrics())
            store.take_over()
            until("streaming")

    with contextlib.closing(store):
        run = bench.run(line, script, on_store=told)
        assert len(run.strategy.rows["AAPL"]) >= 5
    assert [one.reconnects for one in seen] == [0]
    assert "competing" in [entry[1] for entry in run.strategy.log if entry[0] == "store"]
    # Closed: the last figures stay.
    last = store.metrics()
    assert last.state == "disconnected"
    assert last.reconnects == last.gaps == 1
    assert last.transitions["brokerage session -> streaming"] == 2
    assert last.transitions["streaming -> disconnected"] == 2
    assert last.frames > 300
    assert last.unreadable_frames == last.ticks_conflated == last.penalties == 0
    assert last.waits["upkeep"].requests >= 5
    with pytest.raises(SessionError):
        store.take_over()


def test_waits_are_seen_by_class(bed: MakeBed) -> None:
    """With IBKR's limits two readings of the trades lie five seconds apart: the second one is seen to wait."""
    made = bed(paced=True, pacing_speed=20.0)
    first = made.connection.metrics()
    assert first.budget <= 10

    async def read_twice() -> None:
        portfolio = made.connection._brokerage.portfolio
        await asyncio.gather(portfolio.trades(ACCOUNT), portfolio.trades(ACCOUNT))

    made.on_loop(read_twice)
    last = made.connection.metrics()
    account = last.waits["account"]
    assert account.requests >= 4
    assert account.longest_wait_s >= 5.0 / 20
    assert account.waited_s >= account.longest_wait_s
    assert last.longest_wait_s >= account.longest_wait_s
    assert last.queued == {}


def test_a_penalty_is_counted_with_what_it_refused(bed: MakeBed) -> None:
    made = bed()
    made.attach()
    made.fault("http", action="status", status=429, path="/portfolio/*")
    for _ in range(3):
        with pytest.raises(SessionError):
            made.connection.positions("DU1234567")
    counted = made.connection.metrics()
    assert counted.state == "penalty"
    assert counted.penalties == 1
    assert counted.penalty_s > 800
    assert counted.waits["account"].refused == 2
    assert counted.transitions["streaming -> penalty"] == 1
