"""A strategy that halts trading and closes its positions sees them closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import backtrader as bt

from bt_ibkr.model.trading import Trading
from tests.orders.world import World


def test_what_the_kill_switch_closes_is_closed_for_the_strategy_as_well(
    world: Callable[..., World],
) -> None:
    here = world()
    here.start()

    def trade(strategy: Any) -> None:
        strategy.buy(size=2)
        strategy.buy(size=2, exectype=bt.Order.Limit, price=90.0)

    here.program.do(trade)
    here.rest()
    assert here.program.do(lambda strategy: strategy.position.size) == 2
    here.program.do(lambda strategy: strategy.broker.halt("enough", flatten=True))
    here.until(lambda: here.program.do(lambda strategy: strategy.position.size) == 0)
    here.until(lambda: here.program.broker.trading_state.mode is Trading.HALTED)
    here.agree()
    assert [row["side"] for row in here.emulator.ledger()["orders"]] == ["BUY", "BUY", "SELL"]
    words = [word for word, *_ in here.program.strategy.messages]
    assert words.count("external-execution") == 1
