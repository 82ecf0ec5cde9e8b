"""Positions, cash, trades and live orders, with what the server's caches do to them; executions once each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.errors import ResponseError, SessionError, WireError
from bt_ibkr.model.order import Execution, OrderStatus, OrderTicket, OrderType, Side
from bt_ibkr.model.portfolio import Account
from bt_ibkr.services.executions import ExecutionBook, Seen, trade_of
from bt_ibkr.services.orders import OrderService
from bt_ibkr.services.portfolio import PortfolioService
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.wire.session import Accounts
from tests.services.conftest import error

if TYPE_CHECKING:
    from tests.services.conftest import Server, StartEmulator

INVALIDATE = "POST /portfolio/DU1/positions/invalidate"
TRADES = "GET /iserver/account/trades"
LIST = "GET /iserver/account/orders"


def position(conid: int, quantity: float = 1.0) -> dict[str, Any]:
    return {
        "acctId": "DU1",
        "conid": conid,
        "position": quantity,
        "avgCost": 2.0,
        "avgPrice": 2.0,
        "currency": "USD",
    }


def pages(server: Server, rows: list[dict[str, Any]]) -> None:
    server.answers[INVALIDATE] = {"message": "success"}
    for page in range(len(rows) // 100 + 2):
        server.answers[f"GET /portfolio/DU1/positions/{page}"] = rows[page * 100 : (page + 1) * 100]


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
async def test_all_pages_are_read(server: Server, count: int) -> None:
    pages(server, [position(conid) for conid in range(1, count + 1)])
    found = await PortfolioService(server.http).positions("DU1")
    assert [one.conid for one in found] == list(range(1, count + 1))
    # The cache lags fills: it is told to forget before the first page.
    assert server.lines()[0] == INVALIDATE
    assert len(server.lines("GET")) == count // 100 + 1


async def test_flat_positions_are_left_out_but_fill_the_page(server: Server) -> None:
    pages(server, [position(conid, float(conid % 2)) for conid in range(1, 131)])
    found = await PortfolioService(server.http).positions("DU1")
    assert len(found) == 65
    assert all(one.quantity for one in found)
    assert found[-1].conid == 129


async def test_an_error_is_not_an_empty_account(server: Server) -> None:
    server.answers[INVALIDATE] = {"message": "success"}
    server.answers["GET /portfolio/DU1/positions/0"] = {"error": "not ready"}
    with pytest.raises(ResponseError):
        await PortfolioService(server.http).positions("DU1")


async def test_a_server_without_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ignores the page number must not be read for ever."""
    monkeypatch.setattr("bt_ibkr.services.portfolio._MOST_PAGES", 3)
    rows = [position(conid) for conid in range(1, 101)]
    server.answers[INVALIDATE] = {"message": "success"}
    server.answers |= {f"GET /portfolio/DU1/positions/{page}": rows for page in range(5)}
    with pytest.raises(SessionError, match="more than 300 positions"):
        await PortfolioService(server.http).positions("DU1")
    assert len(server.lines("GET")) == 3


TRADE = {
    "execution_id": "e1", "symbol": "AAPL", "side": "S", "trade_time_r": 1788875891000, "size": 0.5,
    "price": "317.56", "account": "DU1", "conid": 265598, "order_id": 9, "commission": "1.0",
}  # fmt: skip


async def test_the_first_empty_list_of_trades_is_not_believed(server: Server) -> None:
    answers = iter([[], [TRADE]])
    server.answers[TRADES] = lambda _: next(answers)
    (trade,) = await PortfolioService(server.http).trades("DU1", days=7)
    assert (trade.quantity, trade.side, trade.commission) == (Decimal("0.5"), Side.SELL, 1.0)
    assert [one.query for one in server.seen] == [{"days": "7"}] * 2


async def test_an_empty_list_of_trades_is_believed_the_second_time(server: Server) -> None:
    server.answers[TRADES] = []
    assert await PortfolioService(server.http).trades("DU1") == ()
    assert len(server.seen) == 2


async def test_a_list_of_trades_is_asked_once(server: Server) -> None:
    server.answers[TRADES] = [TRADE]
    assert len(await PortfolioService(server.http).trades("DU1")) == 1
    assert len(server.seen) == 1


async def test_a_trade_that_cannot_be_read_is_no_missing_trade(server: Server) -> None:
    server.answers[TRADES] = [TRADE, TRADE | {"execution_id": "e2", "side": "?"}]
    with pytest.raises(WireError):
        await PortfolioService(server.http).trades("DU1")


ROW = {"acct": "DU1", "conid": 1, "orderId": 7, "status": "Submitted", "side": "BUY", "totalSize": 3.0}


async def test_the_priming_answer_is_no_list(server: Server, naps: list[float]) -> None:
    answers = iter([{"orders": [], "snapshot": False}, {"orders": [ROW], "snapshot": True}])
    server.answers[LIST] = lambda _: next(answers)
    (order,) = await PortfolioService(server.http).live_orders("DU1")
    assert (order.order_id, order.status, order.total_quantity) == ("7", OrderStatus.SUBMITTED, Decimal(3))
    # Filters, and ``force`` after them, would silence the stream of orders.
    assert [one.query for one in server.seen] == [{}, {}]


async def test_a_list_that_never_comes(server: Server, naps: list[float]) -> None:
    server.answers[LIST] = {"orders": [], "snapshot": False}
    with pytest.raises(SessionError, match="whole list"):
        await PortfolioService(server.http).live_orders("DU1")
    assert len(server.seen) == 4


# --- the selected account ---------------------------------------------------------------------------------

SELECT = "POST /iserver/account"


def accounts(selected: str | None, *ids: str) -> Accounts:
    return Accounts(
        accounts=tuple(
            Account(
                account_id=one,
                alias=one,
                supports_fractions=False,
                supports_cash_quantity=False,
            )
            for one in ids
        ),
        selected=selected,
        is_paper=True,
        session_id=None,
    )


async def test_lists_are_of_the_selected_account(server: Server) -> None:
    """IBKR lists orders and executions of one account, and says so nowhere."""
    login = accounts("DU1", "DU1", "DU2")
    server.answers |= {
        SELECT: {"set": True, "acctId": "DU2"},
        TRADES: [TRADE],
        LIST: {"orders": [ROW], "snapshot": True},
    }
    portfolio = PortfolioService(server.http, lambda: login)
    await portfolio.trades("DU1")
    await portfolio.trades("DU2")
    await portfolio.live_orders("DU2")
    await portfolio.trades("DU1")
    assert server.lines() == [TRADES, SELECT, TRADES, LIST, SELECT, TRADES]
    assert [one.body for one in server.seen if one.line == SELECT] == [{"acctId": "DU2"}, {"acctId": "DU1"}]


@pytest.mark.parametrize("selected", ["DU1", None])
async def test_where_there_is_but_one_account_nothing_is_selected(
    server: Server, selected: str | None
) -> None:
    server.answers[TRADES] = [TRADE]
    login = accounts(selected, "DU1")
    portfolio = PortfolioService(server.http, lambda: login)
    await portfolio.trades("DU1")
    assert server.lines() == [TRADES]


async def test_after_a_log_on_what_was_selected_does_not_hold(server: Server) -> None:
    """A list of the wrong account would look like one without executions."""
    known = [accounts("DU1", "DU1", "DU2")]
    server.answers |= {SELECT: {"set": True}, TRADES: [TRADE]}
    portfolio = PortfolioService(server.http, lambda: known[-1])
    await portfolio.trades("DU2")
    known.append(accounts("DU1", "DU1", "DU2"))
    await portfolio.trades("DU2")
    assert server.lines() == [SELECT, TRADES] * 2


async def test_a_selection_that_failed_is_made_again(server: Server) -> None:
    login = accounts("DU1", "DU1", "DU2")
    answers = iter([error(500, "busy"), {"set": True}])
    server.answers |= {SELECT: lambda _: next(answers), TRADES: [TRADE]}
    portfolio = PortfolioService(server.http, lambda: login)
    with pytest.raises(ResponseError):
        await portfolio.trades("DU2")
    assert len(await portfolio.trades("DU2")) == 1
    assert server.lines() == [SELECT, SELECT, TRADES]


async def test_no_account_is_selected_while_another_is_read(server: Server) -> None:
    """Readers of one account go side by side; the other one's waits until they are through."""
    login = accounts("DU1", "DU1", "DU2")
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: object) -> Any:
        if server.active == 2:
            under_way.set()
        await go_on.wait()
        return [TRADE]

    server.answers |= {SELECT: {"set": True}, TRADES: slow, LIST: slow_list(slow)}
    portfolio = PortfolioService(server.http, lambda: login)
    first = [asyncio.create_task(one) for one in (portfolio.trades("DU1"), portfolio.live_orders("DU1"))]
    await under_way.wait()
    other = asyncio.create_task(portfolio.trades("DU2"))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*first, other)
    assert sorted(server.lines()[:2]) == [LIST, TRADES]
    assert server.lines()[2:] == [SELECT, TRADES]


def slow_list(slow: Callable[[object], Awaitable[Any]]) -> Callable[[object], Awaitable[Any]]:
    async def work(seen: object) -> Any:
        await slow(seen)
        return {"orders": [ROW], "snapshot": True}

    return work


async def test_the_emulators_two_accounts(start_emulator: StartEmulator, naps: list[float]) -> None:
    """Whatever is selected there, each account's own orders are listed."""
    emulator = await start_emulator(accounts=("DU1", "DU2"))
    login = accounts("DU1", "DU1", "DU2")
    portfolio = PortfolioService(emulator.http, lambda: login)
    orders = OrderService(emulator.http, QuestionPolicy())
    for account in ("DU1", "DU2"):
        await orders.place(
            (
                OrderTicket(
                    account=account, contract_id=265598, side=Side.BUY, order_type=OrderType.LIMIT,
                    limit_price=100.0, quantity=Decimal(7), client_order_id=f"of-{account}",
                ),
            )
        )  # fmt: skip
    for account in ("DU2", "DU1"):
        (order,) = await portfolio.live_orders(account)
        assert (order.account, order.order_ref) == (account, f"of-{account}")


async def test_ledger(server: Server) -> None:
    line = {"cashbalance": 971869.6, "exchangerate": 0.85, "currency": "USD", "timestamp": 1775169606}
    server.answers["GET /portfolio/DU1/ledger"] = {
        "USD": line | {"secondkey": "USD", "key": "LedgerList", "netliquidationvalue": 1.5},
        "BASE": line | {"currency": "BASE", "exchangerate": 1, "secondkey": "BASE", "key": "LedgerList"},
    }
    ledger = await PortfolioService(server.http).ledger("DU1")
    assert set(ledger) == {"USD", "BASE"}
    assert (ledger["USD"].cash, ledger["USD"].exchange_rate) == (971869.6, 0.85)
    assert ledger["USD"].net_liquidation == 1.5
    assert ledger["USD"].time_ns == 1775169606 * 10**9


async def test_the_emulators_account(start_emulator: StartEmulator, naps: list[float]) -> None:
    """After a fill, position, trade, order and cash agree."""
    emulator = await start_emulator(commission="fixed", cash=100_000.0)
    portfolio = PortfolioService(emulator.http)
    assert await portfolio.positions("DU1") == ()
    assert (await portfolio.ledger("DU1"))["USD"].cash == 100_000.0
    orders = OrderService(emulator.http, QuestionPolicy())
    ticket = OrderTicket(
        account="DU1", contract_id=265598, side=Side.BUY, order_type=OrderType.MARKET,
        quantity=Decimal(7), client_order_id="c",
    )  # fmt: skip
    (placement,) = (await orders.place((ticket,))).placed
    emulator.server.drive.step(until_ns=None, max_events=50, received={})
    emulator.server.drive.step(until_ns=None, max_events=50, received={})
    (held,) = await portfolio.positions("DU1")
    trades = await portfolio.trades("DU1")
    (order,) = await portfolio.live_orders("DU1")
    assert (held.conid, held.quantity) == (265598, Decimal(7))
    assert sum(trade.quantity for trade in trades) == 7
    assert {trade.order_id for trade in trades} == {placement.order_id} == {order.order_id}
    assert {trade.order_ref for trade in trades} == {"c"} == {order.order_ref}
    assert order.status is OrderStatus.FILLED
    paid = sum(float(trade.quantity) * trade.price + (trade.commission or 0.0) for trade in trades)
    assert (await portfolio.ledger("DU1"))["USD"].cash == pytest.approx(100_000.0 - paid)


# --- executions, once each --------------------------------------------------------------------------------


def execution(key: str, commission: float | None = None) -> Execution:
    return Execution(
        execution_id=key, account="DU1", conid=1, symbol="X", side=Side.BUY, quantity=Decimal(1),
        price=1.0, time_ns=1, commission=commission,
    )  # fmt: skip


OLD = Seen(new=False, commission=False)


def test_without_and_with_commission() -> None:
    """As the stream tells each: twice, the commission second."""
    book = ExecutionBook()
    assert book.add(execution("a")) == Seen(new=True, commission=False)
    assert book.add(execution("a")) == OLD
    assert book.add(execution("a", 1.0)) == Seen(new=False, commission=True)
    assert book.add(execution("a", 1.0)) == OLD
    assert book.add(execution("a")) == OLD
    assert book.add(execution("b", 0.0)) == Seen(new=True, commission=True)
    assert book.add(execution("b", 0.5)) == Seen(new=False, commission=True)
    assert len(book) == 2
    assert "a" in book
    assert "c" not in book


FIRST, SECOND, THIRD = (f"0000dc8f.6b9035f5.01.{number:02d}" for number in (1, 2, 3))


def test_a_correction_replaces_what_was_told() -> None:
    book = ExecutionBook()
    first = execution(FIRST, 1.0)
    book.add(first)
    second = book.add(execution(SECOND))
    assert (second.new, second.replaces) == (True, first)
    third = book.add(execution(THIRD))
    assert third.replaces == execution(SECOND)
    # Another fill of the order is no correction: its third part differs.
    assert book.add(execution("0000dc8f.6b9035f5.02.01")).replaces is None


def test_what_was_corrected_is_no_news() -> None:
    """A replay may tell the correction first: what it corrects must not come on top."""
    book = ExecutionBook()
    assert book.add(execution(SECOND)) == Seen(new=True, commission=False)
    assert book.add(execution(FIRST, 1.0)) == OLD
    assert book.add(execution(FIRST, 2.0)) == OLD
    assert book.add(execution(SECOND, 1.5)) == Seen(new=False, commission=True)


@pytest.mark.parametrize(
    ("execution_id", "trade"),
    [
        (FIRST, ("0000dc8f.6b9035f5.01", 1)),
        ("0000dc8f.6b9035f5.01.10", ("0000dc8f.6b9035f5.01", 10)),
        ("plain", ("plain", 0)),
        ("a.b", ("a.b", 0)),
        (".1", (".1", 0)),
    ],
)
def test_the_trade_of_an_execution(execution_id: str, trade: tuple[str, int]) -> None:
    assert trade_of(execution_id) == trade


reports = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, 0.0, 1.0])), max_size=30)


@settings(deadline=None)
@given(reports)
def test_each_is_new_once(told: list[tuple[str, float | None]]) -> None:
    book = ExecutionBook()
    answers = [(key, commission, book.add(execution(key, commission))) for key, commission in told]
    for key in "abc":
        mine = [(commission, answer) for name, commission, answer in answers if name == key]
        assert sum(answer.new for _, answer in mine) == (1 if mine else 0)
        known: float | None = None
        for commission, answer in mine:
            assert answer.commission == (commission is not None and commission != known)
            known = commission if commission is not None else known


trades = st.lists(
    st.tuples(st.sampled_from(["x.01", "x.02", "x.03", "y.01", "y.02"]), st.sampled_from([None, 1.0])),
    max_size=30,
)


@settings(deadline=None)
@given(trades)
def test_what_was_told_adds_up_to_the_last_corrections(told: list[tuple[str, float | None]]) -> None:
    """In whatever order and however often: new ones less those replaced are the latest of each trade."""
    book = ExecutionBook()
    standing: list[str] = []
    for key, commission in told:
        seen = book.add(execution(key, commission))
        if seen.replaces is not None:
            assert seen.new
            standing.remove(seen.replaces.execution_id)
        if seen.new:
            standing.append(key)
    latest = {key.partition(".")[0]: key for key in sorted({key for key, _ in told})}
    assert sorted(standing) == sorted(latest.values())
