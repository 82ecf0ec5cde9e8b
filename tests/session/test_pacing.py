"""The pacing gate under a clock of its own: no window is ever exceeded, nothing waits longer than it must."""

from __future__ import annotations

import asyncio
import itertools
import re
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.services import pacing as server_pacing
from bt_ibkr.errors import PacingPenaltyError
from bt_ibkr.login import GatewayLogin, Login, NoLogin, OAuth1Login, OAuth2Login, TokenLogin
from bt_ibkr.session.classes import RequestClass
from bt_ibkr.session.pacing import IBKR_LIMITS, ConnectionKind, Limit, PacingGate, limits_for, limits_of

ORDERS = ("GET", "/iserver/account/orders")
TRADES = ("GET", "/iserver/account/trades")
HISTORY = ("GET", "/iserver/marketdata/history")
PLACE = ("POST", "/iserver/account/DU1/orders")
TICKLE = ("POST", "/tickle")
KINDS = (ORDERS, TRADES, HISTORY, PLACE, TICKLE, ("GET", "/portfolio/accounts"))
ONE_AT_A_TIME = (ORDERS, TRADES, TICKLE)


class _Leaping(selectors.SelectSelector):
    """Leaps over the time that would be slept."""

    leap: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.leap(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock moves only when everybody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Leaping()
        selector.leap = self._leap
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def _leap(self, seconds: float) -> None:
        # A real clock is always a little late, never early.
        self.now += seconds + 1e-9


class Bench:
    """Requests through a gate, with the times at which they were made."""

    def __init__(self, loop: VirtualLoop, limits: tuple[Limit, ...] = IBKR_LIMITS) -> None:
        self.loop = loop
        self.gate = PacingGate(limits, monotonic=loop.time)
        self.sent: list[tuple[float, str, str]] = []
        self.active = 0
        self.most_active = 0

    async def request(self, kind: tuple[str, str], *, at: float = 0.0, lasts: float = 0.0) -> float:
        """Ask at ``at``; the time at which the request left."""
        await asyncio.sleep(max(at - self.loop.now, 0))
        async with self.gate.turn(*kind):
            left = self.loop.now
            self.sent.append((left, *kind))
            self.active += 1
            self.most_active = max(self.most_active, self.active)
            await asyncio.sleep(lasts)
            self.active -= 1
        return left

    def worst(self, limit: Limit) -> int:
        """Most requests in any window of the limit."""
        times = [
            when
            for when, method, path in self.sent
            if limit.method in ("*", method) and re.fullmatch(limit.path, path)
        ]
        times.sort()
        return max(
            (sum(1 for t in times if start <= t < start + limit.per_s) for start in times),
            default=0,
        )


def run(work: Callable[[VirtualLoop], Coroutine[Any, Any, Any]]) -> Any:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work(loop))
    finally:
        loop.close()


bursts = st.lists(
    st.tuples(st.sampled_from(KINDS), st.floats(0, 20), st.sampled_from([0.0, 0.2, 3.0])),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(bursts)
def test_no_window_is_ever_exceeded(burst: list[tuple[tuple[str, str], float, float]]) -> None:
    async def work(loop: VirtualLoop) -> Bench:
        bench = Bench(loop)
        await asyncio.gather(*(bench.request(kind, at=at, lasts=lasts) for kind, at, lasts in burst))
        return bench

    bench = run(work)
    assert len(bench.sent) == len(burst)
    for limit in IBKR_LIMITS:
        assert bench.worst(limit) <= limit.count, limit


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(ONE_AT_A_TIME), st.floats(0, 10), st.sampled_from([0.0, 0.3, 2.0, 7.0])),
        max_size=30,
    )
)
def test_a_slow_way_bunches_nothing_up(burst: list[tuple[tuple[str, str], float, float]]) -> None:
    """Requests of which one is allowed at a time arrive far enough apart, however long each was on its way."""

    async def work(loop: VirtualLoop) -> list[tuple[float, tuple[str, str]]]:
        bench = Bench(loop)
        came: list[tuple[float, tuple[str, str]]] = []

        async def request(kind: tuple[str, str], at: float, way_s: float) -> None:
            await bench.request(kind, at=at, lasts=way_s + 0.01)
            # Answered at once, and back in no time.
            came.append((loop.now - 0.01, kind))

        await asyncio.gather(*(request(*one) for one in burst))
        return came

    came = run(work)
    for limit in IBKR_LIMITS:
        if limit.count == 1:
            times = sorted(at for at, (_, path) in came if re.fullmatch(limit.path, path))
            assert all(later - sooner >= limit.per_s for sooner, later in itertools.pairwise(times)), limit


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3)), max_size=40),
    st.integers(1, 4),
    st.integers(1, 3),
    st.floats(0.5, 4),
)
def test_no_window_of_any_table_is_exceeded(
    burst: list[tuple[str, float]], all_count: int, count: int, per_s: float
) -> None:
    limits = (
        Limit(path=".*", count=all_count, per_s=1.0, source="test"),
        Limit(path="/a", count=count, per_s=per_s, source="test"),
    )

    async def work(loop: VirtualLoop) -> Bench:
        bench = Bench(loop, limits)
        await asyncio.gather(*(bench.request(("GET", f"/{name}"), at=at) for name, at in burst))
        return bench

    bench = run(work)
    for limit in limits:
        assert bench.worst(limit) <= limit.count, limit


@pytest.mark.parametrize("kind", [PLACE, HISTORY, ORDERS])
def test_throughput_is_close_to_the_limit(kind: tuple[str, str]) -> None:
    """At least nine tenths of what the tightest limit allows."""
    count = 120 if kind is not ORDERS else 12

    async def work(loop: VirtualLoop) -> float:
        bench = Bench(loop)
        await asyncio.gather(*(bench.request(kind) for _ in range(count)))
        return max(when for when, *_ in bench.sent)

    ideal = {PLACE: (count / 10 - 1) * 1.0, HISTORY: (-(-count // 50) - 1) * 60.0, ORDERS: (count - 1) * 5.0}
    took = run(work)
    assert took <= ideal[kind] / 0.9
    assert took >= ideal[kind]


def test_waiting_requests_keep_their_order() -> None:
    async def work(loop: VirtualLoop) -> list[int]:
        bench = Bench(loop)
        done: list[int] = []

        async def one(number: int) -> None:
            await bench.request(PLACE)
            done.append(number)

        await asyncio.gather(*(one(number) for number in range(45)))
        return done

    assert run(work) == list(range(45))


def test_requests_that_wait_for_a_rare_turn_do_not_hold_up_the_others() -> None:
    """Twenty look-ups are queued for five seconds each; an order must leave at once all the same."""

    async def work(loop: VirtualLoop) -> list[float]:
        bench = Bench(loop)
        slow = [asyncio.create_task(bench.request(TRADES)) for _ in range(20)]
        await asyncio.sleep(0)
        left = []
        for number in range(30):
            asked = number * 0.5
            left.append(await bench.request(PLACE, at=asked) - asked)
        for task in slow:
            task.cancel()
        return left

    assert max(run(work)) < 0.2


def test_five_history_requests_at_a_time() -> None:
    async def work(loop: VirtualLoop) -> tuple[int, float]:
        bench = Bench(loop)
        # Each lasts two seconds: without the bound, ten would run together.
        await asyncio.gather(*(bench.request(HISTORY, lasts=2.0) for _ in range(10)))
        return bench.most_active, loop.now

    most, took = run(work)
    assert most == 5
    assert took < 4.5


def test_a_slot_is_freed_by_failure_and_by_cancellation() -> None:
    async def work(loop: VirtualLoop) -> int:
        bench = Bench(loop)
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                async with bench.gate.turn(*HISTORY):
                    raise ZeroDivisionError
        stuck = [asyncio.create_task(bench.request(HISTORY, lasts=1e6)) for _ in range(5)]
        await asyncio.sleep(2)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        await bench.request(HISTORY)
        return len(bench.sent)

    assert run(work) == 6


def test_waiting_is_counted() -> None:
    async def work(loop: VirtualLoop) -> float:
        bench = Bench(loop)
        await bench.request(ORDERS)
        assert bench.gate.waited_s == 0
        await bench.request(ORDERS)
        return bench.gate.waited_s

    assert 5.0 <= run(work) <= 5.5


def test_other_methods_and_paths_are_not_the_limited_ones() -> None:
    """Placing an order is not reading the list of orders; the table names methods and whole paths."""

    async def work(loop: VirtualLoop) -> float:
        bench = Bench(loop)
        for _ in range(3):
            await bench.request(("POST", "/iserver/account/DU1/orders"))
            await bench.request(("GET", "/iserver/account/order/status/1"))
        return loop.now

    assert run(work) < 0.1


def test_no_limits_no_waiting() -> None:
    async def work(loop: VirtualLoop) -> float:
        bench = Bench(loop, ())
        await asyncio.gather(*(bench.request(ORDERS) for _ in range(100)))
        return loop.now

    assert run(work) < 1e-3


def test_urgent_requests_overtake() -> None:
    """Cancellations first, then orders, upkeep, account, market data, history."""
    kinds = [
        HISTORY,
        ("GET", "/iserver/marketdata/snapshot"),
        ("GET", "/portfolio/DU1/ledger"),
        TICKLE,
        PLACE,
        ("DELETE", "/iserver/account/DU1/order/7"),
    ]

    async def work(loop: VirtualLoop) -> list[tuple[float, str, str]]:
        bench = Bench(loop, (Limit(path=".*", count=1, per_s=1.0, source="test"),))
        first = asyncio.create_task(bench.request(("GET", "/first")))
        await asyncio.sleep(0)
        await asyncio.gather(first, *(bench.request(kind) for kind in kinds))
        return bench.sent

    sent = run(work)
    assert [(method, path) for _, method, path in sent[1:]] == list(reversed(kinds))


def test_a_class_may_be_named() -> None:
    async def work(loop: VirtualLoop) -> list[str]:
        gate = PacingGate((Limit(path=".*", count=1, per_s=1.0, source="test"),), monotonic=loop.time)
        left: list[str] = []

        async def ask(name: str, klass: RequestClass | None) -> None:
            async with gate.turn("POST", "/iserver/account/DU1/orders", klass):
                left.append(name)

        first = asyncio.create_task(ask("first", None))
        await asyncio.sleep(0)
        await asyncio.gather(first, ask("entry", None), ask("stop", RequestClass.PROTECT))
        return left

    assert run(work) == ["first", "stop", "entry"]


def test_a_starving_class_still_moves() -> None:
    """Orders come without end; a history request that has waited long enough goes between them."""

    async def work(loop: VirtualLoop) -> float:
        bench = Bench(loop, (Limit(path=".*", count=1, per_s=1.0, source="test"),))
        starved = asyncio.create_task(bench.request(HISTORY, at=0.5))
        await asyncio.gather(*(bench.request(PLACE, at=second * 0.9) for second in range(120)))
        return await starved

    assert run(work) < 30.0


def test_in_the_penalty_box_only_what_protects_passes() -> None:
    async def work(loop: VirtualLoop) -> None:
        gate = PacingGate(monotonic=loop.time, penalty_s=600.0)
        bench = Bench(loop)
        bench.gate = gate
        for _ in range(10):
            await bench.request(("GET", "/a"))
        waiting = asyncio.create_task(bench.request(("GET", "/b")))
        await asyncio.sleep(0)
        assert gate.penalize() == 600.0
        with pytest.raises(PacingPenaltyError, match="600 s"):
            await waiting
        with pytest.raises(PacingPenaltyError):
            await bench.request(PLACE)
        cancels = [bench.request(("DELETE", f"/iserver/account/DU1/order/{n}")) for n in range(5)]
        times = await asyncio.gather(*cancels)
        assert all(later - earlier >= 0.99 for earlier, later in itertools.pairwise(sorted(times)))
        status = gate.status()
        assert status.penalties == 1
        assert 590 < status.penalty_s < 600
        await asyncio.sleep(600.0)
        await bench.request(PLACE)
        assert gate.status().penalty_s == 0.0

    run(work)


def test_a_second_429_lengthens_the_penalty_and_is_not_another_one() -> None:
    async def work(loop: VirtualLoop) -> None:
        gate = PacingGate(monotonic=loop.time, penalty_s=600.0)
        gate.penalize()
        await asyncio.sleep(300.0)
        gate.penalize()
        status = gate.status()
        assert status.penalties == 1
        assert 599 < status.penalty_s <= 600

    run(work)


def test_the_gate_shows_its_queues_and_budget() -> None:
    async def work(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        assert bench.gate.status().budget == 10
        tasks = [asyncio.create_task(bench.request(("GET", "/portfolio/x"))) for _ in range(13)]
        tasks.append(asyncio.create_task(bench.request(HISTORY)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        status = bench.gate.status()
        assert status.budget == 0
        assert status.queued == {"account": 3, "history": 1}
        await asyncio.gather(*tasks)
        assert bench.gate.status().longest_wait_s > 0.9
        assert bench.gate.status().queued == {}

    run(work)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.floats(0, 10), st.booleans()), min_size=1, max_size=40),
    st.floats(0, 10),
)
def test_cancelled_waiters_take_no_room_and_lose_none(
    burst: list[tuple[tuple[str, str], float, bool]], when: float
) -> None:
    """Whatever is given up while it waits, the others get through and no window is exceeded."""

    async def work(loop: VirtualLoop) -> tuple[Bench, int]:
        bench = Bench(loop)
        tasks = [asyncio.create_task(bench.request(kind, at=at)) for kind, at, _ in burst]
        await asyncio.sleep(when)
        for task, (_, _, given_up) in zip(tasks, burst, strict=True):
            if given_up:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return bench, sum(1 for result in results if isinstance(result, float))

    bench, through = run(work)
    assert through >= sum(1 for _, _, given_up in burst if not given_up)
    assert not bench.gate.status().queued
    for limit in IBKR_LIMITS:
        assert bench.worst(limit) <= limit.count, limit


def test_throughput_under_load_is_above_95_percent_of_the_limit() -> None:
    async def work(loop: VirtualLoop) -> float:
        bench = Bench(loop)
        kinds = [("GET", "/portfolio/x"), PLACE, ("GET", "/iserver/marketdata/snapshot")]
        await asyncio.gather(*(bench.request(kinds[n % 3]) for n in range(600)))
        return max(when for when, _, _ in bench.sent)

    assert run(work) <= 600 / 10 / 0.95


IBKR = "https://api.ibkr.com/v1/api"
LOGINS: list[tuple[Login, ConnectionKind]] = [
    (GatewayLogin(), ConnectionKind.GATEWAY),
    (NoLogin(), ConnectionKind.GATEWAY),
    (TokenLogin(token="t"), ConnectionKind.OAUTH),
    (OAuth2Login(client_id="c", key_id="k", private_key="p", credential="u"), ConnectionKind.OAUTH),
    (
        OAuth1Login(
            consumer_key="c",
            access_token="a",
            access_token_secret="b",
            signature_key="s",
            encryption_key="e",
            dh_parameters="d",
        ),
        ConnectionKind.OAUTH,
    ),
]


@pytest.mark.parametrize(("login", "kind"), LOGINS)
def test_each_kind_of_connection_has_its_limits(login: Login, kind: ConnectionKind) -> None:
    """Rows of its own kind and those of every kind; and one limit of all requests together, with its source."""
    kept = limits_of(SessionSettings(base_url=IBKR, login=login))
    assert kept == limits_for(kind)
    assert {limit.kind for limit in kept} == {None, kind}
    (general,) = [limit for limit in kept if limit.path == ".*"]
    assert general.kind is kind
    assert set(IBKR_LIMITS) - set(kept) == {limit for limit in IBKR_LIMITS if limit.kind not in (None, kind)}
    assert all(limit.source for limit in kept)


def test_no_limit_of_the_server_is_missing_here() -> None:
    """Whatever the server counts is counted here, in a window at least as long."""
    rows = {path: limit for (_, path), limit in server_pacing.LIMITS.items()}
    rows |= {"/fyi/settings": server_pacing.FYI_LIMIT, "/anything": server_pacing.GLOBAL}
    for kind in ConnectionKind:
        for path, theirs in rows.items():
            mine = [limit for limit in limits_for(kind) if re.fullmatch(limit.path, path)]
            assert any(limit.count <= theirs.count and limit.per_s >= theirs.window_s for limit in mine), path
            assert len(mine) >= (1 if path == "/anything" else 2), path
        history = [limit for limit in limits_for(kind) if re.fullmatch(limit.path, server_pacing.HISTORY)]
        assert any(0 < limit.concurrent <= server_pacing.HISTORY_CONCURRENT for limit in history)
