"""What is stored is read back, once each; overlaps are compared; nothing is lost to a crash or another writer."""

from __future__ import annotations

import multiprocessing
import os
import signal
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.dataset as dataset
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.archive import Archive, Columns, SeriesKey, Stored, read_frame, steps, verify
from bt_ibkr.archive.archive import read_whole
from bt_ibkr.archive.ledger import LEDGER
from bt_ibkr.archive.series import Series, one_exchange
from bt_ibkr.archive.spans import overlap, subtract, union
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import ArchiveError, UsageError
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import Bar

MINUTE = 60 * NS_PER_S
DAY = 1440 * MINUTE
#: Monday 2026-03-02, 14:30 UTC.
OPEN = 1_772_461_800 * NS_PER_S
FUTURE = OPEN + 1000 * DAY
AAPL = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK, time_zone="America/New_York")
KEY = SeriesKey(conid=265598, bar="1min", regular_hours=True)


def minutes(day: int, count: int = 390, *, price: float = 100.0) -> list[Bar]:
    """A session's bars, ``day`` days after the first."""
    start = OPEN + day * DAY
    return [
        Bar(
            start + k * MINUTE,
            start + (k + 1) * MINUTE,
            price + k,
            price + k + 1,
            price - 1,
            price + k,
            10.0 * k,
        )
        for k in range(count)
    ]


def keep(series: Series, bars: list[Bar], start: int, end: int, final: int = FUTURE) -> Stored:
    return series.store(AAPL, Columns.of(bars), start, end, now_ns=FUTURE, final_ns=final)


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return Archive(tmp_path / "history").series(KEY)


# --- spans ------------------------------------------------------------------------------------------------

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)


@given(a=spans, b=spans, bound=st.tuples(st.integers(0, 60), st.integers(0, 60)))
def test_spans_are_sets(a: list[tuple[int, int]], b: list[tuple[int, int]], bound: tuple[int, int]) -> None:
    def points(some: object) -> set[int]:
        return {at for start, end in some for at in range(start, end)}  # type: ignore[attr-defined]

    assert points(union(a)) == points(a)
    assert points(subtract(a, b)) == points(a) - points(b)
    assert points(overlap(a, bound)) == points(a) & points([bound])
    joined = union(a)
    assert all(one[1] < two[0] for one, two in pairwise(joined))


# --- storing and reading ----------------------------------------------------------------------------------


def test_round_trip(series: Series) -> None:
    bars = minutes(0) + minutes(29)
    stored = keep(series, bars, OPEN, OPEN + 30 * DAY)
    assert stored.bars == len(bars)
    assert stored.corrections == ()
    assert series.read().bars() == bars
    assert [path.name for path in series.files()] == ["2026-03.parquet"]
    assert series.missing(OPEN - DAY, OPEN + 31 * DAY) == (
        (OPEN - DAY, OPEN),
        (OPEN + 30 * DAY, OPEN + 31 * DAY),
    )
    assert series.last_bar_ns() == bars[-1].end_ns
    assert verify(series).problems == ()


def test_an_empty_span_is_known(series: Series) -> None:
    """A holiday without bars is not fetched again."""
    keep(series, [], OPEN, OPEN + DAY)
    assert series.missing(OPEN, OPEN + DAY) == ()
    assert series.read().size == 0


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 3 * 1440), min_size=1, max_size=6, unique=True), order=st.randoms())
def test_any_parts_in_any_order(
    cuts: list[int], order: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The union of its parts is the whole, over the end of a month."""
    start = OPEN + 29 * DAY
    bars = [bar for day in (29, 30, 31) for bar in minutes(day)]
    series = Archive(tmp_path_factory.mktemp("parts")).series(KEY)
    edges = [start, *(start + cut * MINUTE for cut in sorted(cuts)), start + 4 * DAY]
    pieces = list(pairwise(edges))
    order.shuffle(pieces)  # type: ignore[attr-defined]
    for begin, end in pieces:
        keep(series, [bar for bar in bars if begin <= bar.start_ns < end], begin, end)
    assert series.read().bars() == bars
    assert series.missing(start, start + 4 * DAY) == ()
    assert verify(series).problems == ()


def test_a_forming_bar_is_not_stored(series: Series) -> None:
    bars = minutes(0, 10)
    stored = keep(series, bars, OPEN, OPEN + 10 * MINUTE, final=OPEN + 9 * MINUTE + 30 * NS_PER_S)
    assert stored.bars == 9
    assert series.read().bars() == bars[:9]
    assert series.missing(OPEN, OPEN + 10 * MINUTE) == ((OPEN + 9 * MINUTE, OPEN + 10 * MINUTE),)


def test_the_day_under_way_is_not_known(tmp_path: Path) -> None:
    """Yesterday's bar is final; today's is not, whether it shows already or not."""
    series = Archive(tmp_path).series(SeriesKey(conid=265598, bar="1d", regular_hours=True))
    days = [Bar(OPEN + k * DAY, OPEN + k * DAY + 390 * MINUTE, 1.0, 1.0, 1.0, 1.0, 1.0) for k in range(3)]
    for shown in (days, days[:2]):
        keep(series, shown, OPEN - DAY, OPEN + 3 * DAY, final=OPEN + 2 * DAY + 60 * MINUTE)
        assert series.read().bars() == days[:2]
        assert series.missing(OPEN + 2 * DAY, OPEN + 3 * DAY) == ((OPEN + 2 * DAY, OPEN + 3 * DAY),)
    # After the close it is.
    keep(series, days, OPEN - DAY, OPEN + 3 * DAY, final=days[2].end_ns + MINUTE)
    assert series.read().bars() == days
    assert [path.name for path in series.files()] == ["all.parquet"]


def test_files_are_a_dataset_and_say_what_they_are(series: Series, tmp_path: Path) -> None:
    keep(series, minutes(0), OPEN, OPEN + DAY)
    table = dataset.dataset(tmp_path / "history", partitioning="hive").to_table()
    assert table.num_rows == 390
    assert set(table.column("conid").to_pylist()) == {265598}
    schema = parquet.read_schema(series.files()[0])
    assert str(schema.field("ts").type) == "timestamp[ns, tz=UTC]"
    head = msgspec.json.decode(schema.metadata[b"bt_ibkr"])
    assert head["contract"]["symbol"] == "AAPL"
    assert (head["bar"], head["source"], head["hours"]) == ("1min", "trades", "regular")
    assert head["adjusted"] == "for splits, not for dividends"


def test_frame(series: Series) -> None:
    bars = minutes(0)
    keep(series, bars, OPEN, OPEN + DAY)
    frame = read_frame(series, OPEN + 5 * MINUTE, OPEN + 10 * MINUTE)
    assert list(frame.columns) == ["start", "open", "high", "low", "close", "volume"]
    assert [stamp.value for stamp in frame.index] == [bar.end_ns for bar in bars[5:10]]
    assert str(frame.index.tz) == "UTC"
    assert frame["volume"].tolist() == [bar.volume for bar in bars[5:10]]


def test_holes_are_told_before_they_are_used(series: Series) -> None:
    keep(series, minutes(0), OPEN, OPEN + DAY)
    keep(series, minutes(2), OPEN + 2 * DAY, OPEN + 3 * DAY)
    with pytest.raises(ArchiveError, match="nothing was fetched from 2026-03-03"):
        read_whole(series)
    assert read_whole(series, holes=True).size == 780
    assert read_whole(series, OPEN + 2 * DAY).size == 390
    assert any("Never fetched" in problem for problem in verify(series).problems)


# --- corrections and splits -------------------------------------------------------------------------------


def test_corrections_are_noticed(series: Series) -> None:
    bars = minutes(0)
    keep(series, bars, OPEN, OPEN + DAY)
    now = list(bars)
    now[3] = msgspec.structs.replace(bars[3], close=bars[3].close + 0.5)
    del now[7]
    again = keep(series, now, OPEN, OPEN + DAY)
    assert [one.start_ns for one in again.corrections] == [bars[3].start_ns, bars[7].start_ns]
    assert again.corrections[0].old is not None
    assert again.corrections[0].old[3] == bars[3].close
    assert again.corrections[0].new is not None
    assert again.corrections[1].new is None
    assert series.read().bars() == now
    log = series.corrections()
    assert [entry["bar"] for entry in log] == ["2026-03-02T14:33:00Z", "2026-03-02T14:37:00Z"]
    assert log[0]["old"] == [bars[3].open, bars[3].high, bars[3].low, bars[3].close, bars[3].volume]
    # The bar is there again: a correction, too. The same once more is none.
    assert len(keep(series, bars, OPEN, OPEN + DAY).corrections) == 2
    assert keep(series, bars, OPEN, OPEN + DAY).corrections == ()


def test_rounding_of_volumes_is_no_correction(series: Series) -> None:
    bars = minutes(0)
    keep(series, bars, OPEN, OPEN + DAY)
    now = [msgspec.structs.replace(bar, volume=bar.volume * (1 + 1e-13)) for bar in bars]
    assert keep(series, now, OPEN, OPEN + DAY).corrections == ()


def test_a_split_is_noticed(series: Series) -> None:
    """All prices are a quarter of what was stored: what is older must be fetched again, and says so."""
    for day in range(3):
        keep(series, minutes(day, price=400.0), OPEN + day * DAY, OPEN + (day + 1) * DAY)

    def after(day: int) -> list[Bar]:
        return [
            msgspec.structs.replace(b, open=b.open / 4, high=b.high / 4, low=b.low / 4, close=b.close / 4)
            for b in minutes(day, price=400.0)
        ]

    stored = keep(series, after(2), OPEN + 2 * DAY, OPEN + 3 * DAY)
    assert stored.split == 4.0
    assert stored.corrections == ()
    assert series.missing(OPEN, OPEN + 3 * DAY) == ((OPEN, OPEN + 2 * DAY),)
    with pytest.raises(ArchiveError, match="before a split"):
        read_whole(series)
    assert any("before a split" in problem for problem in verify(series).problems)
    assert series.corrections()[0]["split"] == 4.0
    # Fetched again it is whole, and nothing of it was a correction.
    for day in (1, 0):
        assert keep(series, after(day), OPEN + day * DAY, OPEN + (day + 1) * DAY).corrections == ()
    assert read_whole(series).bars() == [bar for day in range(3) for bar in after(day)]
    assert verify(series).problems == ()


def test_nothing_older(series: Series) -> None:
    keep(series, minutes(0), OPEN, OPEN + DAY)
    series.note_beginning(AAPL, OPEN)
    assert series.missing(OPEN - 1000 * DAY, OPEN + DAY) == ()


# --- damage -----------------------------------------------------------------------------------------------


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["flipped", "cut", "gone"])
def test_damage_is_found_and_fetched_again(series: Series, what: str) -> None:
    bars = minutes(0) + minutes(31)
    keep(series, bars, OPEN, OPEN + 40 * DAY)
    path = series.files()[0]
    if what == "flipped":
        _damage(path)
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    assert verify(series).problems
    if what != "gone":
        with pytest.raises(ArchiveError, match="2026-03"):
            series.read()
    ((begin, end),) = series.missing(OPEN, OPEN + 40 * DAY)
    assert begin == OPEN
    assert end < OPEN + 31 * DAY
    again = keep(series, minutes(0), begin, end)
    assert again.corrections == ()
    assert series.read().bars() == bars
    assert verify(series).problems == ()
    assert len(list(series.folder.glob("*.damaged"))) == (what != "gone")


def test_a_damaged_ledger_is_told(series: Series) -> None:
    keep(series, minutes(0), OPEN, OPEN + DAY)
    (series.folder / LEDGER).write_text('{"covered": [[1,')
    with pytest.raises(ArchiveError, match="_series"):
        series.missing(OPEN, OPEN + DAY)
    (series.folder / LEDGER).unlink()
    assert series.missing(OPEN, OPEN + DAY) == ((OPEN, OPEN + DAY),)
    assert keep(series, minutes(0), OPEN, OPEN + DAY).corrections == ()


def test_gaps_inside_sessions(series: Series) -> None:
    whole = [bar for day in range(4) for bar in minutes(day)]
    keep(
        series,
        [bar for bar in whole if not 100 <= (bar.start_ns - OPEN) // MINUTE < 130],
        OPEN,
        OPEN + 4 * DAY,
    )
    verdict = verify(series)
    assert verdict.gaps == ((OPEN + 100 * MINUTE, OPEN + 130 * MINUTE),)
    assert verdict.problems == (
        "No bars from 2026-03-02 16:10 UTC to 2026-03-02 16:40 UTC, inside a session.",
    )


def test_missing_minutes_of_a_quiet_instrument_say_nothing(series: Series) -> None:
    keep(series, [bar for bar in minutes(0) if bar.start_ns // MINUTE % 40 == 0], OPEN, OPEN + DAY)
    assert verify(series).problems == ()


def test_age(series: Series) -> None:
    keep(series, minutes(0), OPEN, OPEN + DAY)
    assert verify(series, now_ns=OPEN + 3 * DAY, max_age_ns=5 * DAY).problems == ()
    assert "The last bar ended" in verify(series, now_ns=OPEN + 9 * DAY, max_age_ns=5 * DAY).problems[0]


# --- kills and other writers ------------------------------------------------------------------------------


def _die(folder: str, at: int) -> None:
    """Store a second day and correct the first, and be killed at the ``at``-th durable step."""
    count = 0

    def reach(name: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    steps.on_step = reach
    series = Archive(folder).series(KEY)
    keep(series, _second(), OPEN, OPEN + 40 * DAY)


def _second() -> list[Bar]:
    first = minutes(0)
    first[5] = msgspec.structs.replace(first[5], close=1.0)
    return first + minutes(1) + minutes(31)


def test_killed_at_any_point(tmp_path: Path) -> None:
    """What was stored before is whole, and storing again gives the same as if nothing had happened."""
    killed = 0
    for at in range(1, 40):
        series = Archive(tmp_path / str(at)).series(KEY)
        keep(series, minutes(0), OPEN, OPEN + DAY)
        process = multiprocessing.get_context("fork").Process(target=_die, args=(str(tmp_path / str(at)), at))
        process.start()
        process.join(30)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
        found = series.read().bars()
        assert [bar.start_ns for bar in found if bar.start_ns < OPEN + DAY] == [
            b.start_ns for b in minutes(0)
        ]
        assert not any("damaged" in problem or "lost" in problem for problem in verify(series).problems)
        keep(series, _second(), OPEN, OPEN + 40 * DAY)
        assert series.read().bars() == _second()
        assert any(entry["bar"] == "2026-03-02T14:35:00Z" for entry in series.corrections())
        assert verify(series).problems == ()
        assert not list(series.folder.glob(".*.part"))
    assert killed >= 8


def _write_days(folder: str, days: range) -> None:
    series = Archive(folder).series(KEY)
    for day in days:
        keep(series, minutes(day), OPEN + day * DAY, OPEN + (day + 1) * DAY)


def test_two_writers(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=_write_days, args=(str(tmp_path), range(first, 8, 2))) for first in (0, 1)
    ]
    for one in writers:
        one.start()
    for one in writers:
        one.join(60)
        assert one.exitcode == 0
    series = Archive(tmp_path).series(KEY)
    assert series.read().bars() == [bar for day in range(8) for bar in minutes(day)]
    assert series.missing(OPEN, OPEN + 8 * DAY) == ()


# --- the archive ------------------------------------------------------------------------------------------


def test_find(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for bar in ("1min", "1d"):
        key = SeriesKey(conid=265598, bar=bar)
        days = [Bar(OPEN, OPEN + 390 * MINUTE, 1.0, 1.0, 1.0, 1.0, 1.0)]
        archive.series(key).store(AAPL, Columns.of(days), OPEN, OPEN + DAY, now_ns=FUTURE, final_ns=FUTURE)
    assert [one.key.bar for one in archive.all()] == ["1min", "1d"]
    assert archive.find("aapl", "1d").key.bar == "1d"
    assert archive.find("conid:265598", "1min").key.bar == "1min"
    assert archive.find("AAPL-STK-SMART-USD", "1min").key.bar == "1min"
    with pytest.raises(ArchiveError, match="2 series"):
        archive.find("AAPL")
    with pytest.raises(ArchiveError, match="No such bars") as caught:
        archive.find("APL")
    assert "AAPL" in caught.value.remedy


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="7min"):
        SeriesKey(conid=1, bar="7min")
    with pytest.raises(UsageError, match="mid"):
        SeriesKey(conid=1, bar="1min", source="mid")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no folder"):
        Archive(tmp_path / "file")
    with pytest.raises(ArchiveError, match="Nothing is stored"):
        read_whole(Archive(tmp_path).series(KEY))


def test_columns_of_nothing() -> None:
    assert Columns.empty().size == 0
    assert Columns.empty().problem() == ""
    assert Columns.join([]).start.dtype == np.int64


# --- whose bars -------------------------------------------------------------------------------------------


def test_bars_of_one_exchange_are_a_series_of_their_own(tmp_path: Path) -> None:
    """The stock at NASDAQ has the conid of the one at SMART: what is stored of the one is not of the other."""
    archive = Archive(tmp_path)
    whole = msgspec.structs.replace(AAPL, valid_exchanges=("SMART", "NASDAQ"))
    alone = msgspec.structs.replace(whole, exchange="NASDAQ")
    for contract in (whole, alone):
        key = SeriesKey(conid=AAPL.conid, bar="1min", exchange=one_exchange(contract))
        series = archive.series(key)
        assert series.missing(OPEN, OPEN + DAY)
        bars = minutes(0, price=100 if contract is whole else 90)
        series.store(contract, Columns.of(bars), OPEN, OPEN + DAY, now_ns=FUTURE, final_ns=FUTURE)
    assert [one.key.exchange for one in archive.all()] == ["", "NASDAQ"]
    for name in ("AAPL", "AAPL-STK-SMART-USD", "conid:265598"):
        assert archive.find(name).read().open[0] == 100
    for name in ("AAPL@NASDAQ", "AAPL-STK-NASDAQ-USD", "conid:265598@NASDAQ"):
        assert archive.find(name).read().open[0] == 90
    table = dataset.dataset(tmp_path, format="parquet", partitioning="hive").to_table()
    assert set(table.column("source").to_pylist()) == {"trades", "trades@NASDAQ"}


@pytest.mark.parametrize(
    ("kind", "exchange", "listing", "valid", "found"),
    [
        (SecurityType.STOCK, "SMART", "NASDAQ", ("SMART", "NASDAQ"), ""),
        (SecurityType.STOCK, "NASDAQ", "NASDAQ", ("SMART", "NASDAQ"), "NASDAQ"),
        (SecurityType.STOCK, "ARCA", None, (), "ARCA"),
        (SecurityType.FUTURE, "CME", "CME", ("CME", "QBALGO"), ""),
        (SecurityType.FUTURE, "QBALGO", "CME", ("CME", "QBALGO"), "QBALGO"),
        (SecurityType.INDEX, "CBOE", None, ("CBOE",), ""),
        (SecurityType.FOREX, "IDEALPRO", None, (), ""),
    ],
)
def test_what_trades_at_one_place_has_no_others(
    kind: SecurityType, exchange: str, listing: str | None, valid: tuple[str, ...], found: str
) -> None:
    contract = Contract(
        conid=1, symbol="X", security_type=kind, exchange=exchange, listing_exchange=listing,
        valid_exchanges=valid,
    )  # fmt: skip
    assert one_exchange(contract) == found


def test_an_emulators_bars_are_kept_from_those_of_ibkr(tmp_path: Path) -> None:
    emulated, real = Archive(tmp_path / "emulated"), Archive(tmp_path / "real")
    for archive in (emulated, real):
        archive.note_origin(emulated=archive is emulated)
        keep(archive.series(KEY), minutes(0), OPEN, OPEN + DAY)
        archive.note_origin(emulated=archive is emulated)
    with pytest.raises(ArchiveError, match=r"holds bars of an emulator; these would come from IBKR"):
        emulated.check_origin(emulated=False)
    with pytest.raises(ArchiveError, match="holds bars of IBKR; these would come from an emulator"):
        real.check_origin(emulated=True)


def test_the_beginning_is_never_after_what_is_stored(series: Series) -> None:
    keep(series, minutes(0), OPEN, OPEN + DAY)
    assert series.first_bar_ns() == OPEN
    assert not series.note_beginning(AAPL, OPEN + 60 * DAY)
    assert series.missing(OPEN - DAY, OPEN + 60 * DAY) == (
        (OPEN - DAY, OPEN),
        (OPEN + DAY, OPEN + 60 * DAY),
    )


def test_a_bar_before_the_beginning_disproves_it(series: Series) -> None:
    keep(series, minutes(60), OPEN + 60 * DAY, OPEN + 61 * DAY)
    assert series.note_beginning(AAPL, OPEN + 60 * DAY)
    keep(series, minutes(0), OPEN, OPEN + DAY)
    assert series.missing(OPEN - DAY, OPEN + DAY) == ((OPEN - DAY, OPEN),)
