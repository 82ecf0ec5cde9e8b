"""Positions, cash, trades and live orders, with what the server's caches do to them; executions once each."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.errors import ResponseError, SessionError, WireError
from bt_ibkr.model.order import Execution, OrderStatus, OrderTicket, OrderType, Side
from bt_ibkr.services.executions import ExecutionBook
from bt_ibkr.services.orders import OrderService
from bt_ibkr.services.portfolio import PortfolioService
from bt_ibkr.services.questions import QuestionPolicy

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
    (trade,) = await PortfolioService(server.http).trades(days=7)
    assert (trade.quantity, trade.side, trade.commission) == (Decimal("0.5"), Side.SELL, 1.0)
    assert [one.query for one in server.seen] == [{"days": "7"}] * 2


async def test_an_empty_list_of_trades_is_believed_the_second_time(server: Server) -> None:
    server.answers[TRADES] = []
    assert await PortfolioService(server.http).trades() == ()
    assert len(server.seen) == 2


async def test_a_list_of_trades_is_asked_once(server: Server) -> None:
    server.answers[TRADES] = [TRADE]
    assert len(await PortfolioService(server.http).trades()) == 1
    assert len(server.seen) == 1


async def test_a_trade_that_cannot_be_read_is_no_missing_trade(server: Server) -> None:
    server.answers[TRADES] = [TRADE, TRADE | {"execution_id": "e2", "side": "?"}]
    with pytest.raises(WireError):
        await PortfolioService(server.http).trades()


ROW = {"acct": "DU1", "conid": 1, "orderId": 7, "status": "Submitted", "side": "BUY", "totalSize": 3.0}


async def test_the_priming_answer_is_no_list(server: Server, naps: list[float]) -> None:
    answers = iter([{"orders": [], "snapshot": False}, {"orders": [ROW], "snapshot": True}])
    server.answers[LIST] = lambda _: next(answers)
    (order,) = await PortfolioService(server.http).live_orders()
    assert (order.order_id, order.status, order.total_quantity) == ("7", OrderStatus.SUBMITTED, Decimal(3))
    # Filters, and ``force`` after them, would silence the stream of orders.
    assert [one.query for one in server.seen] == [{}, {}]


async def test_a_list_that_never_comes(server: Server, naps: list[float]) -> None:
    server.answers[LIST] = {"orders": [], "snapshot": False}
    with pytest.raises(SessionError, match="whole list"):
        await PortfolioService(server.http).live_orders()
    assert len(server.seen) == 4


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
    orders = OrderService(emulator.http, portfolio, QuestionPolicy())
    ticket = OrderTicket(
        account="DU1", contract_id=265598, side=Side.BUY, order_type=OrderType.MARKET,
        quantity=Decimal(7), client_order_id="c",
    )  # fmt: skip
    (placement,) = await orders.place((ticket,))
    emulator.server.drive.step(until_ns=None, max_events=50, received={})
    emulator.server.drive.step(until_ns=None, max_events=50, received={})
    (held,) = await portfolio.positions("DU1")
    trades = await portfolio.trades()
    (order,) = await portfolio.live_orders()
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


def test_without_and_with_commission() -> None:
    """As the stream tells each: twice, the commission second."""
    book = ExecutionBook()
    assert book.add(execution("a")) == (True, False)
    assert book.add(execution("a")) == (False, False)
    assert book.add(execution("a", 1.0)) == (False, True)
    assert book.add(execution("a", 1.0)) == (False, False)
    assert book.add(execution("a")) == (False, False)
    assert book.add(execution("b", 0.0)) == (True, True)
    assert book.add(execution("b", 0.5)) == (False, True)
    assert len(book) == 2


reports = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, 0.0, 1.0])), max_size=30)


@settings(deadline=None)
@given(reports)
def test_each_is_new_once(told: list[tuple[str, float | None]]) -> None:
    book = ExecutionBook()
    answers = [(key, commission, book.add(execution(key, commission))) for key, commission in told]
    for key in "abc":
        mine = [(commission, answer) for name, commission, answer in answers if name == key]
        assert sum(new for _, (new, _) in mine) == (1 if mine else 0)
        known: float | None = None
        for commission, (_, priced) in mine:
            assert priced == (commission is not None and commission != known)
            known = commission if commission is not None else known
