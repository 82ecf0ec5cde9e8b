"""A strategy's process at a hub in another one."""

from __future__ import annotations

import backtrader as bt
import msgspec
from bare import Counter, new_cerebro
from owned import Owner
from scenario import Outcome, Scenario

from bt_ibkr.config import SessionSettings
from bt_ibkr.store import IBKRStore


class _Watched(Counter):
    """Looks at the hub's processor time when the first tick is there."""

    params = (("owner", None),)

    def __init__(self) -> None:
        super().__init__()
        self.began_ns = 0

    def start(self) -> None:
        """Nothing has been sent yet."""
        self.began_ns = self.p.owner.cpu_ns()


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
        cerebro.addstrategy(_Watched, scenario=scenario, owner=owner)
        (counter,) = cerebro.run()
        spent_ns = owner.cpu_ns() - counter.began_ns
    outcome: Outcome = counter.outcome()
    return msgspec.structs.replace(outcome, owner_cpu_ns=spent_ns)
