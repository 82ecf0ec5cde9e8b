"""Cerebro for a run, and what is read off it afterwards."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import backtrader as bt

from bt_ibkr.app.loading import checked, load_strategy, strategy_parameters
from bt_ibkr.app.recording import RunListener, RunRecorder
from bt_ibkr.app.request import RunRequest
from bt_ibkr.app.result import (
    ExecutionRow,
    PositionRow,
    RecordingSummary,
    RunResult,
    order_row,
    utc_text,
)
from bt_ibkr.errors import BtIbkrError, RunFailedError
from bt_ibkr.feeds.times import epoch_ns
from bt_ibkr.store import IBKRStore

if TYPE_CHECKING:
    from bt_ibkr.recorder import RecorderCounts


def now_text() -> str:
    """Wall time, UTC, ISO 8601."""
    return datetime.now(tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def make_cerebro(request: RunRequest, listener: RunListener | None) -> tuple[Any, str]:
    """Cerebro with the strategy of the request, and the strategy's name."""
    strategy = load_strategy(request.strategy)
    parameters = strategy_parameters(strategy, list(request.assignments))
    cls = type("_Cerebro", (bt.Cerebro,), _hooks(listener)) if listener is not None else bt.Cerebro
    # Bar by bar in both modes: backtrader's other way fails where there are fewer bars than an indicator's period.
    cerebro = cls(quicknotify=True, stdstats=False, exactbars=False, runonce=False)
    cerebro.addstrategy(checked(strategy), **parameters)
    cerebro.addanalyzer(RunRecorder, _name="bt_ibkr_run", listener=listener)
    return cerebro, strategy.__name__


def _hooks(listener: RunListener) -> dict[str, Any]:
    def notify_data(self: Any, data: Any, status: int, *args: Any, **kwargs: Any) -> None:
        listener.on_data(data, data._getstatusname(status))

    def notify_store(self: Any, msg: Any, *args: Any, **kwargs: Any) -> None:
        listener.on_store(msg, args, kwargs)

    return {"notify_data": notify_data, "notify_store": notify_store}


def execute(cerebro: Any, result: RunResult) -> Any | None:
    """Run; a strategy's own exception, ``sys.exit()`` included, becomes a line of ``errors`` with its traceback."""
    try:
        strategies = cerebro.run()
    except (BtIbkrError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as problem:
        result.errors.append("".join(traceback.format_exception(problem)))
        raise RunFailedError(
            f"The strategy {result.strategy} raised {type(problem).__name__}: {problem}.",
            remedy="The session was closed. "
            + (
                "A strategy ends a run with self.env.runstop()."
                if isinstance(problem, SystemExit)
                else "The traceback tells where."
            ),
        ) from problem
    return strategies[0] if strategies else None


def ended(result: RunResult) -> RunResult:
    """``result``, with the time of its end."""
    result.ended = now_text()
    return result


def position_row(position: Any) -> PositionRow:
    """The row of a backtrader position."""
    return PositionRow(size=float(position.size), price=float(position.price))


def running_strategy(cerebro: Any) -> Any | None:
    """The strategy of a run that failed; ``None`` if it was not made."""
    strategies = getattr(cerebro, "runningstrats", None)
    return strategies[0] if strategies else None


def collect_orders(
    result: RunResult,
    orders: Iterable[Any],
    coid: Callable[[Any], str | None],
    order_id: Callable[[Any], str | None],
) -> None:
    """Rows of ``orders``."""
    for order in orders:
        result.orders.append(
            order_row(order, symbol=_symbol(order), coid=coid(order), order_id=order_id(order))
        )


def collect_counts(result: RunResult, strategy: Any) -> RunRecorder:
    """Counts that the recorder kept; the recorder."""
    recorder: RunRecorder = strategy.analyzers.getbyname("bt_ibkr_run")
    result.bars, result.trades = recorder.bars, recorder.trades
    return recorder


def missing_ticks(counts: RecorderCounts) -> list[str]:
    """What a recording that has ended lacks, in words."""
    found = []
    if counts.dropped:
        found.append(f"{counts.dropped} ticks are missing in the recording: the disk did not keep up.")
    if counts.waiting:
        why = f": {counts.problem}" if counts.problem else ""
        found.append(f"{counts.waiting} rows of the recording could not be written{why}.")
    return found


def collect_recording(result: RunResult, store: IBKRStore) -> None:
    """What was recorded, once the store is closed."""
    if store.recorder is None:
        return
    counts = store.recorder.counts()
    result.recording = RecordingSummary(
        folder=str(store.recorder.folder),
        ticks=counts.ticks,
        dropped=counts.dropped,
        bytes=counts.bytes,
        files=counts.files,
    )
    result.errors.extend(missing_ticks(counts))


def collect_backtest(result: RunResult, strategy: Any) -> None:
    """Orders, executions and counts that the recorder kept."""
    recorder = collect_counts(result, strategy)
    orders = [order for order in recorder.orders.values() if not order.p.simulated]
    collect_orders(result, orders, lambda order: None, lambda order: None)
    for number, (order, bit) in enumerate(recorder.fills, start=1):
        result.executions.append(
            ExecutionRow(
                execution_id=f"backtest-{number}",
                time=utc_text(_to_millisecond(epoch_ns(bit.dt))),
                symbol=_symbol(order),
                side="BUY" if bit.size > 0 else "SELL",
                size=abs(float(bit.size)),
                price=float(bit.price),
                commission=round(float(bit.openedcomm + bit.closedcomm), 6),
                order_ref=str(order.ref),
            )
        )


def _to_millisecond(time_ns: int) -> int:
    """backtrader's day numbers resolve 10 µs; bars and ticks stand at milliseconds."""
    return (time_ns + 500_000) // 1_000_000 * 1_000_000


def _symbol(order: Any) -> str:
    contract = getattr(order.data, "contract", None)
    return contract.symbol if contract is not None else str(order.data._name)
