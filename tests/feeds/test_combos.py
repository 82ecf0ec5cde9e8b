"""Combo feeds: quotes, bars and history made of the legs', negative prices included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.model.contract import Contract, Leg, SecurityType
from bt_ibkr.model.market import Bar, DataQuality, Tick
from bt_ibkr.services.combo_history import join_bars
from bt_ibkr.services.combo_quotes import ComboQuote, leg_points
from bt_ibkr.services.datanames import parse_dataname

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape

COMBO = "COMBO:AAPL*1,MSFT*-2"
MINUTE = 60_000_000_000


def contract(conid: int, multiplier: float = 1.0, *legs: Leg) -> Contract:
    kind = SecurityType.COMBO if legs else SecurityType.STOCK
    return Contract(conid=conid, symbol=f"N{conid}", security_type=kind, multiplier=multiplier, legs=legs)


def tick(conid: int, time_ns: int = 1, bid: float | None = None, ask: float | None = None, *,
         last: float | None = None, sizes: tuple[float | None, float | None] = (None, None),
         quality: DataQuality = DataQuality.REALTIME, halted: bool = False) -> Tick:  # fmt: skip
    return Tick(time_ns, conid, bid, ask, *sizes, last, None, 0.0, None, quality, halted, time_ns)


@pytest.fixture
def quote() -> ComboQuote:
    return ComboQuote(contract(-7, 1.0, Leg(1, 1), Leg(2, -2)), [contract(1), contract(2)])


def test_bid_and_ask_are_what_the_legs_cost(quote: ComboQuote) -> None:
    assert quote.take(0, tick(1, 5, 200.0, 200.1, last=200.05, sizes=(300, 500))) is None
    made = quote.take(1, tick(2, 4, 150.0, 150.2, last=150.1, sizes=(100, 700)))
    assert made is not None
    # Sold at once: 200.0 - 2 * 150.2; bought at once: 200.1 - 2 * 150.0. Exact, not 0.30000000000000004.
    assert (made.bid, made.ask, made.last) == (-100.4, -99.9, -100.15)
    assert (made.bid_size, made.ask_size) == (300, 50)
    assert (made.time_ns, made.conid, made.traded) == (5, -7, 0.0)


def test_leg_without_a_price_leaves_the_combo_without(quote: ComboQuote) -> None:
    quote.take(0, tick(1, bid=200.0, ask=200.1))
    made = quote.take(1, tick(2, bid=150.0))
    assert made is not None
    # The second leg is sold when the combo is bought: its bid makes the ask.
    assert (made.bid, made.ask, made.last) == (None, -99.9, None)
    quote.forget()
    assert quote.take(1, tick(2, bid=150.0, ask=150.2)) is None


def test_worst_quality_and_any_halt_speak_for_the_combo(quote: ComboQuote) -> None:
    quote.take(0, tick(1, quality=DataQuality.DELAYED))
    made = quote.take(1, tick(2, halted=True))
    assert made is not None
    assert (made.quality, made.halted) == (DataQuality.DELAYED, True)


def test_shares_against_an_option_are_priced_by_the_share() -> None:
    combo = contract(-7, 100.0, Leg(1, 100), Leg(2, -1))
    points = leg_points(combo, [contract(1), contract(2, 100.0)])
    assert [float(one) for one in points] == [1.0, -1.0]


def test_history_is_joined_by_time() -> None:
    points = leg_points(contract(-7, 1.0, Leg(1, 1), Leg(2, -1)), [contract(1), contract(2)])

    def bar(minute: int, first: float, last: float) -> Bar:
        start = minute * MINUTE
        return Bar(start, start + MINUTE, first, max(first, last) + 1, min(first, last) - 1, last, 10.0)

    joined = join_bars(
        points, [[bar(0, 10, 11), bar(1, 11, 12), bar(3, 13, 14)], [bar(1, 20, 21), bar(2, 22, 23)]]
    )
    assert [(b.start_ns // MINUTE, b.open, b.high, b.low, b.close, b.volume) for b in joined] == [
        (1, -9.0, -9.0, -9.0, -9.0, 0.0),
        (2, -10.0, -10.0, -11.0, -11.0, 0.0),
        (3, -10.0, -9.0, -10.0, -9.0, 0.0),
    ]  # fmt: skip


def legs(tape: type[Tape], seconds: int = 240) -> dict[str, Tape]:
    """AAPL rises by a cent a second; MSFT stands, but falls by 1 at second 90: the combo is around -100."""
    apple, soft = tape(), tape()
    for second in range(0, seconds, 10):
        apple.quote(second, 200.0 + second / 100, 200.02 + second / 100)
        apple.trade(second + 1, 200.01 + second / 100)
        price = 150.0 if second < 90 else 149.0
        soft.quote(second + 2, price, price + 0.02)
        soft.trade(second + 3, price + 0.01)
    return {"AAPL": apple, "MSFT": soft}


@pytest.mark.parametrize(
    ("what", "price"),
    [
        (None, lambda a, m: a + 0.01 - 2 * (m + 0.01)),
        ("BID", lambda a, m: a - 2 * (m + 0.02)),
        ("ASK", lambda a, m: a + 0.02 - 2 * m),
        ("TRADES", lambda a, m: a + 0.01 - 2 * (m + 0.01)),
    ],
)
def test_live_bars(bench: Bench, tape: type[Tape], what: str | None, price: Any) -> None:
    run = bench.run(
        bench.line(market=bench.market(**legs(tape))),
        feeds=[{"dataname": COMBO, "what": what}, {"dataname": "AAPL"}],
        cerebro={"stdstats": True},
    )
    frame = run.strategy.frame(COMBO)
    ends = [moment.minute for moment in frame.index]
    assert ends == [31, 32, 33, 34]
    last = [(200.5, 150.0), (201.1, 149.0), (201.7, 149.0), (202.3, 149.0)]
    assert list(frame["close"]) == pytest.approx([price(*one) for one in last])
    assert (frame["low"] <= frame["close"]).all()
    # The first bar's low is its beginning: AAPL only rises in it.
    assert frame["high"].iloc[0] == pytest.approx(price(200.5, 150.0))
    assert set(frame["volume"]) == {0.0}
    assert len(run.strategy.frame("AAPL")) == 4


def test_indicators_on_prices_below_zero(bench: Bench, tape: type[Tape]) -> None:
    seen: list[tuple[float, ...]] = []

    def prepare(strategy: Any) -> None:
        strategy.mean = bt.indicators.SMA(strategy.data, period=2)
        strategy.highest = bt.indicators.Highest(strategy.data.high, period=2)
        strategy.rsi = bt.indicators.RSI(strategy.data, period=2, safediv=True)

    def look(strategy: Any) -> None:
        seen.append((strategy.mean[0], strategy.highest[0], strategy.rsi[0]))

    run = bench.run(
        bench.line(market=bench.market(**legs(tape))), look, init=prepare, feeds=[{"dataname": COMBO}]
    )
    closes = list(run.strategy.frame(COMBO)["close"])
    assert all(close < 0 for close in closes)
    assert seen[-1][0] == pytest.approx((closes[-1] + closes[-2]) / 2)
    assert seen[-1][1] == pytest.approx(max(run.strategy.frame(COMBO)["high"].iloc[-2:]))
    assert 0 <= seen[-1][2] <= 100


def test_history_then_live_without_gap_or_overlap(bench: Bench, tape: type[Tape]) -> None:
    tapes = legs(tape, 900)
    line = bench.line(market=bench.market(**tapes))
    line.step(bench.opening(315))
    run = bench.run(line, feeds=[{"dataname": COMBO, "backfill_start": True}])
    frame = run.strategy.frame(COMBO)
    minutes = [moment.minute for moment in frame.index]
    assert minutes == list(range(31, 46))
    assert run.strategy.told(COMBO)[:3] == ["CONNECTED", "DELAYED", "LIVE"]
    expected = [
        200.51 + minute * 0.6 - 2 * ((150.0 if minute == 0 else 149.0) + 0.01) for minute in range(15)
    ]
    assert list(frame["close"]) == pytest.approx(expected)


def test_historical_run(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=bench.market(**legs(tape, 900)))
    line.step(bench.opening(601))
    run = bench.run(line, feeds=[{"dataname": COMBO, "historical": True, "what": "TRADES"}])
    assert [moment.minute for moment in run.strategy.frame(COMBO).index] == list(range(31, 41))
    assert run.strategy.frame(COMBO)["close"].iloc[-1] == pytest.approx(205.91 - 298.02)


def test_two_feeds_of_one_combo(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=bench.market(**legs(tape)))
    run = bench.run(
        line, feeds=[{"dataname": COMBO, "name": "a"}, {"dataname": COMBO, "name": "b", "what": "BID"}]
    )
    assert len(run.strategy.frame("a")) == len(run.strategy.frame("b")) == 4


def test_conidex_names_the_same_combo(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=bench.market(**legs(tape)))
    with line.store:
        line.store.start()
        named = line.store.connection.resolve(parse_dataname(COMBO))
        ids = ",".join(f"{leg.conid}/{leg.ratio}" for leg in named.legs)
        written = line.store.connection.resolve(parse_dataname(f"28812380;;;{ids}"))
        assert (written.conid, written.legs) == (named.conid, named.legs)
        assert line.store.connection.availability(named)[:1] == "R"
