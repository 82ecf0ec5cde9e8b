"""Faults 45 to 55: starts, restarts and reconciliation. What is not whole is not believed, nothing is traded away."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.journal import Journal
from bt_ibkr.model.intent import OrderIntent, OrderState, make_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side, TimeInForce
from tests.connection.conftest import Client
from tests.faults import restarts
from tests.faults.restarts import again, look_only
from tests.faults.scene import AAPL, ACCOUNT, Scene, Script, far

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

MakeScene = Callable[..., Scene]
DAY_S = 86_400


@pytest.fixture
def scene(bench: Bench, tape: type[Tape], tmp_path: Path) -> MakeScene:
    return lambda **given: Scene(bench, tape, tmp_path / "journal.sqlite", **given)


@pytest.fixture
def hooked(scripted: type[Any]) -> type[Any]:
    return restarts.hooked(scripted)


def bought(size: float = 10) -> Callable[[Any], Script]:
    """Buy and see it filled."""

    def script(strategy: Any) -> Script:
        order = strategy.buy(size=size)
        yield lambda: not order.alive()

    return script


def place_requests(stage: Scene) -> int:
    return sum(len(stage.requests(kind)) for kind in ("place", "modify", "cancel", "reply"))


def reconciled(strategy: Any, stage: Scene) -> Script:
    """Have the account read again, and wait until it was."""
    stage.connection.reconcile(ACCOUNT)
    yield


# -- starts ------------------------------------------------------------------------------------------


def test_46_no_journal(scene: MakeScene, hooked: Any, bench: Bench) -> None:
    """Positions and orders of somebody else: taken in as they are, and nothing is sent."""
    stage = scene()
    stage.line.step(bench.opening(10))
    stage.manual("BUY", 30)
    waiting = str(stage.manual("SELL", 30, order_type="LMT", price=150.0))
    stage.line.step(bench.opening(20))
    assert not stage.journal_path.exists()

    def script(strategy: Any) -> Script:
        yield
        assert stage.position == 30
        assert strategy.position.price == pytest.approx(100.0, abs=0.1)
        assert [report.order_id for report in stage.broker.external_orders] == [waiting]
        assert strategy.resumed.orders == strategy.resumed.ended == ()

    run = stage.play(script, strategy=hooked)
    restarts.agree(stage, run)
    assert place_requests(stage) == 0
    assert stage.recorded()[0] == {}
    assert stage.broker.orders == []


def test_47_journal_but_flat(scene: MakeScene, hooked: Any) -> None:
    """The paper account was reset: the strategy is flat, the difference is told with both sides, not traded away."""
    stage = scene()

    def first(strategy: Any) -> Script:
        yield from bought()(strategy)
        far(strategy)
        yield 20

    stage.play(first, strategy=hooked)
    stage.do("reset", seed=0)
    assert stage.orders() == []
    second = again(stage)

    def script(strategy: Any) -> Script:
        yield
        assert stage.emulator.ledger()["executions"] == []
        told = {one.kind: one for one in strategy.resumed.differences}
        assert (told["position"].recorded, told["position"].reported) == ("10", "0")
        assert (told["order"].recorded, told["order"].reported) == ("working", "not listed")
        assert second.position == 0
        # Nobody may say that it has ended; a strategy that wants it gone cancels it.
        (left,) = strategy.resumed.orders
        assert left.alive()

    run = second.play(script, strategy=hooked)
    assert run.broker.getposition(run.strategy.data).size == 0
    assert place_requests(second) == 0


def test_48_partial_fill_is_counted_once(scene: MakeScene, hooked: Any) -> None:
    """The filled part of an open order is in the position, and in the order, and counts once in each."""
    stage = scene()

    def first(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fill(order, 4)
        yield lambda: order.executed.size == 4

    stage.play(first, strategy=hooked)
    second = again(stage)

    def script(strategy: Any) -> Script:
        yield
        (order,) = strategy.resumed.orders
        assert (second.position, order.executed.size, order.executed.remsize) == (4, 4, 6)
        second.fill(order, 6)
        yield lambda: not order.alive()
        assert strategy.statuses(order) == ["Completed 6"]
        assert second.position == 10
        assert strategy.resumed.differences == ()

    run = second.play(script, strategy=hooked)
    restarts.agree(second, run)


def test_49_no_positions_once_at_the_start(scene: MakeScene, hooked: Any) -> None:
    """An empty list is read again before it is believed."""
    stage = scene()
    stage.play(bought(), strategy=hooked)
    empty = stage.fault("positions", action="empty", count=1)
    second = again(stage)

    def script(strategy: Any) -> Script:
        yield
        assert second.position == 10
        assert strategy.resumed.differences == ()

    run = second.play(script, strategy=hooked)
    restarts.agree(second, run)
    assert stage.hits(empty) == 1


def test_49_positions_unread_at_the_start(scene: MakeScene, hooked: Any) -> None:
    """An error: the start is refused, and the next one is right."""
    stage = scene()
    stage.play(bought(), strategy=hooked)
    stage.fault("positions", action="fail", count=1)
    with pytest.raises(BtIbkrError, match="positions"):
        again(stage).play(look_only, strategy=hooked)
    third = again(stage)
    run = third.play(look_only, strategy=hooked)
    assert third.position == 10
    restarts.agree(third, run)


def test_49_positions_unread_for_long_at_the_start(scene: MakeScene, hooked: Any) -> None:
    """An empty list that stays so, while the ledger values stocks: refused, with the reason."""
    stage = scene()
    stage.play(bought(), strategy=hooked)
    stage.fault("positions", action="empty")
    second = again(stage)
    with pytest.raises(BtIbkrError, match="list is not whole"):
        second.play(look_only, strategy=hooked)
    assert len(stage.requests("place")) == 1


@pytest.mark.parametrize("fault", [{"action": "fail"}, {"action": "empty"}])
def test_49_positions_unread_while_running(scene: MakeScene, hooked: Any, fault: dict[str, Any]) -> None:
    """Nothing is concluded; that it could not be read is told, and that it was again."""
    stage = scene()

    def script(strategy: Any) -> Script:
        yield from bought()(strategy)
        yield 20
        number = stage.fault("positions", **fault)
        yield from reconciled(strategy, stage)
        assert stage.hits(number)
        assert stage.position == 10
        assert stage.messages("reconciliation-incomplete")
        assert not stage.messages("position-difference")
        stage.clear(number)
        yield from reconciled(strategy, stage)
        assert stage.messages("reconciled")
        assert stage.position == 10

    run = stage.play(script, strategy=hooked)
    restarts.agree(stage, run)


def test_50_positions_lag(scene: MakeScene, hooked: Any) -> None:
    """IBKR's positions follow its executions seconds later: no alarm, and no position that goes back and forth."""
    stage = scene()

    def script(strategy: Any) -> Script:
        lag = stage.fault("positions", action="lag", lag_s=0, invalidate=False)
        yield from bought()(strategy)
        yield from reconciled(strategy, stage)
        assert stage.hits(lag)
        assert stage.position == 10
        yield 10
        yield from reconciled(strategy, stage)
        assert stage.position == 10
        stage.clear(lag)
        yield 20
        yield from reconciled(strategy, stage)
        assert stage.position == 10
        assert not stage.messages("position-difference")

    run = stage.play(script, strategy=hooked)
    restarts.agree(stage, run)


# -- outages -----------------------------------------------------------------------------------------


def test_51_fills_during_an_outage(scene: MakeScene, hooked: Any) -> None:
    """Neither stream nor REST while it fills, in two parts: fetched after, once, with the times of the fills."""
    stage = scene()

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        stage.fault("restart", down_s=0.3, then="ready")
        stage.fill(order, 4)
        stage.fill(order, 6)
        yield lambda: not order.alive()
        yield lambda: stage.messages("gap")
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Partial 4", "Completed 6"]
        times = {e.execution_id: e.time_ns for _, e in stage.broker.executions}
        assert times == {one["execution_id"]: one["time_ns"] for one in stage.executions()}

    run = stage.play(script, strategy=hooked)
    restarts.agree(stage, run)


def test_52_longer_than_executions_are_kept(
    bench: Bench, tape: type[Tape], tmp_path: Path, hooked: Any, scene: MakeScene
) -> None:
    """Nine days down, and the position was sold in part by another program on the first: IBKR's lists do not tell
    how. The difference is stated, position and cost are IBKR's, and nothing is traded."""
    stage = scene()
    prices = tape().every_second(200, lambda second: 100.0)
    for day in (1, 9):
        for at in range(day * DAY_S, day * DAY_S + 300, 10):
            prices.quote(at, 109.99, 110.01).trade(at + 1, 110.0)
    stage.line = bench.line(
        market=bench.market(AAPL=prices), store={"journal": stage.journal_path}, questions="none"
    )
    stage.emulator = stage.line.emulator
    stage.play(bought(), strategy=hooked)

    def let_pass(seconds: float) -> None:
        until = int(bench.opening(seconds).timestamp() * 1_000_000_000)
        stage.emulator.call(lambda s: s.drive.step(until_ns=until, max_events=None, received={}))

    let_pass(DAY_S + 20)
    stage.manual("SELL", 4)
    let_pass(9 * DAY_S + 20)
    # The list of the real server ends after seven days; the emulator's goes back to the start of its market.
    stage.fault("trades", action="empty")
    second = again(stage)

    def script(strategy: Any) -> Script:
        yield
        (told,) = strategy.resumed.differences
        assert (told.kind, told.recorded, told.reported) == ("position", "10", "6")
        assert second.position == 6
        assert strategy.position.price == pytest.approx(100.01, abs=0.2)

    run = second.play(script, strategy=hooked)
    assert run.broker.getcash() == pytest.approx(float(run.account["cash"]["USD"]), abs=0.005)
    assert [one["created"] for one in second.requests("place")] == [[stage.orders()[0]["order_id"]]]


def test_53_first_call_of_executions_is_empty(scene: MakeScene, hooked: Any) -> None:
    """As always after a log-on: asked again before it is believed."""
    stage = scene()
    stage.play(bought(), strategy=hooked)
    before = stage.asked("GET", "/iserver/account/trades")
    empty = stage.fault("trades", action="empty", count=1)
    second = again(stage)

    def script(strategy: Any) -> Script:
        yield
        assert [e.quantity for e in strategy.resumed.executions] == [Decimal(10)]

    run = second.play(script, strategy=hooked)
    restarts.agree(second, run)
    assert stage.hits(empty) == 1
    assert stage.asked("GET", "/iserver/account/trades") - before >= 2


def test_54_fill_that_the_stream_lost(scene: MakeScene, hooked: Any) -> None:
    """All frames of it are dropped while the stream looks healthy: found by asking, within the watch's time."""
    stage = again(scene(), mute_s=0.2)

    def script(strategy: Any) -> Script:
        order = far(strategy)
        yield
        lost = [stage.fault("frames", action="drop", topic=topic, count=0) for topic in ("str", "sor")]
        began = time.monotonic()
        stage.fill(order)
        yield lambda: not order.alive()
        assert time.monotonic() - began < 8.0
        assert all(stage.hits(number) for number in lost)
        for number in lost:
            stage.clear(number)
        assert strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]

    run = stage.play(script, strategy=hooked)
    restarts.agree(stage, run)


# -- many --------------------------------------------------------------------------------------------


def test_55_ten_restarts(scene: MakeScene, hooked: Any) -> None:
    """A position, a bracket's children, a group and an order in parts: the same after each, and nothing is sent."""
    stage = scene(seconds=900)

    def first(strategy: Any) -> Script:
        strategy.buy_bracket(size=10, exectype=bt.Order.Market, stopprice=90.0, limitprice=120.0)
        one = far(strategy)
        far(strategy, price=49.0, oco=one)
        part = far(strategy, size=20)
        yield
        stage.fill(part, 7)
        yield lambda: part.executed.size == 7

    stage.play(first, strategy=hooked)

    def record() -> Any:
        orders, written = stage.recorded()
        journal = stage.journal()
        try:
            sequences, epoch = journal.next_sequences(), journal.epoch
        finally:
            journal.close()
        states = {key: (one.state, one.order_id, one.filled, one.intent) for key, one in orders.items()}
        return states, [row.execution.execution_id for row in written], sequences, epoch

    before = (record(), stage.orders(), place_requests(stage))
    seen = set()
    for _ in range(10):
        stage = again(stage)

        def script(strategy: Any) -> Script:
            yield
            resumed = strategy.resumed
            assert resumed.differences == resumed.unknown == resumed.cancelled == resumed.ended == ()
            seen.add(
                (
                    tuple(
                        (stage.broker.client_order_id(o), stage.broker.order_id(o), o.price, o.executed.size)  # noqa: B023
                        for o in resumed.orders
                    ),
                    tuple(e.execution_id for e in resumed.executions),
                    stage.position,  # noqa: B023
                )
            )

        run = stage.play(script, strategy=hooked)
        restarts.agree(stage, run)
    assert len(seen) == 1
    assert len(seen.pop()[0]) == 5
    assert (record(), stage.orders(), place_requests(stage)) == before


def test_45_too_long_a_list_proves_nothing(scene: MakeScene, hooked: Any) -> None:
    """Killed between POST and journal, and a thousand orders later: not in the list, but it stands."""
    stage = scene()
    stage.play(look_only, strategy=hooked)
    journal = Journal.open(stage.journal_path, clock=stage.line.clock)
    key = make_key("hooked", journal.epoch, 1)
    ticket = OrderTicket(
        account=ACCOUNT, contract_id=AAPL, side=Side.BUY, order_type=OrderType.LIMIT, quantity=Decimal(10),
        limit_price=50.0, time_in_force=TimeInForce.GOOD_TILL_CANCELLED, client_order_id=key,
    )  # fmt: skip
    journal.intend([OrderIntent(key=key, strategy="hooked", ticket=ticket, dataname="AAPL")])
    journal.close()
    stage.line.place_elsewhere(
        "BUY", 10, AAPL, order_type=OrderType.LIMIT, limit_price=50.0, client_order_id=key
    )
    stage.do("crowd", conid=AAPL, count=1_000, final="cancelled", prefix="")
    second = again(stage)

    def script(strategy: Any) -> Script:
        yield
        (order,) = strategy.resumed.orders
        assert strategy.resumed.unknown == (order,)
        second.fill(order, 10)
        yield lambda: not order.alive()
        assert strategy.statuses(order)[-1] == "Completed 10"

    run = second.play(script, strategy=hooked)
    restarts.agree(second, run)


class Start:
    """What a start takes: requests, and the time that this process, emulator and client, works for it."""

    def __init__(self, count: int) -> None:
        settings = EmulatorSettings(
            speed="lockstep", conflation_ms=0, pacing="off", synthetic_instruments=("AAPL",), history_days=1
        )
        with EmulatorThread(settings) as emulator:
            emulator.call(lambda s: s.drive.step(until_ns=None, max_events=20, received={}))
            emulator.do("crowd", conid=AAPL, count=count, final="cancelled", prefix="other.")
            since = emulator.call(lambda server: server.core.pacing.requests)
            client = Client(emulator)
            try:
                client.open()
                began = time.process_time()
                self.orders = len(client.attach().orders)
                self.time_s = time.process_time() - began
            finally:
                client.connection.close()
            self.requests = emulator.call(lambda server: server.core.pacing.requests) - since


def test_45_ten_thousand_orders() -> None:
    """However many there were that day: as many requests as for few, and not more work than for a full list."""
    full, crowd = Start(1_000), Start(10_000)
    assert full.orders == crowd.orders == 1_000
    assert full.requests == crowd.requests < 25
    assert crowd.time_s < 5 * full.time_s


def test_45_ten_thousand_orders_of_ours(scene: MakeScene, hooked: Any) -> None:
    """All ended, in the journal: a start does not read them one by one."""
    stage = scene()
    stage.play(look_only, strategy=hooked)
    journal = Journal.open(stage.journal_path, clock=stage.line.clock)

    def fill(first: int, count: int) -> None:
        intents = []
        for number in range(first, first + count):
            key = make_key("hooked", journal.epoch, number)
            ticket = OrderTicket(
                account=ACCOUNT, contract_id=AAPL, side=Side.BUY, order_type=OrderType.MARKET,
                quantity=Decimal(1), client_order_id=key,
            )  # fmt: skip
            intents.append(OrderIntent(key=key, strategy="hooked", ticket=ticket, dataname="AAPL"))
        journal.intend(intents)
        for intent in intents:
            journal.note(intent.key, OrderState.REJECTED, durable=False)

    requests = []
    times = []
    for first, count in ((1, 1_000), (1_001, 9_000)):
        fill(first, count)
        journal.close()
        before = stage.line.emulator.call(lambda server: server.core.pacing.requests)
        client = Client(stage.emulator, journal=stage.journal_path)
        try:
            client.open()
            began = time.process_time()
            snapshot = client.attach()
            times.append(time.process_time() - began)
        finally:
            client.connection.close()
        assert snapshot.standing == ()
        assert snapshot.sequences["hooked"] == first + count
        requests.append(stage.line.emulator.call(lambda server: server.core.pacing.requests) - before)
        journal = Journal.open(stage.journal_path, clock=stage.line.clock)
    journal.close()
    assert requests[0] == requests[1]
    assert times[1] < 20 * times[0]
