"""Ticks to Parquet and back: the same ticks, however they were cut into files."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.errors import MarketFileError, UsageError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import DataQuality, Tick
from bt_ibkr.recorder import Recording, RowKind, TickRecorder
from bt_ibkr.recorder.files import join_parts, read_batches, write_part
from bt_ibkr.recorder.format import FileInfo, MarketDays, RecordedTick, decode, encode, part_of

AAPL = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK, time_zone="America/New_York")
IBM = Contract(conid=8314, symbol="IBM", security_type=SecurityType.STOCK, time_zone="America/New_York")
INFO = FileInfo(contract=AAPL, dataname="AAPL", session="00aa")
#: 2026-03-02, 14:30 UTC.
START = 1_772_461_800_000_000_000

_price = st.one_of(
    st.none(),
    st.sampled_from((100.0, 100.01, -37.63, 0.0, math.nan)),
    st.floats(-1e9, 1e9, allow_nan=False),
)
_size = st.one_of(st.none(), st.sampled_from((0.0, 100.0)), st.floats(0, 1e9, allow_nan=False))


@st.composite
def ticks(draw: st.DrawFn) -> list[Tick]:
    """A stream, in which values stand for long, go away and come back."""
    count = draw(st.integers(0, 30))
    times = sorted(draw(st.lists(st.integers(0, 10**14), min_size=count, max_size=count)))
    extras = draw(
        st.lists(
            st.none() | st.dictionaries(st.sampled_from(("vwap", "delta", "bid")), st.floats(-1e6, 1e6)),
            min_size=1,
            max_size=3,
        )
    )
    if any(one is not None for one in extras):
        extras = [one or {} for one in extras]
    return [
        Tick(
            START + time_ns, AAPL.conid,
            draw(_price), draw(_price), draw(_size), draw(_size), draw(_price), draw(_size),
            draw(st.sampled_from((0.0, 100.0, 0.5))), draw(_size), draw(st.sampled_from(list(DataQuality))),
            draw(st.booleans()), START + time_ns + 1_500, draw(st.sampled_from(extras)),
            draw(st.none() | st.just(START + time_ns - 7)), draw(st.booleans()),
        )
        for time_ns in times
    ]  # fmt: skip


def known(tick: Tick) -> Tick:
    """A value that is no number is one that is not known."""
    nothing = {
        name: None
        for name in ("bid", "ask", "bid_size", "ask_size", "last", "last_size", "volume")
        if (value := getattr(tick, name)) is not None and math.isnan(value)
    }
    return msgspec.structs.replace(tick, **nothing)


def numbered(stream: list[Tick]) -> list[RecordedTick]:
    return [RecordedTick(seq, RowKind.TICK, tick) for seq, tick in enumerate(stream, 1)]


@settings(max_examples=40, deadline=None)
@given(ticks())
def test_what_is_read_is_what_was_written(stream: list[Tick]) -> None:
    if not stream:
        return
    rows = numbered(stream)
    read = list(decode(iter(encode(rows, INFO).to_batches())))
    assert [row.tick for row in read] == [known(tick) for tick in stream]
    assert [row.seq for row in read] == [row.seq for row in rows]


@settings(max_examples=20, deadline=None)
@given(ticks(), st.data())
def test_files_joined_are_the_file_written_at_once(stream: list[Tick], data: st.DataObject) -> None:
    if not stream:
        return
    rows = numbered(stream)
    cuts = [*sorted(data.draw(st.sets(st.integers(1, len(rows))))), len(rows)]
    with tempfile.TemporaryDirectory() as folder:
        parts, at = [], 0
        for cut in dict.fromkeys(cuts):
            parts.append(write_part(Path(folder), encode(rows[at:cut], INFO), INFO))
            at = cut
        joined = join_parts(parts, INFO) if len(parts) > 1 else parts[0]
        table = parquet.read_table(joined.path)
        whole = encode(rows, INFO)
        for name in whole.schema.names:
            # Compared as text: NaN is not equal to itself.
            assert str(table.column(name).to_pylist()) == str(whole.column(name).to_pylist()), name
        assert [row.tick for row in decode(iter(read_batches(joined.path)))] == [known(t) for t in stream]
        assert [path.name for path in Path(folder).iterdir()] == [joined.path.name]


def tick(
    second: float, last: float, traded: float = 100.0, volume: float = 100.0, conid: int = 265598
) -> Tick:
    time_ns = START + int(second * 1e9)
    return Tick(
        time_ns, conid, last - 0.01, last + 0.01, 300.0, 200.0, last, 100.0, traded, volume,
        DataQuality.REALTIME, False, time_ns + 1,
    )  # fmt: skip


def test_a_recording_of_two_instruments(tmp_path: Path) -> None:
    recorder = TickRecorder(tmp_path / "rec")
    one, two = recorder.sink(AAPL, "AAPL"), recorder.sink(IBM)
    sent = [tick(n, 100 + n, volume=100.0 * n) for n in range(200)]
    for n, item in enumerate(sent):
        one.push(item)
        if n % 50 == 49:
            assert recorder.flush()
            two.append(tick(n, 180.0, conid=8314))
    counts = recorder.close(time_ns=START + 500 * 10**9, over=True)
    assert (counts.ticks, counts.dropped, counts.waiting) == (204, 0, 0)
    recording = Recording(tmp_path / "rec")
    assert [one.contract for one in recording.instruments] == [AAPL, IBM]
    rows = list(recording.find("aapl").rows())
    assert [row.tick for row in rows[:-1]] == sent
    assert [row.kind for row in rows] == [RowKind.PICTURE, *[RowKind.TICK] * 199, RowKind.OVER]
    assert rows[-1].tick.time_ns == START + 500 * 10**9
    # Joined at the end: one file each, which any program reads.
    files = list((tmp_path / "rec").rglob("*.parquet"))
    assert len(files) == 2
    assert counts.files == 2
    frame = pd.read_parquet(next(file for file in files if "AAPL" in str(file)))
    assert frame["bid_size"].notna().sum() == 1
    assert frame["last"].notna().sum() == 200
    # In the order of arrival over all of them.
    every = sorted(row.seq for item in recording.instruments for row in item.rows())
    assert every == list(range(1, 207))


def test_a_gap_is_a_row_and_a_picture_follows(tmp_path: Path) -> None:
    recorder = TickRecorder(tmp_path)
    sink = recorder.sink(AAPL)
    sink.interrupted("before anything came")
    sink.push(tick(1, 100))
    sink.push(tick(2, 101))
    sink.interrupted("the network went away")
    sink.interrupted("twice")
    sink.push(tick(60, 105, traded=0.0, volume=9000.0))
    recorder.close(time_ns=START + 61 * 10**9)
    # The end of the session is no break of its stream.
    sink.interrupted("closed")
    sink.append(tick(62, 105))
    assert recorder.counts().waiting == 0
    rows = list(Recording(tmp_path).find().rows())
    kinds = [(row.kind.value, row.tick.time_ns - START, row.note) for row in rows]
    assert kinds == [
        ("picture", 1 * 10**9, ""),
        ("tick", 2 * 10**9, ""),
        ("gap", 2 * 10**9, "the network went away"),
        ("picture", 60 * 10**9, ""),
        ("end", 61 * 10**9, ""),
    ]


def test_a_recording_goes_on_in_its_folder(tmp_path: Path) -> None:
    for run in range(2):
        recorder = TickRecorder(tmp_path)
        recorder.sink(AAPL).push(tick(run * 10, 100 + run))
        with pytest.raises(UsageError, match="recorded already"):
            recorder.sink(AAPL)
        with pytest.raises(UsageError, match="Another program records"):
            TickRecorder(tmp_path)
        recorder.close()
    rows = [row for row in Recording(tmp_path).find().rows() if row.kind is RowKind.PICTURE]
    assert [row.tick.last for row in rows] == [100, 101]


def test_days_are_those_of_the_market(tmp_path: Path) -> None:
    recorder = TickRecorder(tmp_path)
    stock = recorder.sink(AAPL)
    future = recorder.sink(
        Contract(
            conid=1,
            symbol="ES",
            security_type=SecurityType.FUTURE,
            exchange="CME",
            last_trade_date="20260320",
        )
    )
    for hours in (0, 8.6, 13.0):
        # 9:30, 18:06 and 22:30 in New York, half of it the next day's session in Chicago.
        stock.push(tick(hours * 3600, 100))
        future.push(tick(hours * 3600, 100, conid=1))
    recorder.close()
    rows = {
        folder.name: sorted(
            (day.name, sum(parquet.read_metadata(f).num_rows for f in day.iterdir()))
            for day in folder.iterdir()
        )
        for folder in tmp_path.iterdir()
        if folder.is_dir()
    }
    assert rows == {
        "AAPL-STK-265598": [("2026-03-02", 4)],
        "ES-FUT-1-CME": [("2026-03-02", 1), ("2026-03-03", 3)],
    }
    days = MarketDays(AAPL)
    assert days.day(START).isoformat() == "2026-03-02"
    assert days.day(START + 15 * 3600 * 10**9).isoformat() == "2026-03-03"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MarketFileError, match="does not exist"):
        Recording(tmp_path / "nothing")
    with pytest.raises(MarketFileError, match="holds no recording"):
        Recording(tmp_path)
    plain = tmp_path / "plain.parquet"
    pd.DataFrame({"ts": [1]}).to_parquet(plain)
    with pytest.raises(MarketFileError, match="no recording of ticks"):
        Recording(plain)
    recorder = TickRecorder(tmp_path / "rec")
    for contract in (AAPL, IBM):
        recorder.sink(contract).push(tick(1, 5.0))
    recorder.close()
    with pytest.raises(MarketFileError, match="none was named"):
        Recording(tmp_path / "rec").find()
    with pytest.raises(MarketFileError, match="'SPY' is none of them"):
        Recording(tmp_path / "rec").find("SPY")
    one = next((tmp_path / "rec" / "AAPL-STK-265598").rglob("*.parquet"))
    assert part_of(one) is not None
    assert len(list(Recording(one).find().rows())) == 2
    table = parquet.read_table(one)
    told = dict(table.schema.metadata) | {b"bt_ibkr.version": b"9"}
    parquet.write_table(table.replace_schema_metadata(told), one)
    with pytest.raises(MarketFileError, match="version '9'"):
        Recording(one)
    one.write_bytes(b"PAR1 and no more")
    with pytest.raises(MarketFileError, match="cannot be read"):
        Recording(one)
