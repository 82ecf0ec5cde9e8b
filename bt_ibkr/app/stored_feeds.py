"""Mode ``backtest`` over an archive of historical bars."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bt_ibkr.app.request import RunRequest
from bt_ibkr.archive import Archive, Series
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import ArchiveError, UsageError
from bt_ibkr.feeds import StoredData
from bt_ibkr.model.contract import Contract


def check_request(request: RunRequest) -> None:
    """Refuse what does not go with stored bars.

    Raises:
        UsageError: Something belongs to a market, is missing, or cannot be.
    """
    if request.market or request.universe or request.day:
        raise UsageError(
            "--market, --universe and --day make a market; --history reads stored bars.",
            remedy="Give one or the other.",
        )
    if not request.data:
        raise UsageError(
            "--history needs --data.", remedy="Name what is stored: bt-ibkr history list shows it."
        )
    if len(set(request.data)) < len(request.data):
        raise UsageError("--data names an instrument a second time.", remedy="Name each once.")
    if not Path(request.history).is_dir():
        raise UsageError(f"--history: {request.history!r} is no folder.", remedy="Name that of an archive.")
    if not 0 < request.cash < math.inf:
        raise UsageError(f"--cash {request.cash!r} cannot be traded with.", remedy="Give an amount above 0.")


def stored_feeds(request: RunRequest) -> Iterator[tuple[Contract, StoredData]]:
    """Contract and feed of everything that the run follows.

    Raises:
        ArchiveError: Something is not stored.
    """
    archive = Archive(request.history)
    for name in request.data:
        series = _series(archive, name, request.bar)
        ledger = series.ledger()
        if ledger is None:
            raise ArchiveError(f"Nothing is stored in {series.folder}.")
        data = StoredData(
            dataname=f"conid:{series.key.conid}",
            archive=archive.folder,
            bar=series.key.bar,
            rth=series.key.regular_hours,
            fromdate=_moment(request.start_ns),
            todate=_moment(request.end_ns),
        )
        yield ledger.contract, data


def _series(archive: Archive, name: str, bar: str) -> Series:
    """The series of trades, or of mid-prices where no trades are stored; with extended hours where both are."""
    word = bar.strip().lower()
    problem: ArchiveError | None = None
    for source in ("trades", "midpoint"):
        for regular in (False, True):
            try:
                return archive.find(name, word, source, regular_hours=regular)
            except ArchiveError as one:
                problem = problem or one
    assert problem is not None
    raise problem


def _moment(time_ns: int) -> datetime | None:
    return datetime.fromtimestamp(time_ns // NS_PER_S, tz=UTC).replace(tzinfo=None) if time_ns else None
