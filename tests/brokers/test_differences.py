"""Where backtrader's own broker must differ from an exchange: the examples of docs/backtest-vs-live.md, measured."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.brokers import IBKRCommission

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

Limit, Stop = bt.Order.Limit, bt.Order.Stop
#: Minute of the fill (0 is the first), signed size, price, commission.
Row = tuple[int, float, float, float]
Compare = Callable[..., dict[str, list[Row]]]


def rows_of(strategy: Any, bench: Bench, *, backtest: bool) -> list[Row]:
    """Every execution of every order, in the order of the orders."""
    found = []
    for order in strategy.orders:
        for bit in order.executed.exbits:
            moment = bt.num2date(bit.dt)
            if backtest:
                # Stamped with the right edge of the bar.
                moment -= timedelta(minutes=1)
            minute = round(bench.epoch(moment) - bench.opening(0).timestamp(), 3) // 60
            found.append(
                (int(minute), bit.size, round(bit.price, 4), round(bit.openedcomm + bit.closedcomm, 2))
            )
    return found


@pytest.fixture
def compare(bench: Bench, scripted: type[Any], at_bar: Any) -> Compare:
    """One script on one tape: in a backtest, and live with both fill models."""

    def run(prices: Tape, *actions: Any, **settings: Any) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
        cerebro.adddata(
            bt.feeds.PandasData(dataname=prices.bars(60), timeframe=bt.TimeFrame.Minutes), name="AAPL"
        )
        cerebro.broker.setcash(settings.get("cash", 1_000_000.0))
        cerebro.broker.addcommissioninfo(IBKRCommission())
        cerebro.addstrategy(scripted, script=at_bar(*actions))
        (strategy,) = cerebro.run(runonce=False)
        found["backtest"] = rows_of(strategy, bench, backtest=True)
        files = bench.market(AAPL=prices)
        for fill in ("last", "quote"):
            live = bench.run(bench.line(market=files, fill=fill, **settings), at_bar(*actions))
            found[fill] = rows_of(live.strategy, bench, backtest=False)
            live.agree()
        return found

    return run


def bracket(strategy: Any) -> Any:
    return strategy.buy_bracket(size=10, exectype=bt.Order.Market, stopprice=98.0, limitprice=101.0)


def both(strategy: Any) -> list[Any]:
    return [
        strategy.buy(size=10, exectype=Limit, price=99.0),
        strategy.sell(size=10, exectype=Stop, price=98.8),
    ]


#: name: (price by second, orders by bar, fills in a backtest, with fill=last, with fill=quote). A quote stands 0.01
#: around the price from the second on, a trade of 100 follows half a second later.
CASES: dict[str, tuple[dict[int, float], list[Any], list[Row], list[Row], list[Row]]] = {
    "market": (
        {0: 100.0, 60: 100.5}, [lambda s: s.buy(size=10)],
        [(1, 10, 100.5, 1.0)], [(1, 10, 100.5, 1.0)], [(1, 10, 100.01, 1.0)],
    ),
    "stop that is jumped over": (
        {0: 100.0, 90: 98.5, 100: 101.0}, [lambda s: s.sell(size=10, exectype=Stop, price=99.0)],
        [(1, -10, 99.0, 1.0)], [(1, -10, 98.5, 1.0)], [(1, -10, 98.49, 1.0)],
    ),
    "limit that is passed": (
        {0: 100.0, 90: 98.5, 100: 101.0}, [lambda s: s.buy(size=10, exectype=Limit, price=99.0)],
        [(1, 10, 99.0, 1.0)], [(1, 10, 99.0, 1.0)], [(1, 10, 99.0, 1.0)],
    ),
    "limit that is only touched": (
        {0: 100.0, 90: 99.0, 100: 101.0}, [lambda s: s.buy(size=10, exectype=Limit, price=99.0)],
        [(1, 10, 99.0, 1.0)], [(1, 10, 99.0, 1.0)], [],
    ),
    "stop limit": (
        {0: 100.0, 90: 102.0, 100: 100.0},
        [lambda s: s.buy(size=10, exectype=bt.Order.StopLimit, price=101.0, plimit=101.5)],
        [(1, 10, 101.0, 1.0)], [(1, 10, 101.5, 1.0)], [(1, 10, 101.5, 1.0)],
    ),
    "trailing stop": (
        {0: 100.0, 70: 104.0, 80: 101.0, 90: 105.0, 100: 104.0},
        [lambda s: s.sell(size=10, exectype=bt.Order.StopTrail, trailamount=2.0)],
        [], [(1, -10, 101.0, 1.0)], [(1, -10, 100.99, 1.0)],
    ),
    "target in the bar of the entry": (
        {0: 100.0, 70: 102.0, 90: 100.0}, [bracket],
        [(1, 10, 100.0, 1.0)],
        [(1, 10, 100.0, 1.0), (1, -10, 101.0, 1.0)],
        [(1, 10, 100.01, 1.0), (1, -10, 101.0, 1.0)],
    ),
    "target before stop in one bar": (
        {0: 100.0, 130: 102.0, 150: 97.0, 170: 100.0}, [bracket],
        [(1, 10, 100.0, 1.0), (2, -10, 98.0, 1.0)],
        [(1, 10, 100.0, 1.0), (2, -10, 101.0, 1.0)],
        [(1, 10, 100.01, 1.0), (2, -10, 101.0, 1.0)],
    ),
    "stop before target in one bar": (
        {0: 100.0, 130: 97.0, 150: 102.0, 170: 100.0}, [bracket],
        [(1, 10, 100.0, 1.0), (2, -10, 98.0, 1.0)],
        [(1, 10, 100.0, 1.0), (2, -10, 97.0, 1.0)],
        [(1, 10, 100.01, 1.0), (2, -10, 96.99, 1.0)],
    ),
    "two orders in one bar": (
        {0: 100.0, 90: 98.5, 100: 100.0}, [both],
        [(1, 10, 99.0, 1.0), (1, -10, 98.8, 1.0)],
        [(1, 10, 99.0, 1.0), (1, -10, 98.5, 1.0)],
        [(1, 10, 99.0, 1.0), (1, -10, 98.49, 1.0)],
    ),
    "more than is shown": (
        {0: 100.0, 61: 100.1, 62: 100.2}, [lambda s: s.buy(size=1000)],
        [(1, 1000, 100.0, 5.0)],
        [(1, 1000, 100.0, 5.0)],
        [(1, 300, 100.01, 1.5), (1, 300, 100.01, 1.5), (1, 300, 100.11, 1.5), (1, 100, 100.21, 0.5)],
    ),
    "reversal": (
        {0: 100.0}, [lambda s: s.buy(size=100), lambda s: s.sell(size=200)],
        [(1, 100, 100.0, 1.0), (2, -200, 100.0, 2.0)],
        [(1, 100, 100.0, 1.0), (2, -200, 100.0, 1.0)],
        [(1, 100, 100.01, 1.0), (2, -200, 99.99, 1.0)],
    ),
    "at the close": (
        {0: 100.0, 90: 98.5, 200: 103.0}, [lambda s: s.buy(size=10, exectype=bt.Order.Close)],
        [], [(4, 10, 103.0, 1.0)], [(4, 10, 103.0, 1.0)],
    ),
    "bought on margin": (
        {0: 100.0}, [lambda s: s.buy(size=150)],
        [], [(1, 150, 100.0, 1.0)], [(1, 150, 100.01, 1.0)],
    ),
    "after the last bar": (
        {0: 100.0}, [None, None, None, None, lambda s: s.buy(size=10)],
        [], [], [(5, 10, 100.01, 1.0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_difference(compare: Compare, tape: type[Tape], path: Any, case: str) -> None:
    points, actions, backtest, last, quote = CASES[case]
    prices = tape().every_second(300, path(points), size=300)
    settings = {"cash": 10_000.0} if case == "bought on margin" else {}
    assert compare(prices, *actions, **settings) == {"backtest": backtest, "last": last, "quote": quote}


def test_document_tells_every_case() -> None:
    """The table of the document is this table."""
    document = (Path(__file__).resolve().parents[2] / "docs" / "backtest-vs-live.md").read_text()
    table = [line for line in document.splitlines() if line.startswith("| ")][1:]
    told = {
        cells[1].strip(): [cell.strip() for cell in cells[3:6]] for cells in (r.split("|") for r in table)
    }

    def words(rows: list[Row]) -> str:
        return (
            "; ".join(f"{size:+g} at {price:g} (minute {minute})" for minute, size, price, _ in rows)
            or "none"
        )

    assert told == {name: [words(rows) for rows in case[2:]] for name, case in CASES.items()}
