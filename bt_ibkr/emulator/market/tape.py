"""The tape: market events in order of time, read from files.

A *tick file* is Parquet with the columns ``ts`` (UTC), ``bid``, ``bid_size``, ``ask``, ``ask_size``, ``last``
and ``last_size``; a null leaves the value as it was. A *bar file* has ``ts`` (the bar's start), ``open``,
``high``, ``low``, ``close`` and ``volume``; every bar becomes four prints, see ``_prints_of_bars``.

Columns stay numpy arrays; events are made in blocks as they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as parquet

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.types import Instrument, MarketEvent
from bt_ibkr.errors import MarketFileError, UsageError
from bt_ibkr.model.market import Bar

#: See ``MarketEvent``.
RECORDED_COLUMNS = ("traded", "volume", "halted")
VALUE_COLUMNS = ("bid", "bid_size", "ask", "ask_size", "last", "last_size")
_BAR_COLUMNS = ("open", "high", "low", "close", "volume")
_BLOCK = 4096
_MINUTE_NS = 60 * NS_PER_S

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class TapeLike(Protocol):
    """What the engine needs of a market."""

    @property
    def start_ns(self) -> int: ...
    @property
    def opens_ns(self) -> int: ...
    @property
    def end_ns(self) -> int: ...
    @property
    def conids(self) -> tuple[int, ...]: ...
    def next_ns(self) -> int | None: ...
    def peek(self) -> MarketEvent | None: ...
    def pop(self) -> MarketEvent: ...
    def restart(self) -> None: ...
    def pictures(self) -> Sequence[MarketEvent]: ...
    def prior_bars(self) -> Mapping[int, Sequence[Bar]]: ...


class Tape:
    """Events of one or several instruments, ordered by time; equal times keep their order.

    Args:
        times: Epoch nanoseconds, ascending.
        conids: One per event.
        values: A column for each of ``VALUE_COLUMNS``; NaN leaves the value as it was. Those of a recording also have
            ``RECORDED_COLUMNS``; NaN there is not told.
        prior_bars: One-minute bars of the time before the tape, by conid, ascending.
        opens_ns: When the market begins; by default at the whole minute of the first event.
        pictures: Quotes that stand when it does.

    Attributes:
        start_ns, end_ns: Times of the first and the last event.
    """

    def __init__(
        self,
        times: Ints,
        conids: Ints,
        values: Mapping[str, Floats],
        *,
        prior_bars: Mapping[int, Sequence[Bar]] | None = None,
        opens_ns: int | None = None,
        pictures: Sequence[MarketEvent] = (),
    ) -> None:
        if not len(times):
            raise UsageError("A market needs at least one event.", remedy="Name a file with rows.")
        self._times = times
        self._conid_column = conids
        self._names = VALUE_COLUMNS + (RECORDED_COLUMNS if RECORDED_COLUMNS[0] in values else ())
        self._values = {name: values[name] for name in self._names}
        self._pictures = tuple(pictures)
        self._prior = {conid: tuple(bars) for conid, bars in (prior_bars or {}).items()}
        # np.unique sorts; the order of first appearance is what a user expects to see
        found, first = np.unique(conids, return_index=True)
        on_tape = [int(found[k]) for k in np.argsort(first, kind="stable")]
        #: In the order in which they are first seen.
        self.conids: tuple[int, ...] = tuple(dict.fromkeys([one.conid for one in self._pictures] + on_tape))
        self.start_ns = int(times[0])
        self.opens_ns = self.start_ns // _MINUTE_NS * _MINUTE_NS if opens_ns is None else opens_ns
        self.end_ns = int(times[-1])
        self._size = len(times)
        self.restart()

    def __len__(self) -> int:
        return self._size

    def restart(self) -> None:
        """Go back to the first event."""
        self._blocks = self._make_blocks()
        self._block: list[MarketEvent] = next(self._blocks)
        self._at = 0
        self._next_ns: int | None = self.start_ns

    def next_ns(self) -> int | None:
        """Time of the next event; ``None`` at the end."""
        return self._next_ns

    def peek(self) -> MarketEvent | None:
        """The next event, which stays; ``None`` at the end."""
        return None if self._next_ns is None else self._block[self._at]

    def pop(self) -> MarketEvent:
        """Take the next event.

        Raises:
            StopIteration: At the end.
        """
        if self._next_ns is None:
            raise StopIteration
        event = self._block[self._at]
        self._at += 1
        if self._at == len(self._block):
            self._block = next(self._blocks, [])
            self._at = 0
        self._next_ns = self._block[self._at].time_ns if self._block else None
        return event

    def pictures(self) -> Sequence[MarketEvent]:
        """The quotes that stand when the market opens."""
        return self._pictures

    def prior_bars(self) -> Mapping[int, Sequence[Bar]]:
        """One-minute bars of the time before the tape, by conid."""
        return self._prior

    def columns(self) -> tuple[Ints, Ints, Mapping[str, Floats]]:
        """Times, conids and values of all events, not to be changed."""
        return self._times, self._conid_column, self._values

    def _make_blocks(self) -> Iterator[list[MarketEvent]]:
        for start in range(0, self._size, _BLOCK):
            part = slice(start, start + _BLOCK)
            columns = [_optional(self._values[name][part]) for name in self._names]
            yield [
                MarketEvent(*row)
                for row in zip(
                    self._times[part].tolist(), self._conid_column[part].tolist(), *columns, strict=True
                )
            ]


def _optional(column: Floats) -> list[float | None]:
    values: list[float | None] = column.tolist()
    # NaN is the only value that differs from itself
    return [None if value != value else value for value in values]


def merge(tapes: Sequence[Tape]) -> Tape:
    """One tape of several, by time; at equal times in the order of ``tapes``."""
    if len(tapes) == 1:
        return tapes[0]
    parts = [tape.columns() for tape in tapes]
    times = np.concatenate([part[0] for part in parts])
    order = np.argsort(times, kind="stable")
    names = max((part[2] for part in parts), key=len)
    prior: dict[int, Sequence[Bar]] = {}
    for tape in tapes:
        prior |= tape.prior_bars()
    return Tape(
        times[order],
        np.concatenate([part[1] for part in parts])[order],
        {
            name: np.concatenate([part[2].get(name, np.full(len(part[0]), np.nan)) for part in parts])[order]
            for name in names
        },
        prior_bars=prior,
        opens_ns=min(tape.opens_ns for tape in tapes),
        pictures=[one for tape in tapes for one in tape.pictures()],
    )


def load_ticks(path: Path | str, instrument: Instrument) -> Tape:
    """The tape of a tick file or a bar file.

    Raises:
        MarketFileError: The file is missing, unreadable, empty, lacks a column, has times without a zone,
            is not in order of time, or has a bid above its ask; the message names file and column or row.
    """
    file = Path(path)
    table = _read(file)
    names = set(table.column_names)
    if "ts" not in names:
        raise MarketFileError(
            f"{file} lacks the column ts.", remedy="A market file needs the time of each row, in UTC, as ts."
        )
    if "contract" in names:
        table = _rows_of_contract(table, file, instrument)
    if not table.num_rows:
        raise MarketFileError(
            f"{file} holds no rows for {instrument.contract.describe()}.", remedy="Name a file that does."
        )
    times = _times(table, file)
    if {"open", "high", "low", "close"} <= names:
        return _prints_of_bars(table, file, times, instrument)
    present = [name for name in VALUE_COLUMNS if name in names]
    missing = [name for name in VALUE_COLUMNS if name not in names]
    if missing:
        raise MarketFileError(
            f"{file} lacks the column {missing[0]}.",
            remedy=f"Columns: ts, {', '.join(VALUE_COLUMNS)}; in bar files ts, {', '.join(_BAR_COLUMNS)}.",
        )
    values = {name: _floats(table, file, name) for name in present}
    _check_quotes(file, times, values["bid"], values["ask"])
    return Tape(times, np.full(len(times), instrument.contract.conid, dtype=np.int64), values)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise MarketFileError(f"{path} does not exist.", remedy="Check the path of the market file.")
    try:
        return parquet.read_table(path)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise MarketFileError(
            f"{path} cannot be read as Parquet: {str(error).rstrip('.')}.",
            remedy="Market files are Parquet files.",
        ) from error


def _rows_of_contract(table: Any, path: Path, instrument: Instrument) -> Any:
    """The rows of one expiry where a file holds several contracts of a future (``ES201312``)."""
    contract = instrument.contract
    present = sorted({str(name) for name in table.column("contract").unique().to_pylist()})
    if len(present) == 1:
        return table
    wanted = f"{contract.symbol}{(contract.last_trade_date or '')[:6]}"
    if wanted not in present:
        raise MarketFileError(
            f"{path}, column contract: holds {', '.join(present)}, but not {wanted}.",
            remedy="Name an instrument with that expiry, or split the file.",
        )
    return table.filter(pa.compute.equal(table.column("contract"), wanted))


def _times(table: Any, path: Path) -> Ints:
    column = table.column("ts")
    kind = column.type
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        raise MarketFileError(
            f"{path}, column ts: {kind} is not a time with a zone.",
            remedy="Store ts as a timestamp with the time zone UTC.",
        )
    if column.null_count:
        raise MarketFileError(
            f"{path}, column ts: holds empty times.", remedy="Leave rows without a time out."
        )
    whole = column.cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())
    times = np.ascontiguousarray(whole.to_numpy(), dtype=np.int64)
    backwards = np.flatnonzero(np.diff(times) < 0)
    if len(backwards):
        raise MarketFileError(
            f"{path}, column ts: row {int(backwards[0]) + 2} is earlier than the row before it.",
            remedy="Sort the file by ts.",
        )
    return times


def _floats(table: Any, path: Path, name: str) -> Floats:
    column = table.column(name)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise MarketFileError(
            f"{path}, column {name}: {column.type} is not a number.", remedy="Store it as a float."
        )
    values = np.array(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    if np.isinf(values).any() or (values < 0).any():
        raise MarketFileError(
            f"{path}, column {name}: holds values that are negative or infinite.",
            remedy="Leave those rows out; a null leaves a value as it was.",
        )
    return values


def _check_quotes(path: Path, times: Ints, bid: Floats, ask: Floats) -> None:
    """A bid above the ask would fill both sides of the market at once. Rows of one time are one change: only what
    stands after the last of them counts."""
    last = np.append(times[1:] != times[:-1], True)
    bids, asks = _standing(bid), _standing(ask)
    crossed = np.flatnonzero(last & (bids > asks) & (asks > 0))
    if len(crossed):
        row = int(crossed[0])
        raise MarketFileError(
            f"{path}: row {row + 1} leaves the bid {bids[row]:g} above the ask {asks[row]:g} (so do "
            f"{len(crossed) - 1} more).",
            remedy="Leave such quotes out, or put a bid and an ask that move together into one row.",
        )


def _standing(column: Floats) -> Floats:
    """The value that stands at each row: the last that was told."""
    told = np.where(np.isnan(column), 0, np.arange(len(column)))
    return column[np.maximum.accumulate(told)]


def _check_bars(path: Path, opened: Floats, high: Floats, low: Floats, close: Floats) -> None:
    """A bar without a price, or whose high is not its highest, is no bar; nothing is traded on it."""
    whole = (high >= np.maximum(opened, close)) & (low <= np.minimum(opened, close))
    if not whole.all():
        row = int(np.flatnonzero(~whole)[0])
        raise MarketFileError(
            f"{path}: row {row} is no bar: open {opened[row]}, high {high[row]}, low {low[row]}, "
            f"close {close[row]}.",
            remedy="Every bar needs four prices; the high is the highest of them, the low the lowest.",
        )


def _prints_of_bars(table: Any, path: Path, times: Ints, instrument: Instrument) -> Tape:
    """Four prints a bar: open at its start, the extremes at a quarter and a half, close just before its end.

    A bar that rises visits its low first, one that falls its high first, which keeps the path short. The
    volume is split into quarters, the remainder goes to the close. The span is the shortest distance of
    two bars, a minute if there is only one.
    """
    missing = [name for name in _BAR_COLUMNS if name not in table.column_names]
    if missing:
        raise MarketFileError(
            f"{path} lacks the column {missing[0]}.", remedy=f"Bar files need ts, {', '.join(_BAR_COLUMNS)}."
        )
    opened, high, low, close, volume = (_floats(table, path, name) for name in _BAR_COLUMNS)
    _check_bars(path, opened, high, low, close)
    steps = np.diff(times)
    steps = steps[steps > 0]
    span = int(steps.min()) if len(steps) else 60 * NS_PER_S
    rising = close >= opened
    quarter = np.floor(np.nan_to_num(volume) / 4)
    offsets = np.array([0, span // 4, span // 2, span - 1_000_000], dtype=np.int64)
    prices = np.column_stack([opened, np.where(rising, low, high), np.where(rising, high, low), close])
    sizes = np.column_stack([quarter, quarter, quarter, np.nan_to_num(volume) - 3 * quarter])
    moments = (times[:, None] + offsets[None, :]).reshape(-1)
    empty = np.full(len(moments), np.nan)
    values = dict.fromkeys(VALUE_COLUMNS, empty)
    if instrument.quote_only:
        # without prints the bid is what stands for them; no spread is known
        values |= {"bid": prices.reshape(-1), "ask": prices.reshape(-1)}
    else:
        values |= {"last": prices.reshape(-1), "last_size": sizes.reshape(-1)}
    return Tape(moments, np.full(len(moments), instrument.contract.conid, dtype=np.int64), values)
