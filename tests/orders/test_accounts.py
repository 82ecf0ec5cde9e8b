"""Several accounts of one login, and an adviser's groups, from one store."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.errors import NotArmedError, OrderRefusedError, UsageError
from bt_ibkr.services.questions import QuestionPolicy

if TYPE_CHECKING:
    from tests.conftest import Bench, Line, Tape

AAPL = 265598
FIRST, SECOND, THIRD = "DU1234567", "DU2222222", "DU3333333"
AtBar = Callable[..., Callable[[Any], None]]


@pytest.fixture
def line(bench: Bench, tape: type[Tape]) -> Line:
    prices = tape().every_second(300, lambda second: 100.0)
    return bench.line(market=bench.market(AAPL=prices), accounts=(FIRST, SECOND, THIRD))


def test_each_account_has_its_own_books(bench: Bench, line: Line, at_bar: AtBar) -> None:
    def trade(strategy: Any) -> list[Any]:
        return [strategy.buy(size=10), strategy.sell(size=4, account=SECOND)]

    run = bench.run(line, at_bar(trade, None), broker={"accounts": (SECOND,)})
    data, broker = run.strategy.data, run.broker
    assert [order.getstatusname() for order in run.strategy.orders] == ["Completed", "Completed"]
    assert broker.getposition(data).size == 10
    assert broker.getposition(data, account=SECOND).size == -4
    for account in (FIRST, SECOND):
        told = run.ledger["accounts"][account]
        assert broker.getcash(account) == pytest.approx(float(told["cash"]["USD"]), abs=0.005)
        assert (
            Decimal(told["positions"][str(AAPL)]["quantity"])
            == broker.getposition(data, account=account).size
        )
    assert {row["account"] for row in run.ledger["executions"]} == {FIRST, SECOND}
    assert not broker.problems


def test_account_that_is_not_named_is_refused(bench: Bench, line: Line) -> None:
    refused: list[str] = []

    def trade(strategy: Any) -> None:
        if not refused:
            with pytest.raises(OrderRefusedError, match=THIRD) as caught:
                strategy.buy(size=1, account=THIRD)
            refused.append(str(caught.value))
            with pytest.raises(UsageError, match=THIRD):
                strategy.broker.getcash(THIRD)

    run = bench.run(line, trade, broker={"accounts": (SECOND,)})
    assert refused
    assert not run.ledger["orders"]


def test_executions_of_other_accounts_are_not_ours(bench: Bench, line: Line, at_bar: AtBar) -> None:
    from bt_ibkr.emulator.types import OrderSpec
    from bt_ibkr.model.order import OrderType, Side

    def elsewhere(_: Any) -> None:
        spec = OrderSpec(
            account=THIRD, conid=AAPL, side=Side.BUY, order_type=OrderType.MARKET, quantity=Decimal(7)
        )
        placed = line.emulator.call(lambda server: server.core.engine.place([spec]))
        assert placed[0].order is not None

    run = bench.run(line, at_bar(elsewhere, None))
    assert len(run.ledger["executions"]) == 1
    assert run.broker.getposition(run.strategy.data).size == 0
    assert run.broker.executions == []
    assert not [message for message in run.strategy.messages if message[0] == "external-execution"]


def test_real_money_beside_a_paper_account_is_refused(bench: Bench, tape: type[Tape]) -> None:
    prices = tape().every_second(60, lambda second: 100.0)
    line = bench.line(market=bench.market(AAPL=prices), accounts=(FIRST, "U7654321"), paper="yes")
    with pytest.raises(NotArmedError, match="U7654321"):
        bench.run(line, broker={"accounts": ("U7654321",)})


def test_group_of_an_adviser(bench: Bench, tape: type[Tape], at_bar: AtBar) -> None:
    prices = tape().every_second(300, lambda second: 100.0)
    line = bench.line(
        market=bench.market(AAPL=prices),
        accounts=("DF1234567", SECOND, THIRD),
        fa_master="DF1234567",
        fa_groups=("all",),
        store={"questions": QuestionPolicy(accept=frozenset({"p6"}))},
    )
    run = bench.run(
        line,
        at_bar(lambda s: s.buy(size=10, allocation_group="all"), None),
        broker={"accounts": (SECOND, THIRD)},
    )
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order)[-1].startswith("Completed")
    assert order.executed.size == 10
    shares = [run.broker.getposition(run.strategy.data, account=one).size for one in (SECOND, THIRD)]
    assert shares == [5, 5]
    assert not run.broker.problems


def test_group_is_refused_unless_the_policy_takes_it(bench: Bench, tape: type[Tape], at_bar: AtBar) -> None:
    prices = tape().every_second(200, lambda second: 100.0)
    accounts = ("DF1234567", SECOND)
    line = bench.line(
        market=bench.market(AAPL=prices), accounts=accounts, fa_master=accounts[0], fa_groups=("all",)
    )
    run = bench.run(line, at_bar(lambda s: s.buy(size=10, allocation_group="all")))
    (order,) = run.strategy.orders
    assert order.getstatusname() == "Rejected"
    assert "p6" in order.info["reason"]
    assert not run.ledger["orders"]
