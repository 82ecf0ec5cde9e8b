"""The product as a user runs it: store, feeds, cerebro."""

from __future__ import annotations

import backtrader as bt
from bare import Counter, new_cerebro
from scenario import Outcome, Scenario

from bt_ibkr.store import IBKRStore


def run(scenario: Scenario, url: str) -> Outcome:
    """One run."""
    cerebro = new_cerebro()
    timeframe = bt.TimeFrame.Minutes if scenario.kind == "bars" else bt.TimeFrame.Ticks
    with IBKRStore(gateway=url) as store:
        for index in range(scenario.feeds):
            cerebro.adddata(
                store.getdata(dataname=f"B{index}-STK-SMART-USD", timeframe=timeframe, backfill_start=False)
            )
        cerebro.addstrategy(Counter, scenario=scenario)
        (counter,) = cerebro.run()
    outcome: Outcome = counter.outcome()
    return outcome
