"""Which executions are recent."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.types import EmulatedExecution

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_EASTERN = ZoneInfo("America/New_York")


def recent_executions(core: Core, account: str | None, days: int) -> list[EmulatedExecution]:
    """Executions of the last ``days`` trading days (1 to 7), today's included, by New York's date."""
    first = datetime.fromtimestamp(core.now_ns // NS_PER_S, tz=_EASTERN).date()
    left = min(max(days, 1), 7) - 1
    while left > 0:
        first -= timedelta(days=1)
        left -= first.weekday() < 5
    start = datetime(first.year, first.month, first.day, tzinfo=_EASTERN)
    start_ns = int(start.timestamp()) * NS_PER_S
    return [one for one in core.engine.executions(account) if one.time_ns >= start_ns]
