"""A market that nobody traded: days of quotes and trades, made from a seed.

Each instrument has a random stream of its own (numpy's PCG64, keyed by seed, conid and day), so that adding
an instrument or a day leaves the others as they are. A day is the instrument's regular hours, on half days
shorter ones; over night prices move on by a gap. A day runs through regimes of some twenty minutes: trends up and
down, and stretches that pull the price back to where they began; jumps come now and then. Volatility,
activity and spread are largest at the open and the close. Prices lie on the tick grid, trades happen at bid
or ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal

import msgspec
import numpy as np

from bt_ibkr.clock import NS_PER_MS, NS_PER_S
from bt_ibkr.emulator.market.sessions import has_regular_hours, session_of_day, trading_days
from bt_ibkr.emulator.market.tape import VALUE_COLUMNS, Floats, Tape, merge
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.market import Bar

_SATURDAY = 5
_LONGEST_SESSION_NS = 12 * 3600 * NS_PER_S
_LOT = 100.0


class SyntheticShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a synthetic day behaves.

    Attributes:
        events_per_second: Per instrument, averaged over the day.
        trade_share: Of the events, how many are trades (none for instruments without trades).
        regime_minutes: Average length of a regime.
        trend_share: Of the regimes, how many are trends.
        trend_strength: Distance that a trend covers, in standard deviations of its length.
        reversion_minutes: Half-life of the pull in the other regimes.
        jumps: Per day, on average.
        spread_fraction: Of the price; at least one tick.
        prior_days: Trading days of history before the day.
        days: Trading days, those of the first instrument; others trade on the days between them on which they trade.
        gap: Standard deviation of the price's move over night, relative to that over a day.
    """

    events_per_second: float = 1.0
    trade_share: float = 0.4
    regime_minutes: float = 22.0
    trend_share: float = 0.65
    trend_strength: float = 1.6
    reversion_minutes: float = 4.0
    jumps: float = 2.0
    spread_fraction: float = 0.00005
    prior_days: int = 2
    days: int = 1
    gap: float = 0.3


class SyntheticMarket(Tape):
    """The tape of one or several synthetic days.

    Args:
        instruments: At least one; their reference prices are the prices at the first open.
        day: One on which any of them has regular hours.
        seed: Everything follows from it.
        shape: How the day behaves.

    Raises:
        UsageError: No instrument, a day without trade, or a shape without events or days.
    """

    def __init__(
        self,
        instruments: Iterable[Instrument],
        day: date,
        seed: int = 0,
        *,
        shape: SyntheticShape | None = None,
    ) -> None:
        self._instruments = tuple(instruments)
        self._day = day
        self._shape = shape or SyntheticShape()
        if not self._instruments:
            raise UsageError("A synthetic market needs at least one instrument.")
        if self._shape.events_per_second <= 0:
            raise UsageError("A synthetic market needs more than 0 events per second.")
        if self._shape.days < 1:
            raise UsageError("A synthetic market needs at least one day.")
        trading = [one for one in self._instruments if has_regular_hours(one, day)]
        if not trading:
            why = "not a weekday" if day.weekday() >= _SATURDAY else "a holiday"
            raise UsageError(
                f"{day.isoformat()} is {why}: none of the instruments trades on it.",
                remedy="Name a day from Monday to Friday that is no holiday.",
            )
        self._last_day = trading_days(trading[0], day, self._shape.days)[-1]
        self._make(seed)

    def reseed(self, seed: int) -> None:
        """Make the day anew from another seed."""
        self._make(seed)

    def _make(self, seed: int) -> None:
        tapes = [
            tape
            for one in self._instruments
            for tape in _Maker(one, self._day, seed, self._shape).tapes(self._last_day)
        ]
        made = merge(tapes)
        super().__init__(*made.columns(), prior_bars=made.prior_bars())


class _Maker:
    """Makes the day of one instrument."""

    def __init__(self, instrument: Instrument, day: date, seed: int, shape: SyntheticShape) -> None:
        self._instrument = instrument
        self._day = day
        self._seed = seed
        self._shape = shape
        self._tick = instrument.contract.tick_size
        exponent = Decimal(repr(self._tick)).as_tuple().exponent
        self._decimals = -exponent if isinstance(exponent, int) else 0
        self._level = float(np.log(instrument.reference_price))

    def tapes(self, last_day: date) -> list[Tape]:
        """One tape for each day until the last one; the first has the history before."""
        made: list[Tape] = []
        day = self._day
        while day <= last_day:
            if has_regular_hours(self._instrument, day):
                made.append(self._tape(day, first=not made))
            day += timedelta(days=1)
        return made

    def _tape(self, day: date, *, first: bool) -> Tape:
        prior = {self._instrument.contract.conid: self._prior_bars(day)} if first else {}
        opened, closed = _hours(self._instrument, day)
        random = self._random(day)
        seconds = (closed - opened) // NS_PER_S
        if not first:
            self._level += self._gap(day)
        path = self._level + self._path(random, seconds)
        self._level = float(path[-1])
        count = max(1, round(self._shape.events_per_second * seconds))
        offsets = self._moments(random, count, seconds)
        middle = np.exp(np.interp(offsets, np.arange(seconds + 1), path))
        values = self._events(random, middle, offsets / seconds)
        times = opened + np.floor(offsets * 1000).astype(np.int64) * NS_PER_MS
        conid = self._instrument.contract.conid
        return Tape(times, np.full(count, conid, dtype=np.int64), values, prior_bars=prior)

    def _gap(self, day: date) -> float:
        """Logarithm of the open relative to the last close, from a stream of its own."""
        key = [self._seed & 0xFFFFFFFF, self._instrument.contract.conid, day.toordinal(), 1]
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        day_move = self._instrument.annual_volatility / np.sqrt(252)
        return float(random.standard_normal() * day_move * self._shape.gap)

    def _random(self, day: date) -> np.random.Generator:
        key = [self._seed & 0xFFFFFFFF, self._instrument.contract.conid, day.toordinal()]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def _path(self, random: np.random.Generator, seconds: int) -> Floats:
        """Logarithm of the price relative to the open, second by second, ``seconds + 1`` values."""
        shape = self._shape
        deviation = self._instrument.annual_volatility / np.sqrt(252 * seconds)
        profile = _profile(np.arange(seconds) / seconds, 0.75)
        steps = random.standard_normal(seconds) * deviation * profile / np.sqrt(np.mean(profile**2))
        for second in random.integers(0, seconds, random.poisson(shape.jumps)):
            steps[second] += random.choice((-1, 1)) * random.uniform(4, 10) * deviation * np.sqrt(60)
        pull = np.log(2) / (shape.reversion_minutes * 60)
        found = np.zeros(seconds + 1)
        start = 0
        while start < seconds:
            length = int(max(300, random.exponential(shape.regime_minutes * 60)))
            stop = min(seconds, start + length)
            trends = random.random() < shape.trend_share
            direction = random.choice((-1, 1))
            if trends:
                drift = direction * shape.trend_strength * deviation / np.sqrt(length)
                found[start + 1 : stop + 1] = found[start] + np.cumsum(steps[start:stop] + drift)
            else:
                anchor = level = float(found[start])
                for second in range(start, stop):
                    level += steps[second] - pull * (level - anchor)
                    found[second + 1] = level
            start = stop
        return found

    def _moments(self, random: np.random.Generator, count: int, seconds: int) -> Floats:
        """Seconds since the open at which something happens; the first at once."""
        grid = np.linspace(0, 1, 1001)
        weight = np.cumsum(_profile(grid, 0.6))
        weight = (weight - weight[0]) / (weight[-1] - weight[0])
        offsets = np.sort(np.interp(random.random(count), weight, grid)) * seconds
        offsets[0] = 0.0
        return np.minimum(offsets, seconds - 0.001)

    def _events(self, random: np.random.Generator, middle: Floats, progress: Floats) -> dict[str, Floats]:
        count = len(middle)
        share = 0.0 if self._instrument.quote_only else self._shape.trade_share
        trades = random.random(count) < share
        trades[0] = False
        spread = np.maximum(1, np.rint(self._shape.spread_fraction * middle / self._tick))
        spread += random.geometric(1 / (0.8 + 0.4 * _profile(progress, 0.75))) - 1
        bid_ticks = np.floor(middle / self._tick - spread / 2 + 0.5)
        # between two quotes the quote stands, and trades happen at it
        latest = np.maximum.accumulate(np.where(trades, 0, np.arange(count)))
        bid, ask = bid_ticks[latest], (bid_ticks + spread)[latest]
        if self._instrument.digital:
            bid_ticks, spread = _within(bid_ticks, spread, self._tick)
            bid, ask = bid_ticks[latest], (bid_ticks + spread)[latest]
        if self._instrument.contract.security_type is SecurityType.INDEX:
            return _levels(self._prices(np.rint(middle / self._tick)))
        daily = self._instrument.average_daily_volume
        typical = max(1.0, daily / max(1.0, share * count) / _LOT) if share else daily / 5_000 / _LOT
        shown = max(2.0, typical / 3)
        values: dict[str, Floats] = {
            "bid": self._prices(bid),
            "bid_size": _lots(random, shown, count)[latest],
            "ask": self._prices(ask),
            "ask_size": _lots(random, shown, count)[latest],
        }
        for column in values.values():
            column[1:][np.diff(column) == 0] = np.nan
        moved = np.sign(np.diff(middle, prepend=middle[0]))
        buys = random.random(count) < 0.5 + 0.2 * moved
        odd = random.random(count) < 0.15
        sizes = np.where(odd, random.integers(1, 100, count), _lots(random, typical, count))
        values["last"] = np.where(trades, self._prices(np.where(buys, ask, bid)), np.nan)
        values["last_size"] = np.where(trades, sizes.astype(np.float64), np.nan)
        return {name: values[name] for name in VALUE_COLUMNS}

    def _prices(self, ticks: Floats) -> Floats:
        return np.round(np.maximum(1, ticks) * self._tick, self._decimals)

    def _prior_bars(self, day: date) -> list[Bar]:
        """One-minute bars of the days before, which end where the day begins."""
        days = trading_days(self._instrument, day, -self._shape.prior_days) if self._shape.prior_days else []
        level = self._level
        blocks: list[list[Bar]] = []
        for earlier in reversed(days):
            random = self._random(earlier)
            opened, closed = _hours(self._instrument, earlier)
            seconds = (closed - opened) // NS_PER_S
            path = self._path(random, seconds)
            path += level - path[-1]
            blocks.append(self._minutes(random, opened, path))
            level = float(path[0])
        return [bar for block in reversed(blocks) for bar in block]

    def _minutes(self, random: np.random.Generator, opened: int, path: Floats) -> list[Bar]:
        minutes = (len(path) - 1) // 60
        grid = np.exp(path[1 : minutes * 60 + 1]).reshape(minutes, 60)
        ticks = np.rint(grid / self._tick)
        if self._instrument.digital:
            ticks = np.clip(ticks, 1, round(1 / self._tick) - 1)
        activity = _profile(np.arange(minutes) / minutes, 0.6) * random.lognormal(0, 0.4, minutes)
        volume = np.rint(activity / activity.sum() * self._instrument.average_daily_volume)
        if self._instrument.quote_only:
            volume[:] = 0
        columns = (
            self._prices(ticks[:, 0]),
            self._prices(ticks.max(axis=1)),
            self._prices(ticks.min(axis=1)),
            self._prices(ticks[:, -1]),
            volume,
        )
        span = 60 * NS_PER_S
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [Bar(opened + k * span, opened + (k + 1) * span, *row) for k, row in enumerate(rows)]


def _lots(random: np.random.Generator, typical: float, count: int) -> Floats:
    """Round sizes, ``typical`` lots of a hundred on average."""
    found: Floats = np.asarray(random.geometric(1 / typical, count) * _LOT, dtype=np.float64)
    return found


def _profile(progress: Floats, floor: float) -> Floats:
    """Activity over the day: high at its ends, ``floor`` in the middle."""
    found: Floats = floor + (2 * progress - 1) ** 2
    return found


def _within(bid_ticks: Floats, spread: Floats, tick: float) -> tuple[Floats, Floats]:
    """Quotes of something that is worth between 0 and 1."""
    top = round(1 / tick)
    bids: Floats = np.clip(bid_ticks, 1, top - 2)
    asks: Floats = np.clip(bids + spread, bids + 1, top - 1)
    return bids, asks - bids


def _levels(prices: Floats) -> dict[str, Floats]:
    """Events of an index: levels, which nobody buys or sells."""
    values = {name: np.full(len(prices), np.nan) for name in VALUE_COLUMNS}
    return values | {"last": prices, "last_size": np.zeros(len(prices))}


def _hours(instrument: Instrument, day: date) -> tuple[int, int]:
    """The session, or New York's stock session for instruments that trade around the clock."""
    opened, closed = session_of_day(instrument, day)
    if closed - opened <= _LONGEST_SESSION_NS:
        return opened, closed
    return session_of_day(
        msgspec.structs.replace(
            instrument, session_open="09:30", session_close="16:00", time_zone="America/New_York"
        ),
        day,
    )
