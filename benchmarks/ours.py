"""The product as a user runs it: store, feeds, cerebro.

Without request pacing, which costs a second at the start of each run and nothing afterwards.
"""

from __future__ import annotations

import backtrader as bt
from bare import Counter, new_cerebro
from scenario import Outcome, Scenario

from bt_ibkr.config import SessionSettings
from bt_ibkr.store import IBKRStore


def run(scenario: Scenario, url: str) -> Outcome:
    """One run."""
    cerebro = new_cerebro()
    timeframe = bt.TimeFrame.Minutes if scenario.kind == "bars" else bt.TimeFrame.Ticks
    with IBKRStore(settings=SessionSettings(base_url=url, paced=False, tick_backlog=1_000_000)) as store:
        for index in range(scenario.feeds):
            cerebro.adddata(
                store.getdata(dataname=f"B{index}-STK-SMART-USD", timeframe=timeframe, backfill_start=False)
            )
        cerebro.addstrategy(Counter, scenario=scenario)
        (counter,) = cerebro.run()
    outcome: Outcome = counter.outcome()
    return outcome
