"""A feed of stored history, for backtests: whole columns of an archive put into backtrader's lines at once."""

from __future__ import annotations

import logging
from array import array
from datetime import UTC, datetime
from typing import Any

import backtrader as bt

from bt_ibkr.archive import Archive, Columns
from bt_ibkr.archive.archive import read_whole
from bt_ibkr.archive.day_numbers import day_numbers
from bt_ibkr.archive.series import BAR_LENGTHS, Series, SeriesKey
from bt_ibkr.errors import UsageError
from bt_ibkr.feeds.little_memory import keep_little
from bt_ibkr.feeds.times import check_dates, ns_of
from bt_ibkr.model.contract import Contract
from bt_ibkr.store import refuse_unknown

_log = logging.getLogger(__name__)

_MINUTE_NS = 60_000_000_000
_DAY_NS = 1440 * _MINUTE_NS
_FOREVER_NS = 1 << 62
_LINES = ("open", "high", "low", "close", "volume")
#: ``timeframe`` and ``compression`` of bars of a day and longer.
_LONG = {"1d": bt.TimeFrame.Days, "1w": bt.TimeFrame.Weeks, "1m": bt.TimeFrame.Months}


def _timeframe(bar: str) -> tuple[int, int]:
    if bar in _LONG:
        return _LONG[bar], 1
    return bt.TimeFrame.Minutes, BAR_LENGTHS[bar] // _MINUTE_NS


def _text(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, tz=UTC):%Y-%m-%d %H:%M}"


class StoredData(bt.DataBase):  # type: ignore[misc]
    """Bars of an archive, stamped at their right edge in UTC, as those of the live feed are.

    Parameters, beside backtrader's own:

    - ``dataname``: ``AAPL``, ``AAPL-STK-SMART-USD`` or ``conid:265598``, as ``Archive.find`` takes it.
    - ``archive``: The archive's folder; ``None`` for the program's own.
    - ``bar``: IBKR's word for the length: ``1min`` … ``1d``; it sets ``timeframe`` and ``compression``.
    - ``source``: ``trades``, ``midpoint``, ``bid``, ``ask``, ``bid_ask``.
    - ``rth``: Of regular hours only (true), with extended ones (false), or whichever is stored (``None``).
    - ``holes``: Take a series in which something was never fetched.

    Raises:
        UsageError: A parameter is wrong; when it starts: nothing is stored between ``fromdate`` and ``todate``.
        ArchiveError: When it starts: no such series, or several; holes; a file that cannot be read.

    Attributes:
        contract: Whose bars they are, once started.
    """

    params: Any = (
        ("archive", None),
        ("bar", "1min"),
        ("source", "trades"),
        ("rth", None),
        ("holes", False),
    )

    def __init__(self, **unknown: Any) -> None:  # backtrader's metaclass takes the parameters
        refuse_unknown(type(self).__name__, unknown)
        super().__init__()
        if not self.p.dataname:
            raise UsageError("StoredData needs a dataname.", remedy="Name the instrument: dataname='AAPL'.")
        check_dates(str(self.p.dataname), fromdate=self.p.fromdate, todate=self.p.todate)
        # Refuses a length or source that IBKR does not have.
        key = SeriesKey(conid=0, bar=self.p.bar, source=self.p.source)
        self.p.timeframe, self.p.compression = _timeframe(key.bar)
        self.contract: Contract | None = None
        self._columns = Columns.empty()
        self._moments: Any = ()
        self._at = 0

    def start(self) -> None:
        """Read the columns."""
        super().start()
        series = Archive(self.p.archive).find(
            str(self.p.dataname), self.p.bar, self.p.source, regular_hours=self.p.rth
        )
        ledger = series.ledger()
        self.contract = None if ledger is None else ledger.contract
        # Dates of the user are in the feed's zone: a day more is read, and left out again by backtrader's bounds.
        wide_ns = _DAY_NS if self.p.tz is not None else 0
        start_ns = end_ns = 0
        if self.p.fromdate is not None:
            start_ns = max(ns_of(self.p.fromdate) - series.key.bar_ns - wide_ns, 0)
        if self.p.todate is not None:
            end_ns = ns_of(self.p.todate) + wide_ns
        self._columns = read_whole(series, start_ns, end_ns or _FOREVER_NS, holes=self.p.holes)
        self._check_span(series, start_ns, end_ns)
        self._moments = day_numbers(self._columns.end)
        self._at = 0

    def _check_span(self, series: Series, start_ns: int, end_ns: int) -> None:
        """Say so where the span that was asked for is not stored, or not all of it.

        Raises:
            UsageError: Nothing of it is stored.
        """
        ledger = series.ledger()
        if ledger is None or not ledger.covered or not (start_ns or end_ns):
            return
        first_ns, last_ns = ledger.covered[0][0], ledger.covered[-1][1]
        stored = f"bars are stored from {_text(first_ns)} to {_text(last_ns)}"
        if not self._columns.size:
            raise UsageError(
                f"{self.p.dataname}: no bars are stored between fromdate and todate; {stored}.",
                remedy="Ask for a span inside, or fetch it with bt-ibkr history download.",
            )
        # Days are asked for, and what is stored begins and ends with a session.
        late = bool(start_ns) and not ledger.begins_ns and start_ns + _DAY_NS < first_ns
        if late or end_ns > last_ns + _DAY_NS:
            _log.warning("stored-span-short dataname=%s stored=%s", self.p.dataname, f"{stored} (UTC)")

    def qbuffer(self, savemem: int = 0, replaying: bool = False) -> None:
        """Called where ``exactbars`` is 1."""
        keep_little(self, savemem, replaying)

    def preload(self) -> None:
        """All bars at once, where nothing wants to see them one by one."""
        lines = [self.lines.datetime, *(getattr(self.lines, name) for name in _LINES)]
        bounded = any(line.mode == line.QBuffer for line in lines)
        if bounded or self._filters or self._ffilters or self._barstack or self._tzinput or self._at:
            super().preload()
            return
        moments = self._moments
        wanted = (moments >= self.fromdate) & (moments <= self.todate)
        columns = self._columns if wanted.all() else self._columns.where(wanted)
        values = [moments[wanted], *(getattr(columns, name) for name in _LINES)]
        for line, column in zip(lines, values, strict=True):
            line.array.frombytes(column.tobytes())
        empty = bytes(8 * columns.size)
        filled = {id(line) for line in lines}
        for line in self.lines:
            if id(line) not in filled:
                line.array.extend(array("d", empty))
        self._at = self._columns.size
        self._last()
        self.home()

    def _load(self) -> bool:
        at = self._at
        if at >= self._columns.size:
            return False
        self._at = at + 1
        self.lines.datetime[0] = float(self._moments[at])
        for name in _LINES:
            getattr(self.lines, name)[0] = float(getattr(self._columns, name)[at])
        self.lines.openinterest[0] = 0.0
        return True
