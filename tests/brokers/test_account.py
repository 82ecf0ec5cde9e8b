"""Positions, cash and values: at the start, by our orders, by other clients' orders."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

AAPL, IBM = 265598, 8314


def market(bench: Bench, tape: type[Tape], seconds: int = 240) -> Any:
    return bench.market(
        AAPL=tape().every_second(seconds, lambda s: 100.0), IBM=tape().every_second(seconds, lambda s: 50.0)
    )


def test_value_is_cash_and_positions(bench: Bench, tape: type[Tape], at_bar: Any) -> None:
    seen: list[Any] = []

    def look(strategy: Any) -> None:
        aapl, ibm = strategy.datas
        broker = strategy.broker
        seen.append((broker.getvalue([aapl]), broker.getvalue([ibm]), broker.getvalue([aapl, ibm])))
        assert broker.getvalue() == pytest.approx(broker.getcash() + broker.getvalue(strategy.datas))
        assert broker.get_value() == broker.getvalue()
        assert broker.get_cash() == broker.getcash()
        assert {d._name: p.size for d, p in broker.positions.items()} == {"AAPL": 10, "IBM": -20}
        assert {d._name: p.size for d, p in strategy.getpositions().items()} == {"AAPL": 10, "IBM": -20}
        assert strategy.getpositionbyname("IBM").price == 49.99

    def trade(strategy: Any) -> list[Any]:
        return [strategy.buy(size=10), strategy.sell(strategy.datas[1], size=20)]

    line = bench.line(market=market(bench, tape))
    run = bench.run(line, at_bar(trade, look), feeds=[{"dataname": "AAPL"}, {"dataname": "IBM"}])
    assert seen == [(1000.0, -1000.0, 0.0)]
    assert run.broker.startingcash == run.broker.startingvalue == 1_000_000
    run.agree()


def test_position_given_out_is_a_copy(bench: Bench, tape: type[Tape], at_bar: Any) -> None:
    def meddle(strategy: Any) -> None:
        strategy.broker.getposition(strategy.data).size = 77

    run = bench.run(bench.line(market=market(bench, tape)), at_bar(lambda s: s.buy(size=10), meddle))
    assert run.broker.getposition(run.strategy.data).size == 10


def test_orders_open_and_their_states(bench: Bench, tape: type[Tape], at_bar: Any) -> None:
    def look(strategy: Any) -> None:
        broker = strategy.broker
        filled, resting = strategy.orders
        (only,) = broker.get_orders_open()
        assert only.ref == resting.ref
        assert broker.get_orders_open(safe=True)[0] is not only
        assert broker.orderstatus(filled) == filled.brokerstatus() == bt.Order.Completed
        assert broker.orderstatus(resting) == bt.Order.Accepted
        name, epoch, number = broker.client_order_id(resting).split(".")
        assert (name, len(epoch), number) == ("scripted", 5, "2")
        assert broker.order_id(resting).isdigit()

    def trade(strategy: Any) -> list[Any]:
        return [strategy.buy(size=10), strategy.buy(size=10, exectype=bt.Order.Limit, price=90.0)]

    bench.run(bench.line(market=market(bench, tape)), at_bar(trade, look))


def test_commission_scheme_is_ibkrs_unless_another_is_set(
    bench: Bench, tape: type[Tape], at_bar: Any
) -> None:
    def look(strategy: Any) -> None:
        info = strategy.broker.getcommissioninfo(strategy.data)
        assert info.getcommission(1000, 100.0) == 5.0
        assert info.getcommission(10, 100.0) == 1.0
        assert info.getsize(100.0, 1000.0) == 10
        strategy.broker.setcommission(commission=0.5, commtype=bt.CommInfoBase.COMM_FIXED, name="AAPL")
        assert strategy.broker.getcommissioninfo(strategy.data).getcommission(10, 100.0) == 5.0

    run = bench.run(bench.line(market=market(bench, tape)), at_bar(look))
    assert len(run.strategy) == 4


def test_target_orders_reach_their_target(bench: Bench, tape: type[Tape], at_bar: Any) -> None:
    run = bench.run(
        bench.line(market=market(bench, tape)),
        at_bar(
            lambda s: s.order_target_size(target=30),
            lambda s: s.order_target_value(target=1000.0),
            lambda s: s.order_target_percent(target=0.00201),
        ),
    )
    assert [int(e.quantity) * e.side.sign for _, e in run.broker.executions] == [30, -20, 10]
    run.agree()


def test_positions_of_before_are_there_and_make_no_phantom_trade(
    bench: Bench, tape: type[Tape], at_bar: Any
) -> None:
    line = bench.line(market=market(bench, tape))
    line.step(bench.opening(30))
    line.place_elsewhere("BUY", 50, AAPL)
    line.place_elsewhere("SELL", 20, IBM)
    line.step(bench.opening(45))

    def close(strategy: Any) -> list[Any]:
        assert strategy.position.size == 50
        assert strategy.position.price == pytest.approx(100.01)
        return [strategy.close(), strategy.close(strategy.datas[1])]

    run = bench.run(line, at_bar(close), feeds=[{"dataname": "AAPL"}, {"dataname": "IBM"}])
    strategy = run.strategy
    seeds = [clone for clone in strategy.clones if clone.p.simulated]
    assert [(o.data._name, o.executed.size, o.executed.price) for o in seeds] == [
        ("AAPL", 50, 100.01), ("IBM", -20, 49.99),
    ]  # fmt: skip
    closed = [trade for trade in strategy.trades if trade[0] == bt.Trade.Closed]
    # One trade each, opened where the position had been opened, and closed at the quote.
    assert [(size, pnl) for _, size, pnl, _, _ in closed] == [
        (0, pytest.approx(50 * (99.99 - 100.01))),
        (0, pytest.approx(20 * (49.99 - 50.01))),
    ]
    assert len([trade for trade in strategy.trades if trade[0] == bt.Trade.Open]) == 2
    # The run's own orders and executions are two; those of before are not among them.
    assert len(run.broker.executions) == 2
    assert run.broker.startingcash == pytest.approx(1_000_000 - 5000.5 - 1 + 999.8 - 1, abs=0.02)
    assert run.broker.getcash() == pytest.approx(float(run.account["cash"]["USD"]), abs=0.005)
    assert not any(p.size for p in run.broker.positions.values())


def test_other_clients_executions_move_the_position(bench: Bench, tape: type[Tape], at_bar: Any) -> None:
    line = bench.line(market=market(bench, tape))
    run = bench.run(
        line,
        at_bar(
            lambda s: line.place_elsewhere("BUY", 70, AAPL),
            lambda s: s.sell(size=70),
        ),
    )
    strategy = run.strategy
    (told,) = [args[0] for message, args, _ in strategy.messages if message == "external-execution"]
    assert (told.conid, told.side.value, int(told.quantity)) == (AAPL, "BUY", 70)
    assert run.broker.getposition(strategy.data).size == 0
    assert run.broker.getcash() == pytest.approx(float(run.account["cash"]["USD"]), abs=0.005)
    # It belongs to none of our orders.
    assert len(run.broker.executions) == 1


def test_analyzers_run_live(bench: Bench, tape: type[Tape], path: Any, at_bar: Any) -> None:
    prices = tape().every_second(480, path({0: 100.0, 100: 101.0, 200: 99.0, 300: 103.0}))
    run = bench.run(
        bench.line(market=bench.market(AAPL=prices)),
        at_bar(
            lambda s: s.buy(size=10),
            lambda s: s.close(),
            lambda s: s.sell(size=10),
            None,
            None,
            lambda s: s.close(),
        ),
        analyzers=[
            bt.analyzers.TradeAnalyzer,
            bt.analyzers.DrawDown,
            bt.analyzers.Returns,
            bt.analyzers.SQN,
            bt.analyzers.Transactions,
            bt.analyzers.TimeReturn,
            bt.analyzers.PositionsValue,
        ],
        cerebro={"stdstats": True},
    )
    by_name = {type(a).__name__: a.get_analysis() for a in run.strategy.analyzers}
    trades = by_name["TradeAnalyzer"]
    assert (trades.total.closed, trades.won.total, trades.lost.total) == (2, 1, 1)
    profit = 10 * (100.99 - 100.01) + 10 * (100.99 - 103.01) - 4.0
    assert trades.pnl.net.total == pytest.approx(profit, abs=0.02)
    assert run.broker.getvalue() - run.broker.startingcash == pytest.approx(profit, abs=0.02)
    assert by_name["SQN"]["trades"] == 2
    assert sum(len(rows) for rows in by_name["Transactions"].values()) == 4
    assert by_name["DrawDown"]["max"]["moneydown"] > 0
    run.agree()


@pytest.mark.parametrize("exactbars", [False, 1])
def test_resampled_clone_can_be_traded(bench: Bench, tape: type[Tape], at_bar: Any, exactbars: int) -> None:
    """The market falls silent across an edge of the clone, whose bar then comes alone, when an order expires."""
    prices = tape().every_second(130, lambda s: 100.0)
    prices.trade(305, 100.0).trade(370, 100.0).trade(430, 100.0)
    line = bench.line(market=bench.market(AAPL=prices))

    def resample(cerebro: Any) -> None:
        cerebro.resampledata(cerebro.datas[0], name="two", timeframe=bt.TimeFrame.Minutes, compression=2)

    def trade(strategy: Any) -> list[Any]:
        # Decided at second 120, expires at 250.
        far = {"exectype": bt.Order.Limit, "price": 50.0, "valid": timedelta(seconds=130)}
        return [strategy.buy(strategy.datas[1], size=10), strategy.buy(size=1, **far)]

    run = bench.run(
        line,
        at_bar(trade, lambda s: s.close(s.datas[1])),
        before=resample,
        cerebro={"exactbars": exactbars},
    )
    strategy = run.strategy
    assert [o.getstatusname() for o in strategy.orders] == ["Completed", "Expired", "Completed"]
    assert strategy.orders[0].data._name == "two"
    log = [entry[1:] for entry in strategy.log if entry[0] == "bar"]
    at = [(name, moment.strftime("%M:%S")) for name, moment in log]
    assert at.index(("two", "32:00")) < at.index(("AAPL", "33:00")) < at.index(("two", "34:00"))
    assert at.index(("two", "34:00")) < at.index(("AAPL", "36:00"))
    run.agree()
