"""Frames and the quote they make: recorded ones to the last digit, and anything else without a crash."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_MS
from bt_ibkr.errors import WireError
from bt_ibkr.model.market import DataQuality, Tick
from bt_ibkr.wire.frames import (
    MAX_FRAME,
    QUOTE_FIELDS,
    AnnotatedFrame,
    Frame,
    QuoteFrame,
    decode,
    decode_quote,
)
from bt_ibkr.wire.quotes import QuoteMerger

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "ibkr" / "fixtures" / "ws-frames.jsonl"
TAGS = {
    "last": "31", "bid": "84", "ask": "86", "ask_size": "85", "bid_size": "88", "last_size": "7059",
    "volume": "7762",
}  # fmt: skip


def smd(at_ms: Any = 1_000, **fields: Any) -> str:
    """A frame of market data, with our names for the tags."""
    named = {TAGS.get(name, name): value for name, value in fields.items()}
    return json.dumps({"topic": "smd+1", "conid": 1, "_updated": at_ms, **named})


def feed(merger: QuoteMerger, *frames: str) -> list[Tick]:
    ticks = [merger.apply(decode(frame), 5) for frame in frames]
    return [tick for tick in ticks if tick is not None]


# --- recorded frames -----------------------------------------------------------------------------------

RECORDED = [
    (
        '{"6509": "DPB", "conidEx": "265598", "topic": "smd+265598", "conid": 265598, "_updated": 1777552110061,'
        ' "6119": "q1", "83": 0.56, "server_id": "q1", "84": "271.55", "31": "271.67", "86": "271.66"}'
    ),
    (
        '{"server_id": "q1", "conidEx": "265598", "conid": 265598, "_updated": 1777552119103, "6119": "q1",'
        ' "84": "271.68", "31": "271.68", "86": "271.70", "topic": "smd+265598"}'
    ),
    (
        '{"server_id": "q1", "conidEx": "265598", "conid": 265598, "_updated": 1777552148165, "6119": "q1",'
        ' "31": "271.74", "86": "271.73", "83": 0.58, "topic": "smd+265598"}'
    ),
]


def test_recorded_frames_make_the_recorded_quote() -> None:
    """Recorded 2026-04-30; the first one was delivered twice, the third leaves the bid out."""
    merger = QuoteMerger(265598)
    ticks = feed(merger, RECORDED[0], *RECORDED)
    assert [(tick.time_ns, tick.bid, tick.ask, tick.last) for tick in ticks] == [
        (1777552110061 * NS_PER_MS, 271.55, 271.66, 271.67),
        (1777552119103 * NS_PER_MS, 271.68, 271.70, 271.68),
        (1777552148165 * NS_PER_MS, 271.68, 271.73, 271.74),
    ]
    assert {tick.quality for tick in ticks} == {DataQuality.DELAYED}
    assert not DataQuality.DELAYED.live
    assert {tick.received_ns for tick in ticks} == {5}
    assert ticks[-1] == merger_state(merger, ticks[-1])


def merger_state(merger: QuoteMerger, like: Tick) -> Tick:
    """The tick that the merger's present state would make."""
    names = ("bid", "ask", "bid_size", "ask_size", "last", "last_size", "volume", "quality", "halted")
    return msgspec.structs.replace(like, **{name: getattr(merger, name) for name in names})


def test_every_recorded_server_frame_is_read() -> None:
    if not SHARED.is_file():
        pytest.skip(f"{SHARED} is not there: the recorded frames are kept outside the repository")
    lines = [json.loads(line) for line in SHARED.read_text("utf-8").splitlines() if line.strip()]
    frames = [line["frame"] for line in lines if line["dir"] == "s2c" and isinstance(line["frame"], dict)]
    assert len(frames) > 10
    market_data = 0
    for frame in frames:
        for data in (json.dumps(frame), json.dumps(frame).encode()):
            read = decode(data)
            assert read.topic == frame.get("topic")
        if str(frame.get("topic", "")).startswith("smd") and "conid" in frame:
            market_data += 1
            assert read.conid == frame["conid"]
            assert read.updated_ms == frame.get("_updated")
            for name, tag in TAGS.items():
                assert (getattr(read, name) is None) == (tag not in frame), (name, frame)
            tick = QuoteMerger(frame["conid"]).apply(read, 1)
            assert tick is not None
            assert tick.time_ns == frame["_updated"] * NS_PER_MS
    assert market_data >= 3


def test_a_snapshot_with_sizes() -> None:
    """IBKR's own sample: sizes as text, with a comma."""
    (tick,) = feed(
        QuoteMerger(1),
        smd(last="168.42", last_size="100", bid="168.41", ask_size="600", ask="168.42", bid_size="1,300")
        .replace("}", ', "6509": "RpB"}'),
    )  # fmt: skip
    assert (tick.bid, tick.bid_size, tick.ask, tick.ask_size) == (168.41, 1300.0, 168.42, 600.0)
    assert (tick.last, tick.last_size, tick.traded, tick.volume) == (168.42, 100.0, 0.0, None)
    assert tick.quality is DataQuality.REALTIME


def test_the_fields_a_feed_asks_for() -> None:
    """Sources differ on 88 and 7059; the recorded meaning is bid size and last size."""
    assert set(QUOTE_FIELDS) == {*TAGS.values(), "6509", "7741", "7295"}


# --- spellings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("193.18", 193.18), (193.18, 193.18), (193, 193.0), ("1,300", 1300.0), ("1,234,567.5", 1234567.5),
        ("12.2M", 12_200_000.0), ("3K", 3000.0), ("1.5B", 1.5e9), ("-0.5", -0.5), (".5", 0.5), ("0", 0.0),
        ("2.02E8", 2.02e8), (" 7 ", 7.0), ("0.54%", 0.54),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["last", "bid", "volume", "ask_size"])
def test_numbers(name: str, text: object, value: float) -> None:
    assert getattr(decode(smd(**{name: text})), name) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["N/A", "", "-", "--", "None", "NaN", " "])
@pytest.mark.parametrize("name", ["last", "bid", "ask", "bid_size", "volume"])
def test_not_available(name: str, text: str) -> None:
    """What the server withdraws is not known any more; that is a change, told once."""
    merger = QuoteMerger(1)
    first, gone = feed(merger, smd(**{name: 5}), smd(2_000, **{name: text}), smd(3_000, **{name: text}))
    assert getattr(first, name) == 5.0
    assert getattr(gone, name) is None
    assert gone.time_ns == 2_000 * NS_PER_MS


def test_null_leaves_a_value_as_it_was() -> None:
    merger = QuoteMerger(1)
    assert len(feed(merger, smd(bid=5), smd(2_000, bid=None))) == 1
    assert merger.bid == 5.0


@pytest.mark.parametrize("text", ["abc", "1.2.3", "Cx", "HC1", "1e999", "1x", "++1", "1_0", "٣", "1e400"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(WireError):
        decode(smd(last=text))


@pytest.mark.parametrize("value", [True, [], {}, ["1"], 1e300, -1e300, 10**400])
def test_what_is_no_price(value: object) -> None:
    with pytest.raises(WireError):
        decode(smd(last=value))


def test_previous_close_is_no_trade() -> None:
    """``C193.18`` before the first trade of a day."""
    merger = QuoteMerger(1)
    (tick,) = feed(merger, smd(last="C193.18", bid="193.00", ask="193.30"))
    assert (tick.last, tick.bid, tick.ask, tick.traded) == (None, 193.0, 193.3, 0.0)
    (trade,) = feed(merger, smd(2_000, last="194.00", last_size="100", volume="100"))
    assert (trade.last, trade.traded) == (194.0, 100.0)
    # Nor does it take the place of a trade that was seen.
    assert feed(merger, smd(3_000, last="C193.18")) == []
    assert merger.last == 194.0
    assert decode(smd(last="C")).last is None


def test_halts_are_marked_and_lifted() -> None:
    merger = QuoteMerger(1)
    ticks = feed(
        merger,
        smd(last="193.18", bid="193.1"),
        smd(2_000, last="H193.18"),
        smd(3_000, last="H193.18"),
        smd(4_000, bid="193.2"),
        smd(5_000, last="193.18"),
        smd(6_000, last="H193.50", bid="N/A"),
        smd(7_000, last="193.60"),
    )
    assert [(tick.time_ns // NS_PER_MS, tick.halted, tick.last) for tick in ticks] == [
        (1_000, False, 193.18),
        (2_000, True, 193.18),
        (4_000, True, 193.18),
        (5_000, False, 193.18),
        (6_000, True, 193.5),
        (7_000, False, 193.6),
    ]


def test_the_other_fields_of_an_odd_frame_are_kept() -> None:
    frame = decode(smd(last="C1.5", bid=2, volume="1,000"))
    assert isinstance(frame, AnnotatedFrame)
    assert (frame.topic, frame.conid, frame.updated_ms) == ("smd+1", 1, 1_000)
    assert (frame.last, frame.last_prefix, frame.bid, frame.volume) == (1.5, "C", 2.0, 1000.0)
    assert type(decode(smd(last="1.5"))) is Frame


# --- what makes a tick, and what traded ----------------------------------------------------------------------


def test_the_first_frame_is_a_picture() -> None:
    """Its volume is the day's so far, not a trade of now."""
    merger = QuoteMerger(1)
    (tick,) = feed(merger, smd(last=10, last_size=5, volume=1_000_000))
    assert (tick.traded, tick.volume) == (0.0, 1_000_000.0)
    (tick,) = feed(merger, smd(2_000, volume=1_000_300, last_size=100))
    assert (tick.traded, tick.last_size) == (300.0, 100.0)


def test_an_empty_first_frame_is_a_tick_too() -> None:
    """It proves that the subscription lives."""
    (tick,) = feed(QuoteMerger(1), smd())
    assert (tick.bid, tick.last, tick.traded) == (None, None, 0.0)


def test_a_new_day_begins_its_volume_anew() -> None:
    merger = QuoteMerger(1)
    ticks = feed(merger, smd(last=10, volume=1_000_000), smd(2_000, volume=250), smd(3_000, volume=300))
    assert [tick.traded for tick in ticks] == [0.0, 250.0, 50.0]


def test_a_volume_that_shrinks_a_little_is_a_correction() -> None:
    merger = QuoteMerger(1)
    feed(merger, smd(last=10, volume=1_000))
    assert [tick.traded for tick in feed(merger, smd(2_000, volume=990))] in ([], [0.0])
    # The ten were counted when they were told first.
    assert [tick.traded for tick in feed(merger, smd(3_000, volume=1_010))] == [10.0]


def test_volume_that_appears_late() -> None:
    """Before the first trade there is none; the first one's own size is what is known."""
    merger = QuoteMerger(1)
    feed(merger, smd(bid=9, ask=11))
    (tick,) = feed(merger, smd(2_000, last=10, last_size=100, volume=100))
    assert (tick.traded, tick.last) == (100.0, 10.0)


def test_trades_without_a_volume_field() -> None:
    """Some instruments have none: a new last price is a trade of the last size."""
    merger = QuoteMerger(1)
    ticks = feed(merger, smd(last=10, last_size=5), smd(2_000, last=11, last_size=7), smd(3_000, bid=9))
    assert [tick.traded for tick in ticks] == [0.0, 7.0, 0.0]


def test_a_resubscription_begins_with_a_picture() -> None:
    merger = QuoteMerger(1)
    feed(merger, smd(last=10, volume=100))
    merger.resubscribed()
    (tick,) = feed(merger, smd(2_000, last=12, volume=5_000))
    assert (tick.traded, tick.volume) == (0.0, 5000.0)
    (tick,) = feed(merger, smd(3_000, volume=5_001))
    assert tick.traded == 1.0


def test_a_frame_without_a_time_has_the_last_one() -> None:
    merger = QuoteMerger(1)
    untimed = '{"topic": "smd+1", "conid": 1, "84": 5}'
    (tick,) = feed(merger, untimed)
    assert tick.time_ns == 5
    feed(merger, smd(7, bid=6))
    (tick,) = feed(merger, untimed)
    assert tick.time_ns == 7 * NS_PER_MS


def test_quality_changes_are_ticks() -> None:
    merger = QuoteMerger(1)
    codes = ["RpB", "RB", "DPB", "ZB", "Y", "Nx", "?!", "RpB"]
    frames = [smd(**{"6509": code}) for code in codes]
    assert [tick.quality.value for tick in feed(merger, *frames)] == ["R", "D", "Z", "Y", "N", "?", "R"]


# --- anything at all --------------------------------------------------------------------------------------

odd_numbers = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["C1", "H2", "1,000", "3K", "4M", "N/A", "", "-", "C", "H-1", "1e15", "1e16", "-0"]),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.none(), max_size=2),
)  # fmt: skip
keys = st.sampled_from(
    [
        *QUOTE_FIELDS,
        "topic",
        "conid",
        "_updated",
        "hb",
        "args",
        "result",
        "success",
        "error",
        "code",
        "message",
    ]
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def digest(data: str | bytes, merger: QuoteMerger) -> None:
    """Only WireError may come out, and every tick must be sound."""
    try:
        frame = decode(data)
    except WireError:
        return
    tick = merger.apply(frame, 1)
    if tick is None:
        return
    for value in (tick.bid, tick.ask, tick.last, tick.bid_size, tick.ask_size, tick.last_size, tick.volume):
        assert value is None or math.isfinite(value)
    assert math.isfinite(tick.traded)
    assert tick.traded >= 0 or (tick.last_size or 0) < 0 or (tick.volume or 0) < 0


@settings(deadline=None, max_examples=150)
@given(st.lists(st.dictionaries(keys, odd_numbers, max_size=8), max_size=6))
def test_odd_frames_never_break_the_quote(frames: list[dict[str, Any]]) -> None:
    merger = QuoteMerger(1)
    for frame in frames:
        digest(json.dumps(frame), merger)
        digest(json.dumps(frame, ensure_ascii=False).encode("utf-8", "surrogatepass"), merger)


@settings(deadline=None, max_examples=150)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200), json_values.map(json.dumps)))
def test_any_bytes_and_text(data: str | bytes) -> None:
    digest(data, QuoteMerger(1))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damaged_recorded_frames(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(RECORDED)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    digest(bytes(raw[: data.draw(st.integers(0, len(raw)))]), QuoteMerger(1))


@pytest.mark.parametrize(
    "data",
    [
        b"", "", b"\xff\xfe", "\ud800", "[]", "null", "1", '"x"', "{", '{"a":1}}', "[" * 100_000,
        '{"args":' + "[" * 100_000, b'{"topic":"\xff"}', '{"topic":5}', '{"conid":"x"}', '{"_updated":-1}',
        '{"31":' + "9" * 5000 + "}",
    ],
)  # fmt: skip
def test_unreadable(data: str | bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode(data)
    assert len(str(caught.value)) < 1_000


def test_too_large() -> None:
    with pytest.raises(WireError, match="refused"):
        decode(" " * (MAX_FRAME + 1))
    assert decode("{" + " " * (MAX_FRAME - 2) + "}").topic is None


prices = st.sampled_from([None, "10", "10.5", "11", "C10", "H10", "N/A"])
quotes = st.fixed_dictionaries(
    {},
    optional={
        "last": prices, "bid": st.sampled_from(["9", "9.5", "N/A"]), "ask_size": st.sampled_from(["1", "1,000"]),
        "last_size": st.sampled_from(["5", "6"]), "volume": st.sampled_from(["0", "100", "150", "1K", "2M", ""]),
        "6509": st.sampled_from(["RB", "DPB"]),
    },
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.lists(quotes, min_size=1, max_size=10))
def test_a_frame_delivered_twice_makes_one_tick(frames: list[dict[str, Any]]) -> None:
    """Recorded: many frames are; whatever the sequence, the quote and what traded are the same."""
    texts = [smd(1_000 + index, **fields) for index, fields in enumerate(frames)]
    once = feed(QuoteMerger(1), *texts)
    twice = feed(QuoteMerger(1), *(text for text in texts for _ in range(2)))
    assert twice == once


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.integers(1, 10**9))
def test_what_traded_adds_up_to_the_volume(steps: list[int], base: int) -> None:
    volumes = [base]
    for step in steps:
        volumes.append(volumes[-1] + step)
    ticks = feed(QuoteMerger(1), *(smd(1_000 + i, volume=one) for i, one in enumerate(volumes)))
    assert sum(tick.traded for tick in ticks) == sum(steps)


@given(
    st.dictionaries(
        st.sampled_from(["31", "84", "86", "85", "88", "7059", "7762"]),
        st.one_of(
            st.integers(0, 10**9).map(lambda n: f"{n:,}"),
            st.decimals(0, 10**6, places=2).map(lambda n: f"{n:,}"),
            st.floats(0, 1e6).map(lambda n: round(n, 4)),
            st.sampled_from(["C12.5", "H3", "1.2M", "N/A", "", "1,2", "12,34"]),
        ),
    )
)
def test_the_two_decoders_read_the_same_numbers(fields: dict[str, Any]) -> None:
    """The short way for market data is a short way, not another reading."""
    data = json.dumps({"topic": "smd+1", "_updated": 1, **fields}).encode()
    try:
        whole: Frame | str = decode(data)
    except WireError as problem:
        whole = str(problem)
    try:
        short: QuoteFrame | str = decode_quote(data)
    except WireError as problem:
        short = str(problem)
    if isinstance(whole, str) or isinstance(short, str):
        assert whole == short
        return
    for name in QuoteFrame.__struct_fields__:
        assert getattr(whole, name) == getattr(short, name)
    assert getattr(whole, "gone", frozenset()) == getattr(short, "gone", frozenset())
