"""What a file of recorded ticks holds: its columns, its metadata, its name.

A row is one tick. Of the quote only what changed is written: null leaves a value as it was, NaN says that it is no
longer known. The first row of each file is the whole quote, so that every file can be read by itself. ``last`` and
``last_size`` are also written where they are the same as before, if something traded: a row with a ``last`` and a
``traded`` above 0 is a print.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from bt_ibkr.errors import MarketFileError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.hours import exchange_zone, session_end_ns
from bt_ibkr.model.market import DataQuality, Tick

FORMAT: Final = "bt_ibkr.ticks"
VERSION: Final = 1

QUOTE_COLUMNS: Final = ("bid", "bid_size", "ask", "ask_size", "last", "last_size")
#: Written where they change, and at the head of a file.
CHANGING: Final = (*QUOTE_COLUMNS, "volume")
_OF_TRADES: Final = ("last", "last_size")
_TIME: Final = pa.timestamp("ns", tz="UTC")

COLUMNS: Final = pa.schema(
    [
        pa.field("ts", _TIME, nullable=False),
        pa.field("received", _TIME, nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("kind", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("conid", pa.int64(), nullable=False),
        *(pa.field(name, pa.float64()) for name in QUOTE_COLUMNS),
        pa.field("traded", pa.float64(), nullable=False),
        pa.field("volume", pa.float64()),
        pa.field("quality", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("halted", pa.bool_(), nullable=False),
        pa.field("snapshot", pa.bool_(), nullable=False),
        pa.field("exchange", _TIME),
        pa.field("extras", pa.map_(pa.string(), pa.float64())),
        pa.field("note", pa.string()),
    ]
)


class RowKind(StrEnum):
    """What a row stands for.

    ``tick`` is a change of the quote. ``picture`` is the first quote after the subscription began, or began again:
    what traded before it is not known from it. ``gap`` says that the stream broke and was whole until ``ts``,
    ``dropped`` that the recorder could not keep up, both with a ``note``. ``end`` says that the recording was ended
    at ``ts``, ``over`` that the market itself was over. The quote of rows other than ticks and pictures is what stood
    before.
    """

    TICK = "tick"
    PICTURE = "picture"
    GAP = "gap"
    DROPPED = "dropped"
    END = "end"
    OVER = "over"


#: Rows that are a quote.
QUOTES: Final = frozenset({RowKind.TICK, RowKind.PICTURE})


class RecordedTick(msgspec.Struct, frozen=True, gc=False):
    """A row as it is read.

    Attributes:
        seq: Place in the recording, over all of its instruments, in the order in which ticks arrived.
        tick: The quote after the row; of rows that are no quote, what stood before, at the row's own time.
        note: Of gaps and drops: what happened.
    """

    seq: int
    kind: RowKind
    tick: Tick
    note: str = ""


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a file's metadata tell.

    Attributes:
        contract: Whose ticks.
        dataname: As the instrument was named; may be empty.
        session: The run of a recorder that wrote it.
    """

    contract: Contract
    dataname: str
    session: str


def schema_of(info: FileInfo) -> pa.Schema:
    """The columns, with the metadata of a file."""
    told = {
        "bt_ibkr.format": FORMAT,
        "bt_ibkr.version": str(VERSION),
        "bt_ibkr.contract": msgspec.json.encode(info.contract).decode(),
        "bt_ibkr.dataname": info.dataname,
        "bt_ibkr.session": info.session,
    }
    return COLUMNS.with_metadata(told)


def info_of(schema: pa.Schema, path: Path) -> FileInfo:
    """What a file tells of itself.

    Raises:
        MarketFileError: It is no recording, or one of a later version.
    """
    told: Mapping[bytes, bytes] = schema.metadata or {}
    if told.get(b"bt_ibkr.format") != FORMAT.encode():
        raise MarketFileError(
            f"{path} is no recording of ticks.", remedy="Recordings are made by bt-ibkr record."
        )
    version = told.get(b"bt_ibkr.version", b"").decode("utf-8", "replace")
    if version != str(VERSION):
        raise MarketFileError(
            f"{path} is a recording of format version {version!r}; this program reads version {VERSION}.",
            remedy="Read it with the version of bt_ibkr that made it, or a later one.",
        )
    try:
        contract = msgspec.json.decode(told[b"bt_ibkr.contract"], type=Contract)
    except (KeyError, msgspec.DecodeError, ValueError) as problem:
        raise MarketFileError(
            f"{path}: its metadata bt_ibkr.contract cannot be read: {problem}.", remedy="Leave the file out."
        ) from None
    return FileInfo(
        contract=contract,
        dataname=told.get(b"bt_ibkr.dataname", b"").decode(),
        session=told.get(b"bt_ibkr.session", b"").decode(),
    )


# -- names ---------------------------------------------------------------------------------------------


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A file by its name: a stretch of one instrument's rows in one session."""

    path: Path
    session: str
    first: int
    last: int


_PART = re.compile(r"([0-9a-f]+)-(\d{10,})-(\d{10,})\.parquet")


def part_name(session: str, first: int, last: int) -> str:
    """The name of a file with the rows ``first`` to ``last`` of a session."""
    return f"{session}-{first:010d}-{last:010d}.parquet"


def part_of(path: Path) -> Part | None:
    """What a name tells; ``None`` for a file that is no part of a recording."""
    found = _PART.fullmatch(path.name)
    if found is None:
        return None
    return Part(path=path, session=found[1], first=int(found[2]), last=int(found[3]))


def folder_name(contract: Contract) -> str:
    """The folder of an instrument: ``AAPL-STK-265598``, with the exchange where one was named."""
    parts = [contract.symbol, contract.security_type.value, str(contract.conid)]
    if contract.exchange not in ("", "SMART", "IDEALPRO") and not contract.legs:
        parts.append(contract.exchange)
    return re.sub(r"[^A-Za-z0-9.@-]+", "_", "-".join(parts)).lstrip(".")


# -- days ----------------------------------------------------------------------------------------------

_OVERNIGHT = frozenset({SecurityType.FUTURE, SecurityType.FUTURE_OPTION, SecurityType.FOREX})


class MarketDays:
    """Which market day a moment belongs to: the exchange's calendar day; of what trades through the night, the day
    on which the session ends."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._zone = exchange_zone(contract)
        self._overnight = contract.security_type in _OVERNIGHT
        self._start_ns = self._end_ns = 0
        self._day = date.min

    def day(self, time_ns: int) -> date:
        """The market day of a moment, epoch ns."""
        if not self._start_ns <= time_ns < self._end_ns:
            self._find(time_ns)
        return self._day

    def _find(self, time_ns: int) -> None:
        day = datetime.fromtimestamp(time_ns // 1_000_000_000, tz=UTC).astimezone(self._zone).date()
        if time_ns >= self._ends(day):
            day += timedelta(days=1)
        self._day = day
        self._start_ns, self._end_ns = self._ends(day - timedelta(days=1)), self._ends(day)

    def _ends(self, day: date) -> int:
        if self._overnight:
            return session_end_ns(self._contract, day)
        midnight = datetime.combine(day + timedelta(days=1), time(), tzinfo=self._zone)
        return int(midnight.timestamp()) * 1_000_000_000


# -- rows to columns and back ----------------------------------------------------------------------------


def encode(rows: Sequence[RecordedTick], info: FileInfo) -> pa.Table:
    """The table of a file with these rows, at least one."""
    ticks = [row.tick for row in rows]
    traded = [tick.traded for tick in ticks]
    printed = [bool(value) for value in traded]
    never = [False] * len(rows)
    columns: dict[str, Any] = {
        "ts": [tick.time_ns for tick in ticks],
        "received": [tick.received_ns for tick in ticks],
        "seq": [row.seq for row in rows],
        "kind": _words([row.kind.value for row in rows]),
        "conid": [tick.conid for tick in ticks],
        "traded": traded,
        "quality": _words([tick.quality.value for tick in ticks]),
        "halted": [tick.halted for tick in ticks],
        "snapshot": [tick.snapshot for tick in ticks],
        "exchange": [tick.exchange_ns for tick in ticks],
        "extras": _extras_changes([tick.extras for tick in ticks]),
        "note": [row.note or None for row in rows],
    }
    for name in CHANGING:
        values = [getattr(tick, name) for tick in ticks]
        columns[name] = _changes(values, printed if name in _OF_TRADES else never)
    schema = schema_of(info)
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, type=schema.field(name).type)
        for name, column in ((name, columns[name]) for name in schema.names)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _words(words: list[str]) -> pa.Array:
    return pa.array(words, type=pa.string()).dictionary_encode()


def _changes(values: Sequence[float | None], kept: Sequence[bool]) -> list[float | None]:
    cells: list[float | None] = []
    before: float | None = None
    head = True
    for given, keep in zip(values, kept, strict=True):
        value = None if given is None or math.isnan(given) else given
        if head or keep or value != before:
            cells.append(math.nan if value is None else value)
        else:
            cells.append(None)
        before, head = value, False
    return cells


def _extras_changes(values: Sequence[Mapping[str, float] | None]) -> list[list[tuple[str, float]] | None]:
    cells: list[list[tuple[str, float]] | None] = []
    before: Mapping[str, float] | None = None
    for given in values:
        if given is before or given is None:
            # `None` after something else does not come.
            cells.append(None)
            continue
        cells.append(extras_difference(before, given))
        before = given
    return cells


def extras_difference(
    before: Mapping[str, float] | None, now: Mapping[str, float]
) -> list[tuple[str, float]] | None:
    """What changed; NaN for what is no longer known. ``None`` if nothing did."""
    known = before or {}
    changed = [(name, value) for name, value in now.items() if known.get(name) != value]
    changed += [(name, math.nan) for name in known if name not in now]
    return changed if changed or before is None else None


def extras_after(before: Mapping[str, float] | None, cell: list[tuple[str, float]]) -> Mapping[str, float]:
    """The extras after a cell of the column."""
    merged = dict(before or {})
    for name, value in cell:
        if math.isnan(value):
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged


def decode(batches: Iterator[pa.RecordBatch]) -> Iterator[RecordedTick]:
    """The rows of one file."""
    state: list[float | None] = [None] * len(CHANGING)
    extras: Mapping[str, float] | None = None
    for batch in batches:
        column = {name: batch.column(name) for name in batch.schema.names}
        times, received, exchange = (
            column[name].cast(pa.int64()).to_pylist() for name in ("ts", "received", "exchange")
        )
        kinds = [RowKind(word) for word in column["kind"].to_pylist()]
        qualities = [DataQuality(word) for word in column["quality"].to_pylist()]
        cells = zip(*(column[name].to_pylist() for name in CHANGING), strict=True)
        plain = ("seq", "conid", "traded", "halted", "snapshot", "extras", "note")
        rest = zip(*(column[name].to_pylist() for name in plain), strict=True)
        for time_ns, received_ns, exchange_ns, kind, quality, row, others in zip(
            times, received, exchange, kinds, qualities, cells, rest, strict=True
        ):
            for index, cell in enumerate(row):
                if cell is not None:
                    # NaN is the only value that differs from itself.
                    state[index] = cell if cell == cell else None
            seq, conid, traded, halted, snapshot, more, note = others
            if more is not None:
                extras = extras_after(extras, more)
            bid, bid_size, ask, ask_size, last, last_size, volume = state
            tick = Tick(
                time_ns, conid, bid, ask, bid_size, ask_size, last, last_size, traded, volume, quality, halted,
                received_ns, extras, exchange_ns, snapshot,
            )  # fmt: skip
            yield RecordedTick(seq, kind, tick, note or "")
