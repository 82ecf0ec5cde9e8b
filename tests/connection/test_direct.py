"""The connection whose session lives in this process: its life, its account, its commands."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.connection.interface import (
    AccountEvent,
    CancelFailed,
    CommissionReported,
    ExecutionReported,
    FeedEvent,
    LedgerChanged,
    ModifyFailed,
    OrderChanged,
    OrderFailed,
    OrderModified,
    TradingChanged,
)
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import (
    AuthenticationError,
    ContractNotFoundError,
    HistoryError,
    JournalLockedError,
    OrderRefusedError,
    SessionError,
    UnreachableError,
)
from bt_ibkr.journal import journal_path
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import Bar
from bt_ibkr.model.order import OrderStatus, OrderType, Side
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.services.chains import ChainRequest
from bt_ibkr.services.datanames import parse_dataname
from bt_ibkr.services.history import HistoryRequest, HistoryService
from bt_ibkr.services.orders import OrderService
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.session.states import WAY_UP
from tests.connection.conftest import intent, key_of

if TYPE_CHECKING:
    from tests.connection.conftest import Connect, StartEmulator

ACCOUNT = "DU1234567"
MINUTE = 60 * NS_PER_S

UP = [state.value for state in WAY_UP]


def break_socket(emulator: EmulatorThread, *, then: Callable[[Any], Any] = lambda _: None) -> None:
    """Cut all WebSockets, and do something before any client can be back."""

    def work(server: Any) -> None:
        for connection in list(server.core.hub.connections):
            connection._transport.abort()
            server.core.hub.drop(connection)
        then(server)

    emulator.call(work)


def fill(server: Any) -> None:
    """Let the market move until orders have executed."""
    for _ in range(3):
        server.drive.step(until_ns=None, max_events=20, received={})


# --- life ----------------------------------------------------------------------------------------------


def test_open_and_close_leave_nothing(emulator: EmulatorThread, connect: Connect) -> None:
    before = set(threading.enumerate())
    client = connect()
    assert client.connection.accounts() == (ACCOUNT,)
    assert len(emulator.call(lambda s: s.core.hub.connections)) == 1
    client.connection.open(client.store_box)
    assert len(emulator.call(lambda s: s.core.hub.connections)) == 1
    client.connection.close()
    client.connection.close()
    assert set(threading.enumerate()) <= before
    client.look()
    assert client.states() == [*UP, "disconnected"]
    client.until(lambda: not emulator.call(lambda s: list(s.core.hub.connections)))


def test_it_can_be_opened_again(connect: Connect) -> None:
    client = connect()
    client.connection.close()
    client.open()
    assert client.connection.accounts() == (ACCOUNT,)


def test_a_failed_start_leaves_nothing(start_emulator: StartEmulator, connect: Connect) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{probe.getsockname()[1]}/v1/api"
    before = set(threading.enumerate())
    client = connect(opened=False, url=dead)
    with pytest.raises(UnreachableError):
        client.open()
    assert set(threading.enumerate()) <= before
    client = connect(start_emulator(login="logged_out"), opened=False)
    with pytest.raises(AuthenticationError):
        client.open()
    assert not [one for one in threading.enumerate() if one.name == "ibkr-session"]
    with pytest.raises(SessionError):
        client.connection.accounts()


@pytest.mark.parametrize("opened", [True, False])
def test_nothing_works_without_a_session(connect: Connect, opened: bool) -> None:
    """Before it was opened and after it was closed alike; nothing hangs and nothing is lost in silence."""
    client = connect(opened=opened)
    connection = client.connection
    contract = Contract(conid=265598, symbol="AAPL", security_type=parse_dataname("AAPL").security_type)
    answers: Mailbox[FeedEvent] = Mailbox(client.wake)
    connection.close()
    calls: list[Callable[[], Any]] = [
        connection.accounts,
        lambda: connection.resolve(parse_dataname("AAPL")),
        lambda: connection.contract_rules(contract),
        lambda: connection.chain(ChainRequest(underlying=contract)),
        lambda: connection.subscribe_ticks(contract, TickBacklog()),
        lambda: connection.attach_account(ACCOUNT, client.mailbox),
        lambda: connection.place((intent(1),), client.mailbox),
        lambda: connection.modify(key_of(1), intent(1).ticket, client.mailbox),
        lambda: connection.cancel(key_of(1), client.mailbox),
        lambda: connection.reconcile(ACCOUNT),
        lambda: connection.what_if(intent(1).ticket),
        lambda: connection.halt(TradingState(), cancel_open=False, flatten=False),
        lambda: connection.positions(ACCOUNT),
        lambda: connection.ledger(ACCOUNT),
        lambda: connection.request_history(
            HistoryRequest(contract=contract, bar_ns=MINUTE, start_ns=0, end_ns=MINUTE), 1, answers
        ),
    ]
    for call in calls:
        with pytest.raises(SessionError) as caught:
            call()
        assert caught.value.remedy
    connection.unsubscribe_ticks(TickBacklog())
    connection.renew_due()
    assert connection.in_flight() == 0
    assert connection.stream_ns() == 0
    assert (connection.progress().port, connection.progress().frames) == (0, 0)


def test_close_ends_what_is_in_flight(start_emulator: StartEmulator, connect: Connect) -> None:
    """A request that the server never answers does not keep the thread."""
    slow = start_emulator(order_status_delay_s=600.0)
    client = connect(slow)

    async def ask() -> None:
        assert client.connection._session is not None
        await OrderService(client.connection._session.http, QuestionPolicy()).status("999")

    client.connection._command(ask())
    assert client.connection.in_flight() == 1
    client.connection.close()
    assert not [one for one in threading.enumerate() if one.name == "ibkr-session"]
    assert client.connection.in_flight() == 0


# --- the account ----------------------------------------------------------------------------------------


def test_each_execution_is_told_once(emulator: EmulatorThread, connect: Connect) -> None:
    """The stream tells each twice, the second time with its commission."""
    client = connect()
    client.attach()
    order_id = client.place(1)
    emulator.call(fill)
    client.settle()
    executions = emulator.call(lambda s: s.core.engine.executions())
    assert executions
    told = [event.execution for event in client.of(ExecutionReported)]
    assert [one.execution_id for one in told] == [one.execution_id for one in executions]
    assert all(one.commission is None for one in told)
    priced = [event.execution for event in client.of(CommissionReported)]
    assert {one.execution_id: one.commission for one in priced} == {
        one.execution_id: pytest.approx(one.commission) for one in executions
    }
    assert len(priced) == len(executions)
    assert {one.order_id for one in told} == {order_id}
    assert client.of(OrderChanged)[-1].report.status is OrderStatus.FILLED


def test_the_snapshot_and_the_replay_do_not_repeat_it(emulator: EmulatorThread, connect: Connect) -> None:
    first = connect()
    first.attach()
    first.place(1)
    open_id = first.place(2, order_type=OrderType.LIMIT, limit_price=100.0)
    emulator.call(fill)
    first.settle()
    executions = emulator.call(lambda s: s.core.engine.executions())
    second = connect()
    snapshot = second.attach()
    second.settle()
    assert [one.execution_id for one in snapshot.executions] == [one.execution_id for one in executions]
    assert [(one.conid, one.quantity) for one in snapshot.positions] == [(265598, Decimal(10))]
    assert {one.order_id: one.status for one in snapshot.orders}[open_id] is OrderStatus.SUBMITTED
    assert snapshot.ledger["USD"].cash < 1_000_000
    assert second.of(ExecutionReported) == []
    assert second.of(CommissionReported) == []
    second.place(3, side=Side.SELL)
    emulator.call(fill)
    second.settle()
    told = {event.execution.order_ref for event in second.of(ExecutionReported)}
    assert told == {key_of(3)}


def test_an_empty_account(connect: Connect) -> None:
    snapshot = connect().attach()
    assert (snapshot.positions, snapshot.executions, snapshot.orders) == ((), (), ())
    assert snapshot.ledger["USD"].cash == 1_000_000.0


def test_what_happened_during_a_break_is_told_once(emulator: EmulatorThread, connect: Connect) -> None:
    """Subscriptions do not survive; the replay brings what was missed and nothing that was told before."""
    client = connect()
    client.attach()
    client.place(1)
    emulator.call(fill)
    client.settle()
    client.place(2)
    break_socket(emulator, then=fill)
    client.until(lambda: client.states().count("streaming") == 2)
    client.until(lambda: {e.key for e in client.of(ExecutionReported)} == {key_of(1), key_of(2)})
    client.settle()
    executions = emulator.call(lambda s: s.core.engine.executions())
    told = [event.execution.execution_id for event in client.of(ExecutionReported)]
    assert sorted(told) == sorted(one.execution_id for one in executions)
    states = client.states()
    assert states == [*UP, "disconnected", *UP]
    # The order's end was not seen on the stream: the list was read again.
    client.until(
        lambda: any(
            e.key == key_of(2) and e.report.status is OrderStatus.FILLED for e in client.of(OrderChanged)
        )
    )


def test_cash_is_streamed(emulator: EmulatorThread, connect: Connect) -> None:
    client = connect()
    client.attach()
    client.place(1)
    emulator.call(fill)
    now_ns = emulator.call(lambda s: s.core.now_ns)
    emulator.call(lambda s: s.drive.step(until_ns=now_ns + 60 * NS_PER_S, max_events=None, received={}))
    client.until(
        lambda: any(
            line.currency == "USD" and line.cash < 1_000_000
            for event in client.of(LedgerChanged)
            for line in event.lines
        )
    )
    assert {event.account for event in client.of(LedgerChanged)} == {ACCOUNT}


def test_other_accounts_are_not_mine(start_emulator: StartEmulator, connect: Connect) -> None:
    two = start_emulator(accounts=("DU1", "DU2"))
    client = connect(two)
    assert client.connection.accounts() == ("DU1", "DU2")
    mine: Mailbox[AccountEvent] = Mailbox(client.wake)
    client.connection.attach_account("DU2", mine)
    client.place(1, account="DU1")
    two.call(fill)
    client.settle()
    told = []
    while (event := mine.take()) is not None:
        told.append(event)
    assert [one for one in told if not isinstance(one, LedgerChanged)] == []


def test_positions_that_do_not_stand_still(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions and executions of different moments would be added up wrongly."""
    client = connect()
    portfolio = client.connection._brokerage.portfolio
    readings = iter(range(1, 100))

    async def positions(account: str) -> tuple[Any, ...]:
        class Row:
            conid = 1
            quantity = Decimal(next(readings))

        return (Row,)

    monkeypatch.setattr(portfolio, "positions", positions)
    with pytest.raises(SessionError, match="no moment to start from"):
        client.attach()


# --- frames ------------------------------------------------------------------------------------------------


def send(emulator: EmulatorThread, frame: dict[str, Any]) -> None:
    def work(server: Any) -> None:
        for connection in server.core.hub.connections:
            connection.send(frame)

    emulator.call(work)


@pytest.mark.parametrize(
    "frame",
    [
        {"topic": "sor", "args": [{"orderId": 5, "acct": ACCOUNT, "status": "Astonished"}]},
        {"topic": "sor", "args": "none"},
        {"topic": "sor"},
        {"topic": "str", "args": [{"execution_id": "e", "account": ACCOUNT, "side": "N"}]},
        {"topic": "str", "args": 7},
        {"topic": f"sld+{ACCOUNT}", "result": [{"key": "LedgerListUSD", "cashBalance": "much"}]},
    ],
)
def test_a_report_that_cannot_be_read_is_told(
    emulator: EmulatorThread, connect: Connect, frame: dict[str, Any]
) -> None:
    """Never guessed, never swallowed; and the connection lives on."""
    client = connect()
    client.attach()
    client.settle()
    client.events.clear()
    send(emulator, frame)
    client.until(lambda: any(notice.kind == "unreadable" for notice in client.notices()))
    told = next(notice for notice in client.notices() if notice.kind == "unreadable")
    assert str(frame["topic"]) in told.text
    assert client.of(OrderChanged) == []
    client.place(1)


def test_errors_and_notices_are_told(emulator: EmulatorThread, connect: Connect) -> None:
    client = connect()
    send(emulator, {"error": "unable to subscribe", "code": 500, "topic": "smh"})
    send(emulator, {"topic": "ntf", "args": [{"id": "1", "text": "Hello"}]})
    send(emulator, {"topic": "blt", "args": [{"id": "1", "message": "Closed"}]})
    send(emulator, {"topic": "never heard of"})
    send(emulator, {"message": "no topic"})
    client.until(lambda: len(client.notices()) >= 3)
    told = [(notice.kind, notice.text) for notice in client.notices()]
    assert told[0] == ("error", "smh: unable to subscribe")
    assert [state for state, _ in told] == ["error", "notice", "notice"]
    assert "Hello" in told[1][1]


# --- market data and history --------------------------------------------------------------------------------


def test_ticks(emulator: EmulatorThread, connect: Connect) -> None:
    client = connect()
    contract = client.connection.resolve(parse_dataname("AAPL"))
    one = TickBacklog()
    two = TickBacklog()
    client.step()
    client.connection.subscribe_ticks(contract, one)
    client.until(lambda: one)
    client.step()
    assert len(one) > 1
    assert all(tick.conid == 265598 for tick in one)
    assert client.connection.stream_ns() == one[-1].time_ns
    # Who comes later is given the quote as it stands, and no second subscription is made.
    client.connection.subscribe_ticks(contract, two)
    assert list(two) == [one[-1]]
    client.connection.unsubscribe_ticks(one)
    seen = len(one)
    client.step()
    assert len(one) == seen
    assert len(two) > 1
    client.connection.unsubscribe_ticks(two)
    client.until(lambda: not emulator.call(lambda s: s.core.has_market_data(265598)))


def test_first_tick_after_a_break_is_a_picture(emulator: EmulatorThread, connect: Connect) -> None:
    """What traded during the break is in no tick: it would be booked on one moment."""
    client = connect()
    contract = client.connection.resolve(parse_dataname("AAPL"))
    ticks = TickBacklog()
    client.step(100)
    client.connection.subscribe_ticks(contract, ticks)
    client.until(lambda: ticks)
    client.step(100)
    assert sum(tick.traded for tick in ticks) > 0
    count, volume = len(ticks), ticks[-1].volume or 0.0
    break_socket(emulator, then=lambda s: s.drive.step(until_ns=None, max_events=2000, received={}))
    client.until(lambda: len(ticks) > count)
    picture = ticks[count]
    assert picture.traded == 0.0
    assert (picture.volume or 0.0) > volume


def test_history(connect: Connect, emulator: EmulatorThread) -> None:
    client = connect()
    contract = client.connection.resolve(parse_dataname("AAPL"))
    now_ns = emulator.call(lambda s: s.core.now_ns)
    answers: Mailbox[FeedEvent] = Mailbox(client.wake)
    wanted = HistoryRequest(
        contract=contract, bar_ns=MINUTE, start_ns=now_ns - 7 * 24 * 60 * MINUTE, end_ns=now_ns, most=100
    )
    client.connection.request_history(wanted, 42, answers)
    client.until(lambda: len(answers) and not client.connection.in_flight())
    answer = answers.take()
    assert answer is not None
    assert (answer.token, len(answer.bars), answer.error) == (42, 100, None)
    client.connection.request_history(
        HistoryRequest(contract=contract, bar_ns=7 * MINUTE, start_ns=0, end_ns=now_ns), 43, answers
    )
    client.until(lambda: len(answers))
    answer = answers.take()
    assert answer is not None
    assert (answer.token, answer.bars) == (43, ())
    assert isinstance(answer.error, HistoryError)


def test_errors_come_back_to_the_caller(connect: Connect) -> None:
    client = connect()
    with pytest.raises(ContractNotFoundError):
        client.connection.resolve(parse_dataname("NOSUCH"))
    assert client.connection.resolve(parse_dataname("AAPL")).conid == 265598


# --- commands ---------------------------------------------------------------------------------------------


def test_a_refused_bracket_fails_every_ticket(connect: Connect) -> None:
    client = connect()
    client.attach()
    parent = intent(1, quantity=Decimal(1), order_type=OrderType.LIMIT, limit_price=100.001)
    child = intent(
        2,
        parent_key=key_of(1),
        parent=key_of(1),
        client_order_id=None,
        side=Side.SELL,
        order_type=OrderType.STOP,
        stop_price=90.0,
        quantity=Decimal(1),
    )
    client.connection.place((parent, child), client.mailbox)
    client.until(lambda: len(client.of(OrderFailed)) == 2)
    assert [event.key for event in client.of(OrderFailed)] == [key_of(1), key_of(2)]
    assert all(isinstance(event.error, OrderRefusedError) for event in client.of(OrderFailed))


def test_cancel(connect: Connect) -> None:
    client = connect()
    client.attach()
    client.place(1, order_type=OrderType.LIMIT, limit_price=100.0)
    client.connection.cancel(key_of(1), client.mailbox)
    client.until(lambda: any(e.report.status is OrderStatus.CANCELLED for e in client.of(OrderChanged)))
    assert client.of(CancelFailed) == []


def test_what_cannot_be_cancelled(connect: Connect, emulator: EmulatorThread) -> None:
    """An order that has filled, and one that nobody placed."""
    client = connect()
    client.attach()
    client.place(1)
    emulator.call(fill)
    client.until(lambda: any(e.report.status is OrderStatus.FILLED for e in client.of(OrderChanged)))
    for number in (1, 7):
        client.connection.cancel(key_of(number), client.mailbox)
    client.until(lambda: len(client.of(CancelFailed)) == 2)
    assert {event.key for event in client.of(CancelFailed)} == {key_of(1), key_of(7)}
    assert all(isinstance(event.error, OrderRefusedError) for event in client.of(CancelFailed))


def test_modify(connect: Connect, emulator: EmulatorThread) -> None:
    client = connect()
    client.attach()
    resting = intent(1, order_type=OrderType.LIMIT, limit_price=100.0).ticket
    client.place(1, order_type=OrderType.LIMIT, limit_price=100.0)
    changed = msgspec.structs.replace(resting, limit_price=101.0)
    client.connection.modify(key_of(1), changed, client.mailbox)
    client.until(lambda: client.of(OrderModified))
    assert client.of(OrderModified) == [OrderModified(key_of(1), changed)]
    (standing,) = emulator.call(lambda s: list(s.core.engine.orders()))
    assert standing.spec.limit_price == 101.0
    client.connection.modify(key_of(7), changed, client.mailbox)
    client.until(lambda: client.of(ModifyFailed))
    assert client.of(ModifyFailed)[0].key == key_of(7)


def test_nothing_trades_before_an_account_is_attached(connect: Connect, emulator: EmulatorThread) -> None:
    client = connect()
    client.connection.place((intent(1),), client.mailbox)
    client.connection.modify(key_of(1), intent(1).ticket, client.mailbox)
    client.connection.cancel(key_of(1), client.mailbox)
    client.connection.reconcile(ACCOUNT)
    client.until(lambda: len(client.events) == 3 and not client.connection.in_flight())
    assert {type(event) for event in client.events} == {OrderFailed, ModifyFailed, CancelFailed}
    assert ACCOUNT in str(client.of(OrderFailed)[0].error)
    assert not emulator.call(lambda s: list(s.core.engine.orders()))


def test_what_if_places_nothing(connect: Connect, emulator: EmulatorThread) -> None:
    client = connect()
    client.step()
    preview = client.connection.what_if(intent(1).ticket)
    assert preview.error is None
    assert preview.initial_margin is not None
    assert not emulator.call(lambda s: list(s.core.engine.orders()))


# --- the record -------------------------------------------------------------------------------------------


def test_a_second_process_may_not_use_the_journal(connect: Connect, tmp_path: Path) -> None:
    """Two that number and watch the same orders would not know of each other."""
    file = tmp_path / "journal.sqlite"
    first = connect(journal=file)
    first.attach()
    second = connect(journal=file)
    with pytest.raises(JournalLockedError):
        second.attach()
    first.connection.close()
    second.attach()


def test_the_journal_lies_under_the_accounts_name(connect: Connect, home: Path) -> None:
    client = connect(journal=None)
    client.attach()
    assert journal_path(ACCOUNT).is_file()
    assert journal_path(ACCOUNT).is_relative_to(home)


def test_a_run_in_memory_leaves_no_file(connect: Connect, home: Path) -> None:
    client = connect()
    client.attach()
    client.place(1)
    assert list(home.rglob("*.sqlite")) == []


def test_what_an_earlier_run_left_is_taken_over(
    connect: Connect, tmp_path: Path, emulator: EmulatorThread
) -> None:
    """It can be told of, and cancelled, by the key; new keys do not meet old ones."""
    file = tmp_path / "journal.sqlite"
    first = connect(journal=file)
    before = first.attach()
    order_id = first.place(1, order_type=OrderType.LIMIT, limit_price=100.0)
    first.connection.close()
    second = connect(journal=file)
    snapshot = second.attach()
    (standing,) = snapshot.standing
    assert (standing.intent.key, standing.order_id, standing.open) == (
        key_of(1, before.epoch),
        order_id,
        True,
    )
    assert snapshot.differences == ()
    assert snapshot.epoch == before.epoch
    assert snapshot.sequences["tester"] == 2
    second.connection.cancel(key_of(1, before.epoch), second.mailbox)
    second.until(lambda: any(e.report.status is OrderStatus.CANCELLED for e in second.of(OrderChanged)))
    assert {event.key for event in second.of(OrderChanged)} == {key_of(1, before.epoch)}


def test_trading_is_halted_for_all_and_over_restarts(
    connect: Connect, tmp_path: Path, emulator: EmulatorThread
) -> None:
    file = tmp_path / "journal.sqlite"
    client = connect(journal=file)
    client.attach()
    client.place(1, order_type=OrderType.LIMIT, limit_price=100.0)
    state = TradingState(mode=Trading.HALTED, reason="enough", by="a test", since_ns=1)
    client.connection.halt(state, cancel_open=True, flatten=False)
    client.until(lambda: client.of(TradingChanged) and not client.connection.in_flight())
    assert client.of(TradingChanged) == [TradingChanged(state)]
    assert {o.status.name for o in emulator.call(lambda s: list(s.core.engine.orders()))} == {"CANCELLED"}
    client.connection.place((intent(2, client.epoch),), client.mailbox)
    client.until(lambda: client.of(OrderFailed))
    assert "enough" in str(client.of(OrderFailed)[0].error)
    client.connection.close()
    again = connect(journal=file)
    assert again.attach().trading == state
    again.connection.place((intent(3, client.epoch),), again.mailbox)
    again.until(lambda: again.of(OrderFailed))
    again.connection.halt(TradingState(by="a test"), cancel_open=False, flatten=False)
    again.until(lambda: again.of(TradingChanged))
    again.place(4)
    assert len(emulator.call(lambda s: list(s.core.engine.orders()))) == 2


def test_nobody_can_be_halted_before_an_account_is_attached(connect: Connect) -> None:
    client = connect()
    client.connection.halt(TradingState(mode=Trading.HALTED), cancel_open=False, flatten=False)
    client.until(lambda: not client.connection.in_flight())
    client.attach()
    client.place(1)


def test_answers_wake_the_store(connect: Connect) -> None:
    """The consumer sleeps on the flag alone."""
    client = connect()
    client.attach()
    client.settle()
    while client.wake.wait(0):
        pass
    client.connection.place((intent(1),), client.mailbox)
    assert client.wake.wait(10.0)
    assert isinstance(client.wake, WakeUp)


def test_history_that_dies_is_answered(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong, a feed that waits for history hears of it."""
    client = connect()
    contract = client.connection.resolve(parse_dataname("AAPL"))

    async def die(service: object, request: HistoryRequest) -> list[Bar]:
        raise TypeError("not supported")

    monkeypatch.setattr(HistoryService, "bars", die)
    answers: Mailbox[FeedEvent] = Mailbox(client.wake)
    wanted = HistoryRequest(contract=contract, bar_ns=MINUTE, start_ns=0, end_ns=MINUTE)
    client.connection.request_history(wanted, 7, answers)
    client.until(lambda: len(answers))
    answer = answers.take()
    assert answer is not None
    assert (answer.token, answer.bars) == (7, ())
    assert "not supported" in str(answer.error)
