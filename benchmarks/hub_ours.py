"""A strategy's process at a hub in another one."""

from __future__ import annotations

import backtrader as bt
import msgspec
from bare import Counter, new_cerebro
from owned import Owner
from scenario import Outcome, Scenario

from bt_ibkr.config import SessionSettings
from bt_ibkr.store import IBKRStore


def run(scenario: Scenario, url: str) -> Outcome:
    """One run."""
    cerebro = new_cerebro()
    with (
        Owner("hub", url, scenario) as owner,
        IBKRStore(
            hub=owner.endpoint, name="bench", settings=SessionSettings(tick_backlog=1_000_000)
        ) as store,
    ):
        for index in range(scenario.feeds):
            data = store.getdata(
                dataname=f"B{index}-STK-SMART-USD", timeframe=bt.TimeFrame.Ticks, backfill_start=False
            )
            cerebro.adddata(data)
        cerebro.addstrategy(Counter, scenario=scenario)
        # The session is open, nothing is subscribed to.
        store.start()
        began_ns = owner.cpu_ns()
        (counter,) = cerebro.run()
        spent_ns = owner.cpu_ns() - began_ns
    outcome: Outcome = counter.outcome()
    return msgspec.structs.replace(outcome, owner_cpu_ns=spent_ns)
