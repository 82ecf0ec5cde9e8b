"""Mode ``backtest``: stored bars and backtrader's own broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import backtrader as bt
import pandas as pd

from bt_ibkr.app.collect import (
    collect_backtest,
    ended,
    execute,
    make_cerebro,
    now_text,
    position_row,
    running_strategy,
)
from bt_ibkr.app.market import BarLength, market_bars
from bt_ibkr.app.recording import RunListener
from bt_ibkr.app.request import RunRequest, Stopper, emulator_settings, instruments_of, timeframe_of
from bt_ibkr.app.result import RunResult
from bt_ibkr.app.stored_feeds import check_request, stored_feeds
from bt_ibkr.brokers import IBKRCommission
from bt_ibkr.errors import BtIbkrError, UsageError
from bt_ibkr.model.contract import Contract


def run_backtest(
    request: RunRequest, listener: RunListener | None = None, stopper: Stopper | None = None
) -> RunResult:
    """Over the bars of the same market that ``run_sim`` would play, with backtrader's own broker."""
    cerebro, name = make_cerebro(request, listener)
    result = RunResult(
        mode="backtest", strategy=name, started=now_text(), start_cash=request.cash, start_value=request.cash
    )
    if request.history:
        check_request(request)
        feeds = stored_feeds(request)
    else:
        feeds = _market_feeds(request)
    for contract, data in feeds:
        cerebro.adddata(data, name=contract.symbol)
        cerebro.broker.addcommissioninfo(
            IBKRCommission(
                schedule=request.commission,
                security_type=contract.security_type.value,
                mult=contract.multiplier,
            ),
            name=contract.symbol,
        )
    cerebro.broker.setcash(request.cash)
    if stopper is not None:
        stopper.attach(cerebro.runstop)
    try:
        strategy = execute(cerebro, result)
    except BtIbkrError as problem:
        _read_off(result, cerebro, running_strategy(cerebro))
        problem.result = ended(result)  # type: ignore[attr-defined]
        raise
    _read_off(result, cerebro, strategy)
    return ended(result)


def _market_feeds(request: RunRequest) -> Iterator[tuple[Contract, Any]]:
    """Contract and feed of everything that the run follows, of the market that the emulator would play."""
    settings = emulator_settings(request)
    bar = BarLength.parse(request.bar)
    instruments = instruments_of(request, settings)
    wanted = tuple(i.contract.conid for _, i in instruments)
    bars = market_bars(settings, wanted, bar, request.start_ns, request.end_ns)
    for _, instrument in instruments:
        contract = instrument.contract
        rows = bars[contract.conid]
        if not rows:
            raise UsageError(
                f"There are no bars of {contract.symbol} between the bounds of this run.",
                remedy="Look at --from, --to and the days of the market.",
            )
        frame = pd.DataFrame(
            {
                "open": [b.open for b in rows],
                "high": [b.high for b in rows],
                "low": [b.low for b in rows],
                "close": [b.close for b in rows],
                "volume": [b.volume for b in rows],
                "openinterest": 0.0,
            },
            index=pd.to_datetime([b.end_ns for b in rows], unit="ns"),
        )
        yield contract, bt.feeds.PandasData(dataname=frame, **timeframe_of(bar))


def _read_off(result: RunResult, cerebro: Any, strategy: Any | None) -> None:
    if strategy is not None:
        collect_backtest(result, strategy)
    broker = cerebro.broker
    result.position = {d._name: position_row(broker.getposition(d)) for d in cerebro.datas}
    result.cash, result.value = float(broker.getcash()), float(broker.getvalue())
