"""Recordings of live ticks as a market: quotes, prints and day volumes as they were told, at the times they bear.

The format is described in docs/recording.md. Each row is the quote as a client saw it, so that a client of this
market sees the same frames in the same order. What a recording does not hold, this market does not have: quotes that
were repeated unchanged, prints of less than what one frame told, what traded while the stream was broken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.market.tape import RECORDED_COLUMNS, VALUE_COLUMNS, Floats, Ints, Tape
from bt_ibkr.emulator.types import Instrument, MarketEvent
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.errors import MarketFileError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.hours import exchange_zone

_FORMAT: Final = b"bt_ibkr.ticks"
_VERSION: Final = b"1"
_NAME = re.compile(r"([0-9a-f]+)-(\d+)-(\d+)\.parquet")
_PRICES: Final = ("bid", "ask", "last")
_STATE: Final = (*VALUE_COLUMNS, "volume")
_READ: Final = ["ts", "seq", "kind", *_STATE, "traded", "halted"]
#: An instrument whose first quote came so soon after the first of all had been subscribed to along with it.
_TOGETHER_NS: Final = 60 * NS_PER_S
_MOST_DECIMALS: Final = 8
_Bools = np.ndarray[Any, np.dtype[np.bool_]]


class _File(msgspec.Struct, frozen=True):
    path: Path
    session: str
    first: int
    last: int


def is_recording(path: Path) -> bool:
    """Whether a path names a recording, one of its instruments, or one of its files."""
    if path.is_dir():
        return True
    try:
        return (parquet.read_schema(path).metadata or {}).get(b"bt_ibkr.format") == _FORMAT
    except (OSError, pa.ArrowException):
        return False


def load_recording(path: Path, universe: Universe, name: str | None = None) -> Tape:
    """The tape of a recording; instruments that the universe does not have are added to it.

    Args:
        path: Folder of a recording, of one of its instruments or days, or one file.
        name: Only the instrument of this symbol, conid or folder.

    Raises:
        MarketFileError: There is no recording, it cannot be read, or it does not say which of two streams is meant.
    """
    parts: list[_Part] = []
    for contract, files in _chosen(path, name):
        if contract.legs:
            # A combo's quote follows from those of its legs.
            continue
        part = _Part(contract, files)
        if part.size:
            _join_universe(universe, part)
            parts.append(part)
    if not any(part.size > 1 for part in parts):
        raise MarketFileError(
            f"{path} holds no ticks that a market could play.",
            remedy="Record for longer, or name another one.",
        )
    opens_ns = min(int(part.times[0]) for part in parts)
    return _tape(parts, opens_ns)


def _tape(parts: Sequence[_Part], opens_ns: int) -> Tape:
    pictures = []
    for part in parts:
        if int(part.times[0]) - opens_ns <= _TOGETHER_NS:
            pictures.append(part.take_picture())
        part.adjust_volume()
    times = np.concatenate([part.times for part in parts])
    order = np.lexsort((np.concatenate([part.order for part in parts]), times))
    conids = np.concatenate([np.full(len(p.times), p.contract.conid, dtype=np.int64) for p in parts])
    columns = {
        name: np.concatenate([part.changes[name] for part in parts])[order]
        for name in (*VALUE_COLUMNS, *RECORDED_COLUMNS)
    }
    return Tape(times[order], conids[order], columns, opens_ns=opens_ns, pictures=pictures)


# -- files ---------------------------------------------------------------------------------------------


def _chosen(path: Path, name: str | None) -> Iterator[tuple[Contract, list[_File]]]:
    """The instruments asked for, each with its files in order."""
    found: dict[tuple[int, str], tuple[Contract, Path, list[Path]]] = {}
    for file in [path] if path.is_file() else sorted(path.rglob("*.parquet")):
        if _NAME.fullmatch(file.name) is None and file != path:
            continue
        contract = _contract(file)
        key = (contract.conid, contract.exchange)
        folder = file.parent if file.parent == path else file.parent.parent
        found.setdefault(key, (contract, folder, []))[2].append(file)
    if not found:
        raise MarketFileError(
            f"{path} holds no recording of ticks.", remedy="Recordings are made by bt-ibkr record."
        )
    wanted = (name or "").casefold().removeprefix("conid:")
    chosen = [
        one
        for one in found.values()
        if not wanted or wanted in (one[0].symbol.casefold(), str(one[0].conid), one[1].name.casefold())
    ]
    if not chosen:
        known = ", ".join(sorted(one[1].name for one in found.values()))
        raise MarketFileError(f"{path} holds {known}, but not {name}.", remedy="Name one of these.")
    conids = [one[0].conid for one in chosen]
    for contract, folder, _ in chosen:
        if conids.count(contract.conid) > 1:
            raise MarketFileError(
                f"{path} holds {contract.symbol} (conid {contract.conid}) of several exchanges; a market has one.",
                remedy=f"Name which: {path}:{folder.name}.",
            )
    for contract, _, files in chosen:
        yield contract, _in_order(files)


def _contract(file: Path) -> Contract:
    try:
        told: Mapping[bytes, bytes] = parquet.read_schema(file).metadata or {}
    except (OSError, pa.ArrowException) as problem:
        raise MarketFileError(
            f"{file} cannot be read: {problem}.", remedy="Leave the file out; what it held is lost."
        ) from None
    if told.get(b"bt_ibkr.format") != _FORMAT or told.get(b"bt_ibkr.version") != _VERSION:
        version = told.get(b"bt_ibkr.version", b"none").decode("utf-8", "replace")
        raise MarketFileError(
            f"{file} is no recording of ticks of format version 1 (it says {version}).",
            remedy="Read it with the version of bt_ibkr that made it, or leave it out.",
        )
    try:
        return msgspec.json.decode(told[b"bt_ibkr.contract"], type=Contract)
    except (KeyError, msgspec.DecodeError) as problem:
        raise MarketFileError(
            f"{file}: its metadata bt_ibkr.contract cannot be read: {problem}.", remedy="Leave the file out."
        ) from None


def _in_order(paths: Sequence[Path]) -> list[_File]:
    """By session and row; a file whose rows a larger one holds as well is left out."""
    files = []
    for path in paths:
        named = _NAME.fullmatch(path.name)
        files.append(
            _File(path, "", 0, 0) if named is None else _File(path, named[1], int(named[2]), int(named[3]))
        )
    # The largest of those that begin together comes first.
    files.sort(key=lambda file: (file.session, file.first, -file.last))
    kept: list[_File] = []
    for file in files:
        if not kept or kept[-1].session != file.session or file.last > kept[-1].last:
            kept.append(file)
    return kept


# -- rows ----------------------------------------------------------------------------------------------


class _Part:
    """The rows of one instrument that are quotes, as columns.

    Attributes:
        state: The quote as it stands after each row; NaN is not known.
        changes: The columns of the tape.
        order: Place in the recording, ascending over all instruments.
        breaks: Before this row something was not told.
    """

    def __init__(self, contract: Contract, files: Sequence[_File]) -> None:
        self.contract = contract
        tables = [_read(file.path) for file in files]
        sessions = sorted({file.session for file in files})
        ranks = np.concatenate(
            [
                np.full(len(t), sessions.index(f.session), dtype=np.int64)
                for f, t in zip(files, tables, strict=True)
            ]
        )
        seq = np.concatenate([_ints(table.column("seq")) for table in tables])
        kinds = np.concatenate([_kinds(table) for table in tables])
        quote = np.isin(kinds, ("tick", "picture"))
        # Sessions have a place each for more rows than any of them can have.
        self.order: Ints = (ranks * 2**40 + seq)[quote]
        times = np.concatenate([_ints(table.column("ts")) for table in tables])[quote]
        self.times: Ints = np.maximum.accumulate(times) if len(times) else times
        self.state = {
            name: np.concatenate([_standing(table.column(name)) for table in tables])[quote]
            for name in _STATE
        }
        self._traded: Floats = np.concatenate([_floats(table.column("traded")) for table in tables])[quote]
        self._halted: Floats = np.concatenate([_floats(t.column("halted").cast(pa.int8())) for t in tables])[
            quote
        ]
        dropped = np.concatenate([[False], (kinds == "dropped")[:-1]])[quote] if len(kinds) else quote
        pictures: _Bools = kinds[quote] == "picture"
        self._traded[pictures] = 0.0
        self.breaks: _Bools = pictures | dropped
        self.changes = self._changes()

    @property
    def size(self) -> int:
        return len(self.times)

    def _changes(self) -> dict[str, Floats]:
        printed = self._traded > 0
        found = {}
        for name in VALUE_COLUMNS:
            value = self.state[name]
            told = _changed(value)
            if name.startswith("last"):
                told |= printed
            found[name] = np.where(told, value, np.nan)
        found["traded"] = self._traded
        found["volume"] = self.state["volume"].copy()
        found["halted"] = np.where(_changed(self._halted), self._halted, np.nan)
        return found

    def take_picture(self) -> MarketEvent:
        """The first row, as the quote that stands when the market opens; it is no longer one of the rows."""
        values = [self.state[name][0] for name in _STATE]
        bid, bid_size, ask, ask_size, last, last_size, volume = (
            None if np.isnan(v) else float(v) for v in values
        )
        picture = MarketEvent(
            int(self.times[0]), self.contract.conid, bid, bid_size, ask, ask_size, last, last_size,
            traded=0.0, volume=volume, halted=float(self._halted[0]),
        )  # fmt: skip
        self.times, self.order, self.breaks = self.times[1:], self.order[1:], self.breaks[1:]
        self._first_volume = 0.0 if volume is None else volume
        self.changes = {name: column[1:] for name, column in self.changes.items()}
        return picture

    #: The day's volume before the first row.
    _first_volume = 0.0

    def adjust_volume(self) -> None:
        """Take out of the day's volume what was not told as traded: a client would count it as one trade."""
        volume = self.changes["volume"]
        if not len(volume):
            return
        before = np.concatenate([[self._first_volume], volume[:-1]])
        offset = np.zeros(len(volume))
        # A new day's volume begins with nothing taken out of it.
        for row in np.flatnonzero(self.breaks | (volume < before)):
            at = int(row)
            missed = 0.0
            if self.breaks[at]:
                shown_before = before[at] - (offset[at - 1] if at else 0.0)
                missed = volume[at] - shown_before - self.changes["traded"][at]
            offset[at:] = 0.0 if np.isnan(missed) else missed
        volume -= offset


def _read(path: Path) -> pa.Table:
    try:
        return parquet.read_table(path, columns=_READ, partitioning=None)
    except (OSError, pa.ArrowException, ValueError) as problem:
        raise MarketFileError(
            f"{path} cannot be read: {problem}.", remedy="Leave the file out; what it held is lost."
        ) from None


def _ints(column: Any) -> Ints:
    return np.array(column.cast(pa.int64()).to_numpy(), dtype=np.int64)


def _floats(column: Any) -> Floats:
    return np.array(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _kinds(table: pa.Table) -> Any:
    return np.array(table.column("kind").cast(pa.string()).to_pylist(), dtype=np.str_)


def _standing(column: Any) -> Floats:
    """The value that stands at each row; the first row tells all of them."""
    told = np.array(column.is_valid().to_numpy(), dtype=bool)
    rows = np.where(told, np.arange(len(told)), 0)
    return _floats(column)[np.maximum.accumulate(rows)]


def _changed(column: Floats) -> _Bools:
    before = np.concatenate([[np.nan], column[:-1]])
    changed: _Bools = (column != before) & ~(np.isnan(column) & np.isnan(before))
    return changed


# -- instruments -----------------------------------------------------------------------------------------

#: Sessions of what is not in the universe, at the exchange; those of stocks are the default.
_SESSIONS: Final = {
    SecurityType.FUTURE: ("17:00", "16:00"),
    SecurityType.FUTURE_OPTION: ("17:00", "16:00"),
    SecurityType.FOREX: ("17:15", "17:00"),
    SecurityType.CRYPTO: ("00:00", "00:00"),
}


def _join_universe(universe: Universe, part: _Part) -> None:
    """Let the universe have the part's instrument, with as many decimals as its prices need."""
    contract = part.contract
    instrument = universe.by_conid(contract.conid)
    decimals = max(_decimals(part.state[name]) for name in _PRICES)
    if instrument is not None:
        if decimals > instrument.price_decimals:
            universe.replace(msgspec.structs.replace(instrument, price_decimals=decimals))
        return
    opens, closes = _SESSIONS.get(contract.security_type, ("09:30", "16:00"))
    known = [price for name in ("last", "bid", "ask") for price in part.state[name][:1] if price > 0]
    universe.add(
        Instrument(
            contract=contract,
            valid_exchanges=(contract.exchange,),
            company_name=contract.company_name,
            is_us=contract.currency == "USD",
            reference_price=float(known[0]) if known else 100.0,
            quote_only=contract.security_type is SecurityType.FOREX,
            session_open=opens,
            session_close=closes,
            time_zone=exchange_zone(contract).key,
            price_decimals=decimals,
        )
    )


def _decimals(prices: Floats) -> int:
    """Digits behind the point that are needed to write all of them."""
    known = prices[~np.isnan(prices)]
    return next((n for n in range(_MOST_DECIMALS) if (np.round(known, n) == known).all()), _MOST_DECIMALS)
