"""A day's volume that begins anew: whatever frames are missed, what traded adds up to it, day by day."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.clock import NS_PER_MS, NS_PER_S
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.hours import next_turn_ns
from bt_ibkr.wire.frames import decode
from bt_ibkr.wire.quotes import QuoteMerger

IBM = Contract(
    conid=1, symbol="IBM", security_type=SecurityType.STOCK, exchange="SMART", currency="USD",
    listing_exchange="NYSE",
)  # fmt: skip
ES = Contract(conid=2, symbol="ES", security_type=SecurityType.FUTURE, exchange="CME", currency="USD")
BTC = Contract(conid=3, symbol="BTC", security_type=SecurityType.CRYPTO, exchange="PAXOS", currency="USD")
#: A Tuesday, 14:30 in New York.
TUESDAY = datetime(2026, 3, 3, 19, 30, tzinfo=UTC)


class Told:
    """A merger, and frames for it by what they say."""

    def __init__(self, contract: Contract = IBM) -> None:
        self.merger = QuoteMerger(1, partial(next_turn_ns, contract))

    def __call__(
        self,
        when: datetime,
        volume: float | None = None,
        size: float | None = None,
        close: str | None = None,
        opens: str | None = None,
    ) -> float:
        """What traded by this frame."""
        fields = {"7762": volume, "7059": size, "7741": close, "7295": opens}
        at_ms = int(when.timestamp() * 1000)
        frame = {"topic": "smd+1", "_updated": at_ms, **{k: v for k, v in fields.items() if v is not None}}
        tick = self.merger.apply(decode(json.dumps(frame)), at_ms * NS_PER_MS)
        return 0.0 if tick is None else tick.traded


MORNING = TUESDAY + timedelta(hours=19)


@pytest.mark.parametrize(
    ("volume", "size", "traded"),
    [
        (1, 1, 1),
        (60, 60, 60),  # more than half of the old day's
        (60, 10, 60),
        (97, 10, 97),
        (100.0, 5, 0),  # no news
        (99, 5, 0),  # corrected over night
        (400, 100, 400),  # more than all of it
        (400, 400, 400),
        (150, 50, 50),  # the trade's own size explains what was added
    ],
)
def test_the_first_volume_of_a_new_day(volume: float, size: float, traded: float) -> None:
    told = Told()
    told(TUESDAY, 100, 5)
    assert told(MORNING, volume, size) == traded
    # From there on it is the new day's.
    assert told(MORNING + timedelta(seconds=1), volume + 7, 7) == 7


@pytest.mark.parametrize("volume", [60, 99, 100, 101, 150, 1_000])
@pytest.mark.parametrize("fields", [{"close": "11"}, {"opens": "12"}])
def test_fields_that_change_with_the_day_decide(volume: float, fields: dict[str, str]) -> None:
    told = Told()
    told(TUESDAY, 100, 5, close="10", opens="10.5")
    told(MORNING - timedelta(minutes=1), **fields)  # type: ignore[arg-type]
    size = volume if volume == 100 else 50
    assert told(MORNING, volume, size) == volume


def test_the_open_comes_hours_after_the_volume() -> None:
    """Before the bell of the regular session stocks trade already: their volume is not counted twice."""
    told = Told()
    told(TUESDAY, 1_000, 5, close="10", opens="10.5")
    assert told(MORNING - timedelta(hours=4), 300, 300, close="11") == 300
    assert told(MORNING, 350, 20) == 50
    assert told(MORNING + timedelta(minutes=1), 400, 20, opens="12") == 50
    assert told(MORNING + timedelta(minutes=2), 460, 20) == 60
    # What changed then says nothing of the next day's first frame either.
    late = MORNING + timedelta(hours=20)
    assert told(late, 500, 40) == 40
    assert told(late + timedelta(minutes=50), 600, 20) == 100


def test_a_server_that_begins_the_volume_late() -> None:
    """Trades go on past the hour at which the calendar turns: a whole day's volume is no trade."""
    told = Told(BTC)
    midnight = datetime(2026, 3, 4, 5, 0, tzinfo=UTC)
    told(midnight - timedelta(minutes=5), 1_000_000, 5)
    assert told(midnight + timedelta(minutes=5), 1_000_300, 100) == 300
    assert told(midnight + timedelta(hours=2), 1_000_900, 100) == 600
    assert told(midnight + timedelta(hours=3), 120, 100) == 120


def test_corrections_within_a_day_are_none_of_another() -> None:
    told = Told()
    told(TUESDAY, 100, 5)
    assert [told(TUESDAY + timedelta(seconds=s), v, 5) for s, v in ((1, 90), (2, 60), (3, 65))] == [0, 0, 5]


def test_the_first_frame_of_a_new_day_after_a_reconnect_is_a_picture() -> None:
    told = Told()
    told(TUESDAY, 100, 5, close="10")
    told.merger.resubscribed()
    assert told(MORNING, 160, 5, close="11") == 0
    assert told(MORNING + timedelta(hours=1), 200, 5) == 40


@pytest.mark.parametrize(
    ("contract", "local", "turn"),
    [
        (IBM, "2026-03-03T19:30", "2026-03-04T09:00"),
        (IBM, "2026-03-07T12:00", "2026-03-08T08:00"),  # summer time begins
        (ES, "2026-03-03T19:30", "2026-03-03T22:00"),
        (ES, "2026-03-03T22:00", "2026-03-04T22:00"),
        (BTC, "2026-03-03T19:30", "2026-03-04T05:00"),
    ],
)
def test_when_days_turn(contract: Contract, local: str, turn: str) -> None:
    moment = int(datetime.fromisoformat(local).replace(tzinfo=UTC).timestamp()) * NS_PER_S
    expected = int(datetime.fromisoformat(turn).replace(tzinfo=UTC).timestamp()) * NS_PER_S
    assert next_turn_ns(contract, moment) == expected


trades = st.lists(st.integers(1, 50), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(trades, min_size=1, max_size=5), st.data())
def test_what_traded_adds_up_day_by_day(days: list[list[int]], data: st.DataObject) -> None:
    """Any frames may be missed; the day's volume as it was told last is what traded that day.

    At least one of the three things that show a day's beginning must be told: the previous close, a pause that the
    last trade alone does not explain, or a volume that shrinks.
    """
    told = Told()
    told(TUESDAY - timedelta(hours=2), 0, close="0")
    before = 0
    for number, sizes in enumerate(days):
        start = TUESDAY + timedelta(days=number)
        if number:
            told(start - timedelta(hours=8), close=str(number))
        volume = seen = 0
        traded = 0.0
        for minute, size in enumerate(sizes):
            volume += size
            if data.draw(st.booleans()):
                traded += told(start + timedelta(minutes=minute), volume, size)
                if volume == before and not seen and size != volume:
                    # The same number as the evening before, and not by a single trade: nobody can tell.
                    return
                seen = volume
        assert traded == seen
        before = seen or before


@settings(deadline=None)
@given(st.integers(100, 10_000), st.lists(st.floats(-0.02, 0.05), max_size=30))
def test_small_corrections_count_nothing_twice(first: int, moves: list[float]) -> None:
    """However the volume is taken back by up to 2 % and told again, what traded is what it grew by."""
    told = Told()
    highest = first
    assert told(TUESDAY, first, 7) == 0
    traded = 0.0
    for second, move in enumerate(moves, 1):
        volume = int(highest * (1 + move)) + 1
        traded += told(TUESDAY + timedelta(seconds=second), volume, 7)
        highest = max(highest, volume)
        assert traded == highest - first


def test_the_day_after_a_correction_counts_from_nothing() -> None:
    told = Told()
    told(TUESDAY, 1_000, 5)
    assert told(TUESDAY + timedelta(seconds=1), 990, 5) == 0
    assert told(MORNING, 300, 100) == 300
    assert told(MORNING + timedelta(seconds=1), 350, 50) == 50
    assert told(MORNING + timedelta(seconds=2), 1_010, 660) == 660
