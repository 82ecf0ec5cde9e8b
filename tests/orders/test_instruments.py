"""Fractions, money, currencies, options and futures: from ``buy()`` to the emulator's ledger and back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from tests.conftest import ACCOUNT

if TYPE_CHECKING:
    from tests.conftest import Bench, Line, Run, Tape

AAPL, CRUDE = 265598, 304037511
AtBar = Callable[..., Callable[[Any], None]]


def stock(bench: Bench, tape: type[Tape], size: float = 1000, seconds: int = 400) -> Line:
    """AAPL at 100, in the size given."""
    prices = tape().every_second(seconds, lambda second: 100.0, size=size)
    return bench.line(market=bench.market(AAPL=prices))


def held(run: Run) -> dict[int, Decimal]:
    rows = run.account["positions"].items()
    return {int(conid): Decimal(row["quantity"]) for conid, row in rows if Decimal(row["quantity"])}


def test_three_tenths_are_three_tenths(bench: Bench, tape: type[Tape], at_bar: AtBar) -> None:
    def at(price: float) -> dict[str, Any]:
        return {"exectype": bt.Order.Limit, "price": price}

    quotes = tape()
    for second in range(0, 300, 10):
        # The bid wanders below the market, so that there are bars; the size at the touch is a tenth.
        quotes.quote(second, 50_000.0 - 0.25 * (second % 20 > 0), 50_000.25, 0.1)
    run = bench.run(
        bench.line(market=bench.market(BTC=quotes)),
        at_bar(lambda s: s.buy(size=0.3, **at(50_000.25)), lambda s: s.sell(size=0.3, **at(50_000.0))),
        feeds=[{"dataname": "conid:479624278@PAXOS", "what": "BID"}],
    )
    bought, sold = run.strategy.orders
    assert run.strategy.statuses(bought) == [
        "Submitted", "Accepted", "Partial 0.1", "Partial 0.1", "Completed 0.1",
    ]  # fmt: skip
    assert (bought.executed.size, bought.executed.remsize) == (0.3, 0)
    assert run.strategy.statuses(sold)[-1] == "Completed -0.1"
    assert run.broker.getposition(run.strategy.data).size == 0
    assert held(run) == {}
    run.agree()


def test_money_instead_of_a_size(bench: Bench, tape: type[Tape], at_bar: AtBar) -> None:
    run = bench.run(stock(bench, tape), at_bar(lambda s: s.buy(size=1, cash_qty=250)))
    (order,) = run.strategy.orders
    assert order.getstatusname() == "Completed"
    assert order.executed.size == float(held(run)[AAPL])
    assert order.executed.size * order.executed.price == pytest.approx(250, abs=0.05)
    run.agree()


@pytest.mark.parametrize("convert", [False, True])
def test_currency_pairs(bench: Bench, tape: type[Tape], at_bar: AtBar, convert: bool) -> None:
    quotes = tape()
    for second in range(0, 300, 2):
        quotes.quote(second, 1.1 + second / 1e5, 1.10005 + second / 1e5, 1_000_000)
    line = bench.line(market=bench.market(EUR_USD=quotes))
    extra = {"fx_qty": 22_000, "currency_conversion": True} if convert else {}
    run = bench.run(
        line, at_bar(lambda s: s.buy(size=20_000, **extra), None), feeds=[{"dataname": "EUR.USD"}]
    )
    (order,) = run.strategy.orders
    assert order.getstatusname() == "Completed"
    cash = {name: float(value) for name, value in run.account["cash"].items()}
    assert cash["EUR"] == pytest.approx(order.executed.size, abs=0.01)
    assert run.broker.getposition(run.strategy.data).size == (0 if convert else 20_000)
    assert not run.broker.problems


def option_of(line: Line, conid: int, day: date, strike: float, right: str) -> int:
    """The conid of an option, which the emulator makes when it is asked for."""

    def find(server: Any) -> int:
        universe = server.core.universe
        return int(universe.chains.option(universe.by_conid(conid), day, strike, right).contract.conid)

    return line.emulator.call(find)


@pytest.fixture
def call(bench: Bench, tape: type[Tape]) -> tuple[Line, str, int]:
    """A call on AAPL at 230, with a strike of 220."""
    prices = tape().every_second(900, lambda second: 230.0 + second % 7 / 100)
    line = bench.line(market=bench.market(AAPL=prices))
    conid = option_of(line, AAPL, date(2026, 3, 20), 220.0, "C")
    return line, f"conid:{conid}@SMART", conid


def test_options(bench: Bench, call: tuple[Line, str, int], at_bar: AtBar) -> None:
    line, name, conid = call
    run = bench.run(
        line,
        at_bar(lambda s: s.buy(size=2), None, lambda s: s.close()),
        feeds=[{"dataname": name, "what": "MIDPOINT"}],
    )
    bought, sold = run.strategy.orders
    assert [order.getstatusname() for order in run.strategy.orders] == ["Completed", "Completed"]
    paid = 200 * (bought.executed.price - sold.executed.price) + bought.executed.comm + sold.executed.comm
    assert run.broker.getcash() == pytest.approx(1_000_000 - paid)
    assert held(run) == {}
    assert run.strategy.data.contract.conid == conid
    run.agree()


@pytest.mark.parametrize(
    ("how", "side", "shares"), [("exercise", "buy", 200), ("assignment", "sell", -200), ("expiry", "buy", 0)]
)
def test_options_that_end_are_no_trade(
    bench: Bench, call: tuple[Line, str, int], at_bar: AtBar, how: str, side: str, shares: int
) -> None:
    line, name, conid = call

    def end(strategy: Any) -> None:
        line.control.post("/exercise", {"conid": conid, "account": ACCOUNT, "quantity": 2, "how": how})
        line.store.connection.reconcile(ACCOUNT)

    run = bench.run(
        line,
        at_bar(lambda s: getattr(s, side)(size=2), None, end, None, None),
        feeds=[{"dataname": name, "what": "MIDPOINT"}, {"dataname": "AAPL"}],
    )
    (order,) = run.strategy.orders
    option, apple = run.strategy.datas
    assert order.getstatusname() == "Completed"
    assert run.broker.getposition(option).size == 0
    assert run.broker.getposition(apple).size == shares
    assert held(run) == ({AAPL: Decimal(shares)} if shares else {})
    # Told as differences with both sides; no execution was made up for them.
    told = [message for message in run.strategy.messages if message[0] == "position-difference"]
    assert len(told) == (2 if shares else 1)
    assert len(run.broker.executions) == len(run.ledger["executions"]) == 1
    if shares > 0:
        assert run.broker.getposition(apple).price == pytest.approx(220.0)
    assert not run.broker.problems


@pytest.mark.parametrize("given", [{}, {"manual_indicator": True, "ext_operator": "desk 7"}])
def test_orders_on_futures_say_who_entered_them(
    bench: Bench, tape: type[Tape], at_bar: AtBar, given: dict[str, Any]
) -> None:
    prices = tape().every_second(300, lambda second: 70.0, size=50)
    line = bench.line(market=bench.market(CLX6=prices))
    far = {"exectype": bt.Order.Limit, "price": 60.0} | given

    def change(strategy: Any) -> None:
        strategy.broker.modify(strategy.orders[0], price=61.0)

    def withdraw(strategy: Any) -> None:
        strategy.cancel(strategy.orders[0])

    run = bench.run(
        line,
        at_bar(
            lambda s: s.buy(size=1, **far),
            change,
            withdraw,
            lambda s: s.sell(size=1, **given),
        ),
        feeds=[{"dataname": f"conid:{CRUDE}@NYMEX"}],
    )
    assert [order.getstatusname() for order in run.strategy.orders] == ["Canceled", "Completed"]
    assert run.strategy.orders[0].created.price == 61.0
    assert run.broker.getposition(run.strategy.data).size == -1
    # Cash moves by profit and loss alone.
    assert run.broker.getcash() == pytest.approx(1_000_000 - run.strategy.orders[1].executed.comm)
    run.agree()


def months_of_crude(server: Any) -> list[date]:
    """When options on the future expire."""
    universe = server.core.universe
    return list(universe.chains.expiries(universe.by_conid(CRUDE), date(2026, 3, 2)))


def test_options_on_futures(bench: Bench, tape: type[Tape], at_bar: AtBar) -> None:
    prices = tape().every_second(300, lambda second: 70.0 + second % 5 / 100, size=50)
    line = bench.line(market=bench.market(CLX6=prices))
    days = line.emulator.call(months_of_crude)
    conid = option_of(line, CRUDE, days[0], 70.0, "P")
    run = bench.run(
        line,
        at_bar(lambda s: s.buy(size=1), lambda s: s.close()),
        feeds=[{"dataname": f"conid:{conid}@NYMEX", "what": "MIDPOINT"}],
    )
    assert [order.getstatusname() for order in run.strategy.orders] == ["Completed", "Completed"]
    assert run.strategy.data.contract.multiplier == 1000.0
    run.agree()
