"""An option chain as feeds, over sockets."""

from __future__ import annotations

from typing import Any

import backtrader as bt
import pytest

from bt_ibkr.errors import LinesError


class Prices(bt.Strategy):  # type: ignore[misc]
    """Keeps the last price of each feed."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        for data in self.datas:
            if len(data):
                self.seen[data._name] = data.close[0]


def month(store: Any) -> str:
    """The second month of Apple's options."""
    contracts = store.connection.chain(request(store, around=0))
    return sorted({str(one.last_trade_date)[:6] for one in contracts})[1]


def request(store: Any, **fields: Any) -> Any:
    from bt_ibkr.services.chains import ChainRequest
    from bt_ibkr.services.datanames import parse_dataname

    return ChainRequest(underlying=store.connection.resolve(parse_dataname("AAPL")), **fields)


def test_a_chain_is_a_feed_for_each_contract(bench: Any) -> None:
    made = bench.line(synthetic_instruments=("AAPL",))
    made.step(bench.opening(60))
    cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
    with made.store:
        made.store.start()
        told: list[tuple[int, int]] = []
        feeds = made.store.getchain(
            "AAPL",
            months=(month(made.store),),
            around=1,
            progress=lambda done, total: told.append((done, total)),
            feed={"timeframe": bt.TimeFrame.Minutes, "what": "BID", "backfill_start": False},
        )
        assert told
        assert told[-1][0] == told[-1][1]
        assert {key.right for key in feeds} == {"C", "P"}
        strikes = sorted({key.strike for key in feeds})
        assert len(strikes) == 3
        assert len(feeds) == 6 * len({key.expiry for key in feeds})
        for key, feed in feeds.items():
            assert feed._name == f"AAPL-OPT-SMART-USD-{key.expiry}-{key.strike:g}-{key.right}"
            cerebro.adddata(feed)
        cerebro.addstrategy(Prices)
        made.lockstep(int(bench.epoch(bench.opening(60 + 150)) * 1e9))
        (strategy,) = cerebro.run()
    assert len(strategy.seen) == len(feeds)
    for key, feed in feeds.items():
        if key.right == "C" and key.strike < strikes[-1]:
            other = next(f for k, f in feeds.items() if k == (key.expiry, strikes[-1], "C"))
            assert strategy.seen[feed._name] > strategy.seen[other._name]


def test_a_chain_beyond_the_lines_is_refused(bench: Any) -> None:
    made = bench.line(synthetic_instruments=("AAPL",), session={"market_data_lines": 4})
    made.step(bench.opening(60))
    with made.store:
        made.store.start()
        with pytest.raises(LinesError, match=r"AAPL.* has \d+ contracts, and 4 of 4 .*around"):
            made.store.getchain("AAPL", months=(month(made.store),), around=2)
        assert made.store.metrics().lines.free == 4
