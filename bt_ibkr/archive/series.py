"""One series: the bars of a contract, of one length, source and hours, in a folder of its own.

::

    conid=265598/bar=1min/source=trades/hours=all/2026-03.parquet     a month of bars (a year, or all, of longer ones)
                                                  _series.json        the ledger
                                                  _corrections.jsonl  bars that IBKR changed after they were stored

Bars of one exchange alone (``AAPL@NASDAQ``) are others than those of the whole market: ``source=trades@NASDAQ``.

Bars come first, the ledger after them: a process that dies in between leaves bars that are fetched once more and
found the same. Files are replaced whole, and writers wait for each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bt_ibkr.archive.columns import VALUES, Columns, Mask, differing, replaced
from bt_ibkr.archive.files import FileHead, append_line, check_columns, sweep, write_columns
from bt_ibkr.archive.ledger import (
    ADJUSTED,
    CORRECTIONS,
    LEDGER,
    NOT_ADJUSTED,
    Ledger,
    read_ledger,
    write_ledger,
)
from bt_ibkr.archive.lock import WriteLock
from bt_ibkr.archive.spans import Spans, overlap, subtract, union
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import ArchiveError, UsageError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.wire.history import BAR_WORDS

HOUR_NS: Final = 3600 * NS_PER_S
DAY_NS: Final = 24 * HOUR_NS
BAR_LENGTHS: Final = {word: length for length, word in BAR_WORDS.items()}
SOURCES: Final = ("trades", "midpoint", "bid", "ask", "bid_ask")
_EXCHANGE: Final = re.compile(r"[\w.]*")
#: Fewer bars that differ show no split.
_SPLIT_BARS: Final = 3
#: A split moves prices by more than that.
_SPLIT_LEAST: Final = 0.05
#: And all by the same ratio, but for rounding to the tick.
_SPLIT_SPREAD: Final = 0.02


class SeriesKey(msgspec.Struct, frozen=True, kw_only=True):
    """Which series.

    Attributes:
        bar: IBKR's word: ``1min``, ``1h``, ``1d`` …
        source: One of ``SOURCES``.
        regular_hours: Without extended hours.
        exchange: Whose trades and quotes alone; empty for those of the whole market, see ``one_exchange``.
    """

    conid: int
    bar: str
    source: str = "trades"
    regular_hours: bool = False
    exchange: str = ""

    def __post_init__(self) -> None:
        if self.bar not in BAR_LENGTHS:
            raise UsageError(
                f"{self.bar!r} is no length of IBKR's historical bars.",
                remedy=f"Lengths: {', '.join(BAR_LENGTHS)} (1m is a month).",
            )
        if self.source not in SOURCES:
            raise UsageError(
                f"{self.source!r} is no source of historical bars.", remedy=f"Sources: {', '.join(SOURCES)}."
            )
        if not _EXCHANGE.fullmatch(self.exchange):
            raise UsageError(f"{self.exchange!r} is no exchange.", remedy="Name one as NASDAQ.")

    @property
    def bar_ns(self) -> int:
        return BAR_LENGTHS[self.bar]

    @property
    def hours(self) -> str:
        return "regular" if self.regular_hours else "all"

    @property
    def folder(self) -> Path:
        """Below the archive's folder."""
        source = f"{self.source}@{self.exchange}" if self.exchange else self.source
        return Path(f"conid={self.conid}", f"bar={self.bar}", f"source={source}", f"hours={self.hours}")


def one_exchange(contract: Contract) -> str:
    """The exchange whose bars alone a contract's history is; empty where it is that of the whole market.

    A stock at ``NASDAQ`` has the conid of the one at ``SMART``, but other bars. What is traded at one place only, as
    a future, has no others.
    """
    if contract.exchange in ("", "SMART", "IDEALPRO"):
        return ""
    known = contract.valid_exchanges
    if "SMART" in known or (not known and contract.security_type is SecurityType.STOCK):
        return contract.exchange
    return "" if contract.exchange == (contract.listing_exchange or contract.exchange) else contract.exchange


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """A bar that was stored and is another now.

    Attributes:
        start_ns: Of the bar.
        old, new: Open, high, low, close, volume; ``None`` if there was, or is, no such bar.
    """

    start_ns: int
    old: tuple[float, ...] | None
    new: tuple[float, ...] | None


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What became of bars that were to be stored.

    Attributes:
        bars: Final ones, now in the archive.
        corrections: Bars that differ from what was stored before.
        split: Old prices divided by new ones, if all differ by one ratio: a split since; 0 if not.
    """

    bars: int
    corrections: tuple[Correction, ...] = ()
    split: float = 0.0


class Series:
    """A series in an archive; it need not be there yet.

    Args:
        root: The archive's folder.
        key: Which series.
    """

    def __init__(self, root: Path, key: SeriesKey) -> None:
        self.key = key
        self.folder = root / key.folder

    @property
    def exists(self) -> bool:
        return (self.folder / LEDGER).exists()

    def ledger(self) -> Ledger | None:
        """What is known of it; ``None`` if nothing is stored. Raises ``ArchiveError``."""
        return read_ledger(self.folder)

    def files(self) -> list[Path]:
        """The Parquet files, in order of time."""
        return sorted(self.folder.glob("*.parquet"))

    def read(self, start_ns: int = 0, end_ns: int = 1 << 62) -> Columns:
        """The bars that start in ``[start, end)``.

        Raises:
            ArchiveError: A file cannot be read, is damaged, or its order is not that of time.
        """
        first, last = self._name(max(start_ns, 0)), self._name(min(end_ns, (1 << 62)))
        parts = [
            check_columns(path).between(start_ns, end_ns)
            for path in self.files()
            if first <= path.stem <= last
        ]
        found = Columns.join(parts)
        if problem := found.problem():
            raise ArchiveError(f"{self.folder}: {problem}.", remedy="bt-ibkr history verify tells where.")
        return found

    def missing(self, start_ns: int, end_ns: int) -> Spans:
        """What of ``[start, end)`` has to be fetched: never stored, lost with its file, or from before a split.

        Raises:
            ArchiveError: The ledger cannot be read.
        """
        ledger = self.ledger()
        if ledger is None:
            return union([(start_ns, end_ns)])
        return self._sound(ledger, list(ledger.rows)).missing(start_ns, end_ns)

    def last_bar_ns(self) -> int:
        """End of the newest bar; 0 without bars."""
        for path in reversed(self.files()):
            columns = check_columns(path)
            if columns.size:
                return int(columns.end[-1])
        return 0

    def first_bar_ns(self) -> int:
        """Start of the oldest bar that can be read; 0 without bars."""
        for path in self.files():
            columns = self._read_sound([path.stem])
            if columns.size:
                return int(columns.start[0])
        return 0

    def store(
        self, contract: Contract, columns: Columns, start_ns: int, end_ns: int, *, now_ns: int, final_ns: int
    ) -> Stored:
        """Store all bars that start in ``[start, end)``, which replace those stored before.

        Args:
            contract: Whose they are.
            columns: Those bars, as IBKR tells them now; a forming one may be among them.
            now_ns: The present, for the record.
            final_ns: Bars that end later may still change, and are not stored; nor is anything after them known.

        Raises:
            ArchiveError: The disk does not take them; what was stored before is whole.
        """
        final, known_ns = self._final(columns.between(start_ns, end_ns), end_ns, final_ns)
        if known_ns <= start_ns:
            return Stored(bars=0)
        self._make_folder()
        with WriteLock(self.folder / ".lock"):
            sweep(self.folder)
            ledger = read_ledger(self.folder) or self._first_ledger(contract)
            names = self._names(final, start_ns, known_ns)
            ledger = self._sound(ledger, names)
            old = self._read_sound(names).between(start_ns, known_ns)
            corrections = _compare(old, final, ledger.covered)
            ratio = _split_ratio(old, final) if not overlap(ledger.unadjusted, (start_ns, known_ns)) else 0.0
            if ratio:
                ledger = ledger.split(start_ns, known_ns)
                corrections = ()
                self._log(
                    {"at": _text(now_ns), "split": ratio, "from": _text(start_ns), "to": _text(known_ns)}
                )
            elif overlap(ledger.unadjusted, (start_ns, known_ns)):
                corrections = ()
            for one in corrections:
                self._log({"at": _text(now_ns), "bar": _text(one.start_ns), "old": one.old, "new": one.new})
            if final.size and final.start[0] < ledger.begins_ns:
                ledger = msgspec.structs.replace(ledger, begins_ns=0)
            rows = self._replace(ledger, names, final, start_ns, known_ns)
            write_ledger(self.folder, ledger.stored(start_ns, known_ns, now_ns, rows))
        return Stored(bars=final.size, corrections=corrections, split=ratio)

    def note_beginning(self, contract: Contract, begins_ns: int) -> bool:
        """No bar starts before ``begins_ns``: nothing older is asked for again.

        False, and nothing is noted, where an older one is stored.
        """
        self._make_folder()
        with WriteLock(self.folder / ".lock"):
            if 0 < self.first_bar_ns() < begins_ns:
                return False
            ledger = read_ledger(self.folder) or self._first_ledger(contract)
            write_ledger(self.folder, msgspec.structs.replace(ledger, begins_ns=begins_ns))
        return True

    def corrections(self) -> list[dict[str, object]]:
        """The log of bars that IBKR changed, oldest first; a line cut short by a crash is left out."""
        path = self.folder / CORRECTIONS
        found: list[dict[str, object]] = []
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                found.append(msgspec.json.decode(line, type=dict[str, object]))
            except msgspec.DecodeError:
                continue
        return found

    def _sound(self, ledger: Ledger, names: Iterable[str]) -> Ledger:
        """Without what was stored in those of the files that are gone or damaged."""
        lost = [
            self._bounds(name)
            for name in names
            if ledger.rows.get(name) and not self._read_sound([name]).size
        ]
        if not lost:
            return ledger
        return msgspec.structs.replace(ledger, covered=subtract(ledger.covered, lost))

    def _read_sound(self, names: Iterable[str]) -> Columns:
        """The bars of those files; one that is damaged counts as not there."""
        parts = []
        for name in names:
            try:
                columns = check_columns(self._path(name))
            except ArchiveError:
                continue
            if not columns.problem():
                parts.append(columns)
        return Columns.join(parts)

    def _names(self, final: Columns, start_ns: int, end_ns: int) -> list[str]:
        """The files that hold ``[start, end)``, or will, in order."""
        first, last = self._name(start_ns), self._name(end_ns - 1)
        there = {path.stem for path in self.files() if first <= path.stem <= last}
        days = np.unique(final.start // DAY_NS * DAY_NS)
        return sorted(there | {self._name(int(day)) for day in days})

    def _replace(
        self, ledger: Ledger, names: list[str], final: Columns, start_ns: int, end_ns: int
    ) -> dict[str, int]:
        """Write the files anew; how many bars each has then."""
        rows = {}
        for name in names:
            path = self._path(name)
            begin, stop = self._bounds(name)
            old = self._read_sound([name])
            if path.exists() and not old.size:
                path.replace(path.with_name(f"_{name}.damaged"))
            made = replaced(old, final.between(begin, stop), max(start_ns, begin), min(end_ns, stop))
            head = FileHead(
                contract=msgspec.to_builtins(ledger.contract), bar=ledger.bar, source=ledger.source,
                hours=ledger.hours, adjusted=ledger.adjusted,
            )  # fmt: skip
            write_columns(path, made, head)
            rows[name] = made.size
        return rows

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def _final(self, columns: Columns, end_ns: int, final_ns: int) -> tuple[Columns, int]:
        """The bars that no longer change, and until when all of them are known."""
        final = columns.where(columns.end <= final_ns)
        bar_ns = self.key.bar_ns
        if bar_ns < DAY_NS:
            known_ns = min(end_ns, final_ns // bar_ns * bar_ns)
        else:
            # The session under way has a bar that forms, or none yet.
            known_ns = min(end_ns, final_ns // DAY_NS * DAY_NS - bar_ns)
            known_ns = max(known_ns, min(end_ns, int(final.end[-1]))) if final.size else known_ns
        if final.size < columns.size:
            known_ns = min(known_ns, int(columns.start[columns.end > final_ns].min()))
        return final.where(final.start < known_ns), known_ns

    def _first_ledger(self, contract: Contract) -> Ledger:
        key = self.key
        adjusted = ADJUSTED.get(key.source, NOT_ADJUSTED)
        return Ledger(contract=contract, bar=key.bar, source=key.source, hours=key.hours, adjusted=adjusted)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ArchiveError(
                f"The folder {self.folder} cannot be made: {problem.strerror}.",
                remedy="Make its parent writable, or name another folder with --dir.",
            ) from None

    def _log(self, entry: dict[str, object]) -> None:
        append_line(self.folder / CORRECTIONS, msgspec.json.encode(entry))

    def _name(self, time_ns: int) -> str:
        """The file that holds bars which start then."""
        if self.key.bar_ns >= DAY_NS:
            return "all"
        moment = datetime.fromtimestamp(min(time_ns, 253_402_300_799 * NS_PER_S) // NS_PER_S, tz=UTC)
        return f"{moment:%Y-%m}" if self.key.bar_ns < HOUR_NS else f"{moment:%Y}"

    def _bounds(self, name: str) -> tuple[int, int]:
        """The span that a file holds."""
        if name == "all":
            return 0, 1 << 62
        year, _, month = name.partition("-")
        first = datetime(int(year), int(month or 1), 1, tzinfo=UTC)
        after = (first.year * 12 + first.month - 1) + (1 if month else 12)
        last = datetime(after // 12, after % 12 + 1, 1, tzinfo=UTC)
        return int(first.timestamp()) * NS_PER_S, int(last.timestamp()) * NS_PER_S


def _text(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // NS_PER_S, tz=UTC).isoformat().replace("+00:00", "Z")


def _compare(old: Columns, new: Columns, covered: Spans) -> tuple[Correction, ...]:
    """How bars stored before differ from those of now, where they were stored as final."""
    kept, both_old, both_new = np.intersect1d(old.start, new.start, assume_unique=True, return_indices=True)
    before, now = old.where(both_old), new.where(both_new)
    changed = differing(before, now)
    found = [
        Correction(start_ns=int(start), old=_row(before, int(place)), new=_row(now, int(place)))
        for place, start in zip(np.flatnonzero(changed), kept[changed], strict=True)
    ]
    found += [
        Correction(start_ns=int(old.start[place]), old=_row(old, int(place)), new=None)
        for place in np.flatnonzero(~np.isin(old.start, new.start))
    ]
    found += [
        Correction(start_ns=int(new.start[place]), old=None, new=_row(new, int(place)))
        for place in np.flatnonzero(_within(new, covered) & ~np.isin(new.start, old.start))
    ]
    return tuple(sorted(found, key=lambda one: one.start_ns))


def _within(columns: Columns, spans: Spans) -> Mask:
    found = np.zeros(columns.size, dtype=np.bool_)
    for start, end in spans:
        found |= (columns.start >= start) & (columns.start < end)
    return found


def _row(columns: Columns, place: int) -> tuple[float, ...]:
    return tuple(float(getattr(columns, name)[place]) for name in VALUES)


def _split_ratio(old: Columns, new: Columns) -> float:
    """Old prices divided by new ones, where all differ by one ratio; 0 if they do not."""
    _, both_old, both_new = np.intersect1d(old.start, new.start, assume_unique=True, return_indices=True)
    before, now = old.close[both_old], new.close[both_new]
    usable = (before > 0) & (now > 0)
    if usable.sum() < _SPLIT_BARS:
        return 0.0
    ratios = before[usable] / now[usable]
    middle = float(np.median(ratios))
    if abs(middle - 1) < _SPLIT_LEAST or (np.abs(ratios / middle - 1) > _SPLIT_SPREAD).mean() > 0.1:
        return 0.0
    return round(middle, 4) if middle >= 1 else round(middle, 6)
