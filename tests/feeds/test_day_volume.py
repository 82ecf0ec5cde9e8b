"""Ticks of a stock that seldom trades: a day's first trade is larger than half of the day before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.services.datanames import parse_dataname

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

_DAY_S = 86_400


def test_no_trade_of_a_new_day_is_lost(bench: Bench, tape: type[Tape]) -> None:
    prices = tape()
    days = [[100, 50], [120, 30], [400, 10], [410]]
    for number, sizes in enumerate(days):
        prices.quote(number * _DAY_S, 99.9, 100.1)
        for minute, size in enumerate(sizes):
            prices.trade(number * _DAY_S + 60 * minute + 5, 100.0 + number, size)
    line = bench.line(market=bench.market(AAPL=prices), smd_lifetime_s=0.0)
    market, store = line.lockstep(), line.store
    ticks = TickBacklog()
    with store:
        store.start()
        store.connection.subscribe_ticks(store.connection.resolve(parse_dataname("AAPL")), ticks)
        latest = time.monotonic() + 20
        while not market.done and time.monotonic() < latest:
            store.get_notifications()
        assert [tick.traded for tick in ticks if tick.traded] == [size for day in days for size in day]
