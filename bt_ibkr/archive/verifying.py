"""Whether a series is whole: files, order, what was fetched, and holes inside trading days."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np

from bt_ibkr.archive.columns import Columns, Ints
from bt_ibkr.archive.files import check_columns
from bt_ibkr.archive.ledger import Ledger
from bt_ibkr.archive.series import DAY_NS, Series
from bt_ibkr.archive.spans import overlap
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import ArchiveError
from bt_ibkr.model.hours import exchange_zone

_MINUTE_NS = 60 * NS_PER_S
#: An instrument trades in this share of the bars of its days, or missing bars say nothing.
_LIQUID = 0.9
#: So many bars, and so much time, without a bar in the middle of a day are a gap.
_GAP_BARS = 15
_GAP_NS = 15 * _MINUTE_NS
#: Gaps told one by one.
_TOLD = 20


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        problems: What is not as it must be, in words; empty if the series is whole.
        bars, files: How many there are.
        first_ns, last_ns: Start of the first bar, end of the last one; 0 without bars.
        gaps: Stretches inside trading days without bars, of an instrument that trades all the time.
        corrections: Entries in the log of bars that IBKR changed.
    """

    problems: tuple[str, ...]
    bars: int = 0
    files: int = 0
    first_ns: int = 0
    last_ns: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    corrections: int = 0


def verify(series: Series, *, now_ns: int = 0, max_age_ns: int = 0) -> Verdict:
    """Look at every byte of a series.

    Args:
        now_ns, max_age_ns: The newest bar must not be older, unless ``max_age_ns`` is 0.
    """
    problems: list[str] = []
    try:
        ledger = series.ledger()
    except ArchiveError as problem:
        return Verdict(problems=(str(problem),))
    if ledger is None:
        return Verdict(problems=(f"Nothing is stored in {series.folder}.",))
    parts: list[Columns] = []
    there = {}
    for path in series.files():
        try:
            columns = check_columns(path)
        except ArchiveError as problem:
            problems.append(problem.message)
            continue
        if wrong := columns.problem():
            problems.append(f"{path.name}: {wrong}.")
        there[path.stem] = columns.size
        parts.append(columns)
    problems += [
        f"{name}.parquet {'has lost bars' if name in there else 'is missing or damaged'}: {rows} were stored."
        for name, rows in ledger.rows.items()
        if there.get(name, 0) < rows
    ]
    whole = Columns.join(parts)
    if not problems and (wrong := whole.problem()):
        problems.append(f"From one file to the next {wrong}.")
    problems += _spans(ledger, whole)
    gaps = _gaps(ledger, whole, series.key.bar_ns)
    problems += [
        f"No bars from {_text(start)} to {_text(end)}, inside a session." for start, end in gaps[:_TOLD]
    ]
    if len(gaps) > _TOLD:
        problems.append(f"{len(gaps) - _TOLD} more such gaps.")
    last_ns = int(whole.end.max()) if whole.size else 0
    if max_age_ns and now_ns - last_ns > max_age_ns:
        problems.append(
            f"The last bar ended at {_text(last_ns)}, {(now_ns - last_ns) / DAY_NS:.1f} days ago."
        )
    return Verdict(
        problems=tuple(problems),
        bars=whole.size,
        files=len(parts),
        first_ns=int(whole.start.min()) if whole.size else 0,
        last_ns=last_ns,
        gaps=gaps,
        corrections=len(series.corrections()),
    )


def _spans(ledger: Ledger, whole: Columns) -> list[str]:
    found = [f"Never fetched: {_text(start)} to {_text(end)}." for start, end in ledger.holes(0, 1 << 62)]
    found += [
        f"Stored before a split, and not fetched again since: {_text(start)} to {_text(end)}."
        for start, end in ledger.unadjusted
    ]
    known = [*ledger.covered, *ledger.unadjusted]
    if whole.size and not overlap(known, (int(whole.start[0]), int(whole.start[-1]) + 1)):
        found.append("The ledger knows of none of the bars.")
    return found


def _gaps(ledger: Ledger, whole: Columns, bar_ns: int) -> tuple[tuple[int, int], ...]:
    """Holes between the first and the last bar of a day, where days usually have none."""
    if bar_ns >= DAY_NS or whole.size < 2:
        return ()
    days = _days(whole.start, ledger)
    same = np.diff(days) == 0
    steps = np.diff(whole.start)
    inside = int((steps[same] // bar_ns).sum())
    if not inside or same.sum() / inside < _LIQUID:
        return ()
    long = same & (steps > max(_GAP_NS, _GAP_BARS * bar_ns))
    return tuple((int(whole.end[place]), int(whole.start[place + 1])) for place in np.flatnonzero(long))


def _days(starts: Ints, ledger: Ledger) -> Ints:
    """The exchange's day of each moment, as a number."""
    zone = exchange_zone(ledger.contract)
    hours, place = np.unique(starts // (3600 * NS_PER_S), return_inverse=True)
    ordinals = [datetime.fromtimestamp(int(hour) * 3600, tz=zone).toordinal() for hour in hours]
    return np.array(ordinals, dtype=np.int64)[place]


def _text(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // NS_PER_S, tz=UTC).strftime("%Y-%m-%d %H:%M") + " UTC"
