"""Orders of every type, from next() to the exchange and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape


def once(action: Any, bar: int = 1) -> Any:
    """A script that acts at one bar; what it returns is kept in ``orders``."""

    def script(strategy: Any) -> None:
        if len(strategy) == bar:
            made = action(strategy)
            strategy.orders.extend(made if isinstance(made, list) else [made])

    return script


def test_market_order_fills_at_the_quote(bench: Bench, tape: type[Tape]) -> None:
    prices = tape().every_second(180, lambda s: 100.0)
    run = bench.run(bench.line(market=bench.market(AAPL=prices)), once(lambda s: s.buy(size=10)))
    strategy = run.strategy
    (order,) = strategy.orders
    assert strategy.statuses(order) == ["Submitted", "Accepted", "Completed 10"]
    assert order.executed.price == 100.01
    assert order.executed.comm == 1.0
    assert run.broker.getcash() == pytest.approx(1_000_000 - 1000.10 - 1.0)
    assert run.broker.getposition(strategy.data).size == 10
    assert run.broker.getposition(strategy.data).price == 100.01
    run.agree()
