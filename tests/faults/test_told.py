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
from bt_ibkr.connection.reports import AccountStream, Reports

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
from bt_ibkr.errors import SessionError, UnreachableError
from bt_ibkr.model.order import Execution, OrderStatus, Side
from bt_ibkr.services.executions import ExecutionBook
from bt_ibkr.session.transfer import transfer
from bt_ibkr.store import IBKRStore

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
    """Lists the executions of so many days, which end at midnight in New York; keeps what it was asked."""

    def __init__(self, executions: list[Execution], clock: ManualClock) -> None:
        self._executions = executions
        self._clock = clock
        self.asked: list[int] = []

    async def live_orders(self) -> tuple[()]:
        return ()

    async def trades(self, days: int = 1) -> tuple[Execution, ...]:
        self.asked.append(days)
        today = (self._clock.now_ns() - 5 * HOUR_NS) // DAY_NS
        since_ns = (today - days + 1) * DAY_NS + 5 * HOUR_NS
        return tuple(one for one in self._executions if one.time_ns >= since_ns)


def execution_of(execution_id: str, time_ns: int) -> Execution:
    return Execution(
        execution_id=execution_id,
        account="DU1234567",
        conid=265598,
        symbol="AAPL",
        side=Side.BUY,
        quantity=Decimal(1),
        price=100.0,
        time_ns=time_ns,
    )


@pytest.mark.parametrize(
    ("hours", "asked"), [(0.5, [1]), (10, [2, 1]), (24, [2, 1]), (72, [4, 1]), (720, [7, 1])]
)
def test_a_break_over_midnight_asks_for_more_days(hours: float, asked: list[int]) -> None:
    """Executions of the break's first day are in no list of today. Those from before the account was read are in its
    positions: they are not new, however far back the list goes."""
    # 2026-03-02, 15:00 UTC.
    attached_ns = 1_772_463_600 * NS_PER_S
    clock = ManualClock(attached_ns + int(hours * HOUR_NS) + NS_PER_S)
    old, new = execution_of("old", attached_ns - HOUR_NS), execution_of("new", clock.now_ns() - HOUR_NS // 4)
    first = execution_of("first", attached_ns + 1)
    portfolio = _Portfolio([old, first, new], clock)
    events: Mailbox[AccountEvent] = Mailbox(WakeUp())
    stream = AccountStream(old.account, events, attached_ns)
    # The list of the day on which it was attached.
    stream.executions.add(old)
    if hours > 24:
        stream.executions = ExecutionBook()
    reports = Reports(portfolio, None, SessionSettings(), clock, lambda kind, text: None)  # type: ignore[arg-type]
    reports.add(stream)
    for _ in range(2):
        asyncio.run(reports.repair(attached_ns))
    told = []
    while isinstance(event := events.take(), ExecutionReported):
        told.append(event.execution.execution_id)
    # In the order of their time; a week is the most that can be asked for.
    assert told == (["first", "new"] if hours < 720 else ["new"])
    assert portfolio.asked == asked * 2


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
        portfolio = made.connection._portfolio
        await asyncio.gather(portfolio.trades(), portfolio.trades())

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
