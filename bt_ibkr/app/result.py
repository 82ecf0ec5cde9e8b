"""What a run gives: orders, executions, position, cash, as one plain object."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """One order of a run. ``size`` is signed; ``order_id`` is IBKR's, ``None`` in a backtest."""

    ref: int
    coid: str | None
    order_id: str | None
    symbol: str
    side: str
    size: float
    type: str
    status: str
    filled: float
    avg_price: float | None
    reason: str | None = None


class ExecutionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One execution. ``time`` is UTC, ISO 8601; in a backtest the right edge of the bar it happened in."""

    execution_id: str
    time: str
    symbol: str
    side: str
    size: float
    price: float
    commission: float
    order_ref: str | None


class PositionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A position at the end."""

    size: float
    price: float


class OrderBooks(msgspec.Struct, frozen=True, kw_only=True):
    """What a run on an account leaves behind, by the journal.

    Attributes:
        journal: Its file.
        trading: ``active``, ``reducing`` or ``halted``; ``trading_by`` and ``trading_reason`` tell by whom and why.
        open: Keys of orders that stand at IBKR, of all strategies.
        unknown: Keys of orders of which it is not known whether they stand.
        differences: Between journal and IBKR, found when the run began, in words.
    """

    journal: str
    trading: str
    trading_by: str
    trading_reason: str
    open: tuple[str, ...]
    unknown: tuple[str, ...]
    differences: tuple[str, ...]


class RecordingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run recorded of its ticks.

    Attributes:
        ticks, dropped: Taken, and not taken because the disk did not keep up.
        bytes, files: On the disk, of this run.
    """

    folder: str
    ticks: int
    dropped: int
    bytes: int
    files: int


class RunResult(msgspec.Struct, kw_only=True):
    """Everything a run has to tell, as ``--json`` prints it.

    Attributes:
        bars: Bars delivered to the strategy, of all instruments.
        position: By symbol; instruments that are flat have size 0.
        started, ended: Wall time, UTC, ISO 8601.
        errors: What went wrong, in words; empty for a clean run.
        books: Of a run on an account; left out otherwise.
        recording: Of a run whose ticks were recorded; left out otherwise.
    """

    mode: str
    strategy: str
    bars: int = 0
    orders: list[OrderRow] = []
    executions: list[ExecutionRow] = []
    position: dict[str, PositionRow] = {}
    cash: float = 0.0
    value: float = 0.0
    start_cash: float = 0.0
    start_value: float = 0.0
    trades: int = 0
    started: str = ""
    ended: str = ""
    errors: list[str] = []
    books: OrderBooks | msgspec.UnsetType = msgspec.UNSET
    recording: RecordingSummary | msgspec.UnsetType = msgspec.UNSET


def utc_text(time_ns: int) -> str:
    """ISO 8601 with milliseconds, or microseconds where there are any."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, tz=UTC)
    micro = time_ns // 1000 % 1_000_000
    moment = moment.replace(microsecond=micro)
    return moment.isoformat(timespec="microseconds" if micro % 1000 else "milliseconds").replace(
        "+00:00", "Z"
    )


def order_row(order: Any, *, symbol: str, coid: str | None, order_id: str | None) -> OrderRow:
    """The row of a backtrader order."""
    filled = float(order.executed.size)
    return OrderRow(
        ref=order.ref,
        coid=coid,
        order_id=order_id,
        symbol=symbol,
        side="BUY" if order.isbuy() else "SELL",
        size=abs(float(order.created.size)),
        type=order.getordername(),
        status=order.getstatusname(),
        filled=abs(filled),
        avg_price=float(order.executed.price) if filled else None,
        reason=str(order.info["reason"]) if "reason" in order.info else None,
    )
