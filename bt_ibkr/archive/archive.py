"""The archive: a folder with the series of any number of contracts."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import pandas as pd

from bt_ibkr.archive.columns import VALUES, Columns
from bt_ibkr.archive.files import write_bytes
from bt_ibkr.archive.ledger import Ledger
from bt_ibkr.archive.series import BAR_LENGTHS, SOURCES, Series, SeriesKey
from bt_ibkr.archive.spans import overlap
from bt_ibkr.config import state_directory
from bt_ibkr.errors import ArchiveError, UsageError

_FOLDER = re.compile(r"conid=(-?\d+)/bar=(\w+)/source=(\w+)(?:@([\w.]+))?/hours=(regular|all)")
#: In an archive of an emulator's bars.
_EMULATED = "_emulator.txt"
_EMULATED_TEXT = b"The bars in this archive were fetched from an emulator: they are none of IBKR's.\n"


def default_folder() -> Path:
    """``history`` in the directory where the program keeps its state (``BT_IBKR_HOME``)."""
    return state_directory() / "history"


class Archive:
    """Stored historical bars.

    Args:
        folder: Where; ``None`` for ``default_folder()``. It is made when something is stored.

    Raises:
        UsageError: The path is that of a file.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(
                f"{self.folder} is no folder.",
                remedy="An archive of history is a folder; name one with --dir.",
            )

    def series(self, key: SeriesKey) -> Series:
        """A series, which need not be there yet."""
        return Series(self.folder, key)

    def all(self) -> list[Series]:
        """Every series that is there, by contract, bar, source and hours."""
        found = []
        for ledger in sorted(self.folder.glob("conid=*/bar=*/source=*/hours=*/_series.json")):
            match = _FOLDER.fullmatch(ledger.parent.relative_to(self.folder).as_posix())
            if match and match[2] in BAR_LENGTHS and match[3] in SOURCES:
                key = SeriesKey(
                    conid=int(match[1]),
                    bar=match[2],
                    source=match[3],
                    exchange=match[4] or "",
                    regular_hours=match[5] == "regular",
                )
                found.append(self.series(key))
        return sorted(
            found,
            key=lambda one: (
                one.key.conid,
                one.key.bar_ns,
                one.key.source,
                one.key.exchange,
                one.key.hours,
            ),
        )

    def check_origin(self, *, emulated: bool) -> None:
        """Bars of an emulator and those of IBKR never share an archive: spans of the one would hide the other's.

        Args:
            emulated: The bars to be stored come from an emulator.

        Raises:
            ArchiveError: The bars that are there come from the other.
        """
        there = (self.folder / _EMULATED).exists()
        if there is emulated or (not there and not self.all()):
            return
        kinds = ("an emulator", "IBKR") if there else ("IBKR", "an emulator")
        raise ArchiveError(
            f"The archive {self.folder} holds bars of {kinds[0]}; these would come from {kinds[1]}.",
            remedy="Name another folder with --dir.",
        )

    def note_origin(self, *, emulated: bool) -> None:
        """As ``check_origin``; where nothing is stored yet it is noted. Raises as that, or where it cannot be."""
        self.check_origin(emulated=emulated)
        path = self.folder / _EMULATED
        if not emulated or path.exists():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ArchiveError(
                f"The folder {self.folder} cannot be made: {problem.strerror}.",
                remedy="Make its parent writable, or name another folder with --dir.",
            ) from None
        write_bytes(path, _EMULATED_TEXT)

    def find(
        self, name: str, bar: str = "", source: str = "", *, regular_hours: bool | None = None
    ) -> Series:
        """The one series that a name means, without asking IBKR.

        Args:
            name: ``AAPL``, what ``Contract.describe()`` makes, or ``conid:265598``. Bars of one exchange alone are
                named with it: ``AAPL@NASDAQ``, ``conid:265598@NASDAQ``.
            bar, source, regular_hours: Only series of these; empty, or ``None``, for any.

        Raises:
            ArchiveError: None is stored, or several are: the message lists them.
        """
        found = [
            (one, ledger)
            for one in self.all()
            if (not bar or one.key.bar == bar)
            and (not source or one.key.source == source)
            and (regular_hours is None or one.key.regular_hours is regular_hours)
            and (ledger := _ledger_of(one)) is not None
        ]
        wanted = name.strip().upper()
        named = [(one, ledger) for one, ledger in found if _is_meant(one.key, ledger, wanted)]
        if len(named) == 1:
            return named[0][0]
        if named:
            rows = "; ".join(describe(one, ledger) for one, ledger in named)
            raise ArchiveError(
                f"{name!r} means {len(named)} series of {self.folder}: {rows}.",
                remedy="Say which bar, source and hours, or name the contract as conid:NUMBER.",
            )
        near = difflib.get_close_matches(wanted, {ledger.contract.symbol for _, ledger in found}, n=3)
        raise ArchiveError(
            f"No such bars of {name!r} are stored in {self.folder}.",
            remedy=(f"Did you mean {', '.join(near)}? " if near else "")
            + "bt-ibkr history list shows what is; bt-ibkr history download fetches more.",
        )


def describe(series: Series, ledger: Ledger) -> str:
    """One series in a line."""
    key = series.key
    at = f"@{key.exchange}" if key.exchange else ""
    return f"{ledger.contract.describe()} (conid:{key.conid}{at}) {key.bar} {key.source}, {key.hours} hours"


def _ledger_of(series: Series) -> Ledger | None:
    """The ledger, where it can be read: another series that is damaged hides none."""
    try:
        return series.ledger()
    except ArchiveError:
        return None


def _is_meant(key: SeriesKey, ledger: Ledger, wanted: str) -> bool:
    contract = ledger.contract
    at = f"@{key.exchange}".upper() if key.exchange else ""
    return wanted in (f"{contract.symbol.upper()}{at}", contract.describe().upper(), f"CONID:{key.conid}{at}")


def read_whole(series: Series, start_ns: int = 0, end_ns: int = 1 << 62, *, holes: bool = False) -> Columns:
    """The bars that start in ``[start, end)``, of a series without holes there.

    Args:
        holes: Take a series that has some.

    Raises:
        ArchiveError: Something between the first and the last stored bar was never fetched, or is from before a
            split; or a file cannot be read.
    """
    ledger = series.ledger()
    if ledger is None:
        raise ArchiveError(f"Nothing is stored in {series.folder}.")
    if not holes:
        remedy = "Fetch it with bt-ibkr history download, or ask for a span without it."
        if old := overlap(ledger.unadjusted, (start_ns, end_ns)):
            raise ArchiveError(
                f"{describe(series, ledger)}: bars from {_day(old[0][0])} to {_day(old[-1][1])} were stored before a "
                "split, and are not adjusted for it.",
                remedy=remedy,
            )
        if gaps := ledger.holes(start_ns, end_ns):
            raise ArchiveError(
                f"{describe(series, ledger)}: nothing was fetched from {_day(gaps[0][0])} to {_day(gaps[0][1])}"
                + (f", nor in {len(gaps) - 1} more spans." if len(gaps) > 1 else "."),
                remedy=remedy,
            )
    return series.read(start_ns, end_ns)


def _day(time_ns: int) -> str:
    return str(pd.Timestamp(time_ns, tz="UTC"))[:16]


def read_frame(series: Series, start_ns: int = 0, end_ns: int = 1 << 62, *, holes: bool = False) -> Any:
    """The bars as a ``pandas.DataFrame``: ``start, open, high, low, close, volume`` by their right edge (UTC).

    Raises as ``read_whole``.
    """
    columns = read_whole(series, start_ns, end_ns, holes=holes)
    return frame_of(columns)


def frame_of(columns: Columns) -> Any:
    """Columns as a ``pandas.DataFrame``, see ``read_frame``."""
    index = pd.DatetimeIndex(columns.end.view("M8[ns]"), tz="UTC", name="end")
    values = {"start": pd.DatetimeIndex(columns.start.view("M8[ns]"), tz="UTC")}
    return pd.DataFrame(values | {name: getattr(columns, name) for name in VALUES}, index=index)
