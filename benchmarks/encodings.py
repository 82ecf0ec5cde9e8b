"""What a tick costs the processor on its way to another process: MessagePack, ``struct`` and Arrow, in one run.

::

    python benchmarks/encodings.py [--rounds N] [--json]

Each encodes a tick and its number as the hub publishes them, and makes the tick of the bytes again. All three take
turns within a round, so that a disturbance meets all; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

sys.path.append(str(Path(__file__).resolve().parent.parent))

from bt_ibkr.hub.ticks import decode_tick, encode_tick
from bt_ibkr.model.market import DataQuality, Tick

_NAN = float("nan")
_PRICES = ("bid", "ask", "bid_size", "ask_size", "last", "last_size", "traded", "volume")
_QUALITIES = tuple(DataQuality)
_NUMBERS = {quality: number for number, quality in enumerate(_QUALITIES)}
#: Number, time, conid; prices and sizes; when it was read; quality and whether it is halted.
_LAYOUT = struct.Struct("<qqq8dqB?")
_SCHEMA = pa.schema(
    [("number", pa.int64()), ("time_ns", pa.int64()), ("conid", pa.int64())]
    + [(name, pa.float64()) for name in _PRICES]
    + [("received_ns", pa.int64()), ("quality", pa.uint8()), ("halted", pa.bool_())]
)


class Encoding(NamedTuple):
    """One contender; ``encode`` takes number and tick, ``decode`` gives them back."""

    name: str
    encode: Callable[[tuple[int, Tick]], bytes]
    decode: Callable[[bytes], tuple[int, Tick]]


class Figure(msgspec.Struct, kw_only=True):
    """Per tick, medians over the rounds."""

    name: str
    encode_us: float
    decode_us: float
    size: int


def _row(numbered: tuple[int, Tick]) -> tuple[Any, ...]:
    number, tick = numbered
    return (
        number, tick.time_ns, tick.conid, tick.bid, tick.ask, tick.bid_size, tick.ask_size, tick.last,
        tick.last_size, tick.traded, tick.volume, tick.received_ns, _NUMBERS[tick.quality], tick.halted,
    )  # fmt: skip


def _tick(row: Sequence[Any]) -> tuple[int, Tick]:
    number, time_ns, conid, *prices, received_ns, quality, halted = row
    return number, Tick(time_ns, conid, *prices, _QUALITIES[quality], halted, received_ns)


def _pack(numbered: tuple[int, Tick]) -> bytes:
    number, tick = numbered
    bid, ask, bid_size, ask_size = tick.bid, tick.ask, tick.bid_size, tick.ask_size
    last, last_size, volume = tick.last, tick.last_size, tick.volume
    return _LAYOUT.pack(
        number,
        tick.time_ns,
        tick.conid,
        # A value that is not there.
        _NAN if bid is None else bid,
        _NAN if ask is None else ask,
        _NAN if bid_size is None else bid_size,
        _NAN if ask_size is None else ask_size,
        _NAN if last is None else last,
        _NAN if last_size is None else last_size,
        tick.traded,
        _NAN if volume is None else volume,
        tick.received_ns,
        _NUMBERS[tick.quality],
        tick.halted,
    )


def _unpack(raw: bytes) -> tuple[int, Tick]:
    (
        number, time_ns, conid, bid, ask, bid_size, ask_size, last, last_size, traded, volume, received_ns,
        quality, halted,
    ) = _LAYOUT.unpack(raw)  # fmt: skip
    return number, Tick(
        time_ns,
        conid,
        # Of all numbers that one alone differs from itself.
        bid if bid == bid else None,
        ask if ask == ask else None,
        bid_size if bid_size == bid_size else None,
        ask_size if ask_size == ask_size else None,
        last if last == last else None,
        last_size if last_size == last_size else None,
        traded,
        volume if volume == volume else None,
        _QUALITIES[quality],
        halted,
        received_ns,
    )


def _arrow(numbered: tuple[int, Tick]) -> bytes:
    columns = [pa.array([value], field.type) for value, field in zip(_row(numbered), _SCHEMA, strict=True)]
    batch = pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)
    encoded: bytes = batch.serialize().to_pybytes()
    return encoded


def _from_arrow(raw: bytes) -> tuple[int, Tick]:
    batch = pa.ipc.read_record_batch(pa.py_buffer(raw), _SCHEMA)
    return _tick([column[0].as_py() for column in batch.columns])


ENCODINGS = (
    Encoding("MessagePack array (msgspec)", encode_tick, decode_tick),
    Encoding("struct", _pack, _unpack),
    Encoding("Arrow IPC, one record", _arrow, _from_arrow),
)


def ticks(count: int) -> list[tuple[int, Tick]]:
    """Trades with a quote, of the form that benchmarks of streams use; one in ten before the first trade."""
    made = []
    for number in range(1, count + 1):
        cents = 27_000 + number * 7 % 601
        bid, last, ask = ((cents + step) / 100 for step in (-1, 0, 1))
        traded = 0.0 if number % 10 == 0 else float(number % 9 + 1)
        tick = Tick(
            1_772_461_800_000_000_000 + number * 1_000_000, 265598, bid, ask, 300.0, 200.0,
            last if traded else None, traded or None, traded, 1_000_000.0 + number, DataQuality.REALTIME, False,
            1_772_461_800_000_400_000 + number * 1_000_000,
        )  # fmt: skip
        made.append((number, tick))
    return made


def _per_tick_us(act: Callable[[Any], object], given: Sequence[Any], count: int) -> float:
    began_ns = time.thread_time_ns()
    for one in given[:count]:
        act(one)
    return (time.thread_time_ns() - began_ns) / 1000 / count


def measure(rounds: int, count: int = 20_000) -> list[Figure]:
    """Every encoding in each round; one that does not give back what it was given ends the benchmark."""
    made = ticks(count)
    raw = {one.name: [one.encode(tick) for tick in made] for one in ENCODINGS}
    for one in ENCODINGS:
        if [one.decode(message) for message in raw[one.name]] != made:
            raise SystemExit(f"{one.name} does not give back the ticks that it was given.")
    found: dict[str, list[tuple[float, float]]] = {one.name: [] for one in ENCODINGS}
    for turn in range(rounds):
        for one in ENCODINGS if turn % 2 == 0 else ENCODINGS[::-1]:
            # Arrow takes so long that fewer do.
            part = count if one.encode is not _arrow else count // 20
            found[one.name].append(
                (_per_tick_us(one.encode, made, part), _per_tick_us(one.decode, raw[one.name], part))
            )
    return [
        Figure(
            name=one.name,
            encode_us=statistics.median(encode for encode, _ in found[one.name]),
            decode_us=statistics.median(decode for _, decode in found[one.name]),
            size=round(statistics.median(len(message) for message in raw[one.name])),
        )
        for one in ENCODINGS
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Encodings of a tick.")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    report = measure(options.rounds)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
        return 0
    for one in report:
        print(
            f"{one.name:30} encode {one.encode_us:7.2f} µs  decode {one.decode_us:7.2f} µs  {one.size} bytes"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
