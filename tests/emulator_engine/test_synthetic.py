"""The market made from a seed."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pytest

from bt_ibkr.emulator.build import open_market
from bt_ibkr.emulator.engine import Engine, EngineConfig
from bt_ibkr.emulator.market.synthetic import SyntheticMarket, SyntheticShape
from bt_ibkr.emulator.market.tape import VALUE_COLUMNS
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.types import MarketEvent
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.errors import UsageError

DAY = date(2026, 3, 2)
OPEN_NS = 1_772_461_800 * 10**9
MINUTE_NS = 60 * 10**9
AAPL, IBM, EURUSD = 265598, 8314, 12087792


def make(
    universe: Universe, *conids: int, seed: int = 0, shape: SyntheticShape | None = None
) -> SyntheticMarket:
    instruments = [universe.by_conid(conid) for conid in conids]
    return SyntheticMarket([one for one in instruments if one], DAY, seed, shape=shape)


def events(tape: SyntheticMarket) -> list[MarketEvent]:
    tape.restart()
    found = []
    while tape.next_ns() is not None:
        found.append(tape.pop())
    tape.restart()
    return found


def test_a_day_of_two_stocks(universe: Universe) -> None:
    tape = make(universe, AAPL, IBM)
    assert 30_000 <= len(tape) <= 60_000
    assert tape.start_ns == OPEN_NS
    assert OPEN_NS + 389 * MINUTE_NS < tape.end_ns < OPEN_NS + 390 * MINUTE_NS
    assert set(tape.conids) == {AAPL, IBM}
    times = tape.columns()[0]
    assert (np.diff(times) >= 0).all()


def test_trades_are_at_bid_or_ask_and_prices_on_the_grid(universe: Universe) -> None:
    bid = ask = None
    trades = 0
    for event in events(make(universe, AAPL)):
        bid, ask = event.bid or bid, event.ask or ask
        assert bid is not None
        assert ask is not None
        assert bid < ask
        for price in (event.bid, event.ask, event.last):
            assert price is None or abs(price * 100 - round(price * 100)) < 1e-9
        if event.last is not None:
            trades += 1
            assert event.last in (bid, ask)
            assert event.last_size is not None
            assert event.last_size >= 1
    assert trades > 5_000


def test_the_same_seed_gives_the_same_day(universe: Universe) -> None:
    first = events(make(universe, AAPL, IBM, seed=7))
    tape = make(universe, AAPL, IBM, seed=8)
    assert events(tape) != first
    tape.reseed(7)
    assert events(tape) == first


def test_instruments_do_not_disturb_each_other(universe: Universe) -> None:
    alone = events(make(universe, AAPL))
    together = [event for event in events(make(universe, IBM, AAPL)) if event.conid == AAPL]
    assert together == alone


def test_activity_is_highest_at_the_ends(universe: Universe) -> None:
    times = make(universe, AAPL).columns()[0]
    counts = np.histogram((times - OPEN_NS) / (390 * MINUTE_NS), bins=5, range=(0, 1))[0]
    assert counts[0] > counts[2] < counts[4]


@pytest.mark.parametrize("seed", range(5))
def test_averages_cross_several_times_a_day(universe: Universe, seed: int) -> None:
    tape = make(universe, AAPL, seed=seed)
    engine = Engine(tape=tape, universe=universe, config=EngineConfig())
    engine.advance()
    closes = np.array([bar.close for bar in engine.history(AAPL, OPEN_NS, tape.end_ns, MINUTE_NS)])
    fast = np.convolve(closes, np.ones(10) / 10, "valid")[20:]
    slow = np.convolve(closes, np.ones(30) / 30, "valid")
    assert (np.diff(np.sign(fast - slow)) != 0).sum() >= 4


def test_history_joins_the_day(universe: Universe) -> None:
    tape = make(universe, AAPL, shape=SyntheticShape(prior_days=3))
    engine = Engine(tape=tape, universe=universe, config=EngineConfig())
    bars = engine.history(AAPL, 0, OPEN_NS, MINUTE_NS)
    assert len(bars) == 3 * 390
    assert bars[-1].close == pytest.approx(230.0)
    # the Thursday, Friday and Wednesday before; the week-end has none
    assert bars[-390].start_ns == OPEN_NS - 3 * 86_400 * 10**9
    assert all(bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high for bar in bars)
    quote = engine.quote(AAPL)
    assert quote is not None
    assert quote.prior_close == bars[-1].close
    assert make(universe, AAPL, shape=SyntheticShape(prior_days=3)).prior_bars() == tape.prior_bars()


def test_pairs_have_quotes_only(universe: Universe) -> None:
    tape = make(universe, EURUSD)
    assert np.isnan(tape.columns()[2]["last"]).all()
    assert set(tape.columns()[2]) == set(VALUE_COLUMNS)
    assert tape.start_ns == OPEN_NS


def test_what_cannot_be_made(universe: Universe) -> None:
    apple = universe.by_symbol("AAPL")[:1]
    with pytest.raises(UsageError, match="not a weekday"):
        SyntheticMarket(apple, date(2026, 3, 1))
    with pytest.raises(UsageError, match="a holiday"):
        SyntheticMarket(apple, date(2026, 4, 3))
    with pytest.raises(UsageError, match="at least one day"):
        SyntheticMarket(apple, DAY, shape=SyntheticShape(days=0))
    with pytest.raises(UsageError, match="at least one"):
        SyntheticMarket([], DAY)
    with pytest.raises(UsageError, match="events per second"):
        SyntheticMarket(apple, DAY, shape=SyntheticShape(events_per_second=0))


# --- several days, other types ----------------------------------------------------------------------


def opens(tape: SyntheticMarket, conid: int) -> list[tuple[str, str]]:
    """First minute and last hour of each day on which an instrument trades."""
    times, conids, _ = tape.columns()
    stamps = [datetime.fromtimestamp(one // 10**9, tz=UTC) for one in times[conids == conid].tolist()]
    days: dict[date, list[datetime]] = {}
    for stamp in stamps:
        days.setdefault(stamp.date(), []).append(stamp)
    return [(f"{day[0]:%m-%d %H:%M}", f"{day[-1]:%m-%d %H}") for day in days.values()]


def test_days_follow_the_calendar(universe: Universe) -> None:
    """Thanksgiving, the half day after it, a week-end; forex trades on."""
    apple, euro = universe.by_conid(AAPL), universe.by_conid(EURUSD)
    assert apple is not None
    assert euro is not None
    shape = SyntheticShape(days=3, events_per_second=0.02, prior_days=1)
    tape = SyntheticMarket([apple, euro], date(2025, 11, 26), shape=shape)
    assert opens(tape, AAPL) == [
        ("11-26 14:30", "11-26 20"),
        ("11-28 14:30", "11-28 17"),
        ("12-01 14:30", "12-01 20"),
    ]
    assert [day for day, _ in opens(tape, EURUSD)] == [
        "11-26 14:30",
        "11-27 14:30",
        "11-28 14:30",
        "12-01 14:30",
    ]
    bars = tape.prior_bars()[AAPL]
    assert (len(bars), datetime.fromtimestamp(bars[0].start_ns // 10**9, tz=UTC).day) == (390, 25)


def test_days_over_a_change_of_the_clock(universe: Universe) -> None:
    apple = universe.by_conid(AAPL)
    assert apple is not None
    tape = SyntheticMarket([apple], date(2026, 3, 6), shape=SyntheticShape(days=2, events_per_second=0.02))
    assert [day for day, _ in opens(tape, AAPL)] == ["03-06 14:30", "03-09 13:30"]


def test_a_further_day_leaves_the_first_as_it_is(universe: Universe) -> None:
    one = events(make(universe, AAPL, seed=3))
    two = events(make(universe, AAPL, seed=3, shape=SyntheticShape(days=2)))
    assert two[: len(one)] == one
    assert two == events(make(universe, AAPL, seed=3, shape=SyntheticShape(days=2)))
    # over night the price moves by a gap, not to somewhere else
    before, after = one[-1], two[len(one)]
    last = next(event.bid for event in reversed(one) if event.bid is not None)
    assert after.bid is not None
    assert after.bid == pytest.approx(last, rel=0.05)
    assert after.time_ns > before.time_ns


def test_an_index_has_levels_alone(universe: Universe) -> None:
    tape = make(universe, 416904, shape=SyntheticShape(events_per_second=0.05))
    columns = tape.columns()[2]
    assert np.isnan(columns["bid"]).all()
    assert np.isnan(columns["ask"]).all()
    assert (columns["last_size"] == 0).all()
    assert not np.isnan(columns["last"]).any()


def test_what_pays_1_is_worth_less_than_1(universe: Universe) -> None:
    tape = make(universe, 722489372, shape=SyntheticShape(events_per_second=0.05, jumps=500))
    columns = tape.columns()[2]
    for name in ("bid", "ask", "last"):
        prices = columns[name][~np.isnan(columns[name])]
        assert ((prices >= 0.01) & (prices <= 0.99)).all()
    bars = tape.prior_bars()[722489372]
    assert all(0 < bar.low <= bar.high < 1 for bar in bars)


@pytest.mark.parametrize(
    ("names", "symbols"),
    [
        (("ES",), ["ESH6"]),
        (("ESM6", "SPX"), ["ESM6", "SPX"]),
        (("conid:134770228",), ["SPY"]),
        (("conid:722489376",), ["FF Jan27'27 3.125 YES"]),
        (("VFIAX", "conid:701000001", "IBUS500"), ["VFIAX", "IBM", "SPX"]),
    ],
)
def test_any_type_can_be_named(names: tuple[str, ...], symbols: list[str]) -> None:
    """Futures by their front month; what follows from another by that."""
    settings = EmulatorSettings(synthetic_instruments=names, synthetic_rate=0.01, history_days=0)
    universe, tape = open_market(settings)
    found = [universe.by_conid(conid) for conid in tape.conids]
    assert sorted(one.local_symbol or one.contract.symbol for one in found if one) == sorted(symbols)
