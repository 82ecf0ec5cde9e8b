"""What a feed refuses, in words that help."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.brokers import IBKRCommission
from bt_ibkr.errors import (
    AmbiguousContractError,
    BtIbkrError,
    ContractError,
    ContractNotFoundError,
    UsageError,
)
from bt_ibkr.feeds import IBKRData
from bt_ibkr.store import IBKRStore

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape


@pytest.mark.parametrize(
    ("feed", "kind", "text"),
    [
        ({"timeframe": bt.TimeFrame.Years}, UsageError, "bars of timeframe Years are not built"),
        ({"timeframe": bt.TimeFrame.Days, "compression": 2}, UsageError, "bars of 2 Days are not built"),
        ({"compression": 0}, UsageError, "compression=0 is no number of units"),
        ({"compression": -1}, UsageError, "compression=-1 is no number of units"),
        ({"compression": 1.5}, UsageError, "compression=1.5 is no number of units"),
        ({"backfill_bars": -5, "backfill_start": True}, UsageError, "backfill_bars=-5 is no number of bars"),
        (
            {"backfill_bars": "x", "backfill_start": True},
            UsageError,
            "backfill_bars='x' is no number of bars",
        ),
        ({"empty_bars": "fill"}, UsageError, "empty_bars='fill' is not known"),
        ({"corrections": "yes"}, UsageError, "corrections='yes' is not known"),
        ({"timeframe": bt.TimeFrame.Seconds, "corrections": "report"}, UsageError, "needs official bars"),
        ({"tz": "Nowhere/Else"}, UsageError, "tz='Nowhere/Else' is no time zone"),
        ({"extra": ("bid", "bids")}, UsageError, "no line 'bids'"),
        ({"timeframe": bt.TimeFrame.NoTimeFrame}, UsageError, "not built"),
        ({"timeframe": bt.TimeFrame.Ticks, "historical": True}, UsageError, "no historical ticks"),
        ({"timeframe": bt.TimeFrame.Seconds, "historical": True}, UsageError, "no historical bars of 1 s"),
        ({"compression": 7, "historical": True}, UsageError, "no historical bars of 420 s"),
        ({"what": "FOO"}, UsageError, "what='FOO' is no price source"),
        ({"dataname": ""}, ContractError, "is empty"),
        ({"dataname": "   "}, ContractError, "is empty"),
        ({"dataname": None}, ContractError, "is empty"),
        ({"dataname": 265598}, ContractError, "dataname 265598 is no text"),
        ({"dataname": ["AAPL"]}, ContractError, "is no text"),
        ({"timeframe": 99}, UsageError, "timeframe=99 is none of backtrader's"),
        ({"timeframe": 0}, UsageError, "timeframe=0 is none of backtrader's"),
        ({"timeframe": -1}, UsageError, "timeframe=-1 is none of backtrader's"),
        ({"timeframe": "minutes"}, UsageError, "timeframe='minutes' is none of backtrader's"),
        ({"timeframe": None}, UsageError, "timeframe=None is none of backtrader's"),
        ({"useRTH": "no"}, UsageError, "useRTH='no' is neither True nor False"),
        ({"historical": "false"}, UsageError, "historical='false' is neither True nor False"),
        ({"backfill_start": "no"}, UsageError, "backfill_start='no' is neither True nor False"),
        ({"backfill": None}, UsageError, "backfill=None is neither True nor False"),
        ({"latethrough": 2}, UsageError, "latethrough=2 is neither True nor False"),
        ({"dataname": "AAPL-XYZ"}, ContractError, "no security type"),
        ({"dataname": "NOSUCH"}, ContractNotFoundError, "NOSUCH"),
    ],
)
def test_refusals(
    bench: Bench, tape: type[Tape], feed: dict[str, Any], kind: type[BtIbkrError], text: str
) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(60, lambda s: 100.0)))
    with pytest.raises(kind, match=text) as caught:
        bench.run(line, feeds=[{"dataname": "AAPL"} | feed])
    assert caught.value.remedy


def test_ambiguous_name_lists_what_there_is(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(60, lambda s: 100.0)))
    names = line.emulator.call(
        lambda server: [
            symbol
            for symbol in {i.contract.symbol for i in server.core.universe.all()}
            if sum(
                bool(i.contract.last_trade_date) and i.contract.exchange == "CME"
                for i in server.core.universe.by_symbol(symbol)
            )
            > 1
        ]
    )
    assert names
    with pytest.raises(AmbiguousContractError, match=r"is ambiguous.*conid:") as caught:
        bench.run(line, feeds=[{"dataname": f"{names[0]}-FUT-CME-USD"}])
    assert "conid" in caught.value.remedy


def test_feed_needs_a_store() -> None:
    with pytest.raises(UsageError, match="needs a store"):
        IBKRData(dataname="AAPL")


def test_feed_that_failed_to_start_leaves_the_session_closable() -> None:
    store = IBKRStore(gateway="http://127.0.0.1:9/v1/api")
    with pytest.raises(BtIbkrError, match=r"127\.0\.0\.1:9"):
        store.start()
    store.close()


def test_unknown_parameter_is_refused(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(60, lambda s: 100.0)))
    with pytest.raises(UsageError, match="IBKRData has no parameter backfil_start"):
        line.store.getdata(dataname="AAPL", backfil_start=False)
    with pytest.raises(UsageError, match="IBKRBroker has no parameter round_price"):
        line.store.getbroker(round_price=False)
    with pytest.raises(UsageError, match="IBKRCommission has no parameter scheme"):
        IBKRCommission(scheme="fixed")


PAST, FUTURE = datetime(2026, 3, 1), datetime(2027, 3, 1)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("feed", "text"),
    [
        ({"fromdate": "2026-03-01"}, "fromdate='2026-03-01' is no date"),
        ({"todate": "2026-03-01"}, "todate='2026-03-01' is no date"),
        ({"fromdate": 20260301}, "fromdate=20260301 is no date"),
        ({"fromdate": FUTURE, "historical": True}, "AAPL: fromdate lies in the future"),
        ({"fromdate": PAST, "todate": PAST, "historical": True}, "AAPL: fromdate is not before todate"),
        ({"fromdate": FUTURE}, "AAPL: fromdate lies in the future"),
        ({"fromdate": FUTURE, "todate": PAST}, "AAPL: fromdate is not before todate"),
        ({"todate": PAST}, "AAPL: todate lies in the past"),
    ],
)
def test_spans_that_cannot_be(bench: Bench, tape: type[Tape], feed: dict[str, Any], text: str) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(60, lambda s: 100.0)))
    with pytest.raises(UsageError, match=text) as caught:
        bench.run(line, feeds=[{"dataname": "AAPL"} | feed])
    assert "date" in caught.value.remedy


def test_a_live_feed_that_is_to_begin_soon(bench: Bench, tape: type[Tape]) -> None:
    """Started before the session it is for: what comes earlier is left out, and that it waits is told."""
    line = bench.line(market=bench.market(AAPL=tape().every_second(600, lambda s: 100.0 + s % 7)))
    begin = bench.opening(240).replace(tzinfo=None)
    run = bench.run(line, feeds=[{"dataname": "AAPL", "fromdate": begin}])
    assert run.strategy.rows["AAPL"][0][0] == begin
    assert ("begins-later", ("AAPL",)) in [(message, args) for message, args, _ in run.strategy.messages]


def test_history_without_a_beginning_is_so_many_bars(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=bench.market(AAPL=tape().every_second(1200, lambda s: 100.0 + s % 7)))
    line.step(bench.opening(1100))
    run = bench.run(line, feeds=[{"dataname": "AAPL", "historical": True, "backfill_bars": 5}])
    assert len(run.strategy.rows["AAPL"]) == 5
