"""The market of a run without an account: recorded tick files or a synthetic day, and its instruments."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

import msgspec

from bt_ibkr.clock import NS_PER_MS, NS_PER_S
from bt_ibkr.emulator.build import open_market
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.types import Instrument, MarketEvent
from bt_ibkr.errors import UsageError
from bt_ibkr.feeds.bars import BarBuilder, PriceSource
from bt_ibkr.model.market import Bar, DataQuality, Tick

#: Moments before or after these are slips of the pen: epoch times and time zones do not reach beyond them.
_FIRST = datetime(1970, 1, 2, tzinfo=UTC)
_LAST = datetime(2200, 1, 1, tzinfo=UTC)


class BarLength(msgspec.Struct, frozen=True):
    """A bar length as written on the command line: ``tick``, ``5s``, ``1min``, ``1h``."""

    text: str
    ns: int

    @classmethod
    def parse(cls, text: str) -> BarLength:
        """Raises ``UsageError`` for a text that is no length."""
        plain = text.strip().lower()
        if plain in ("tick", "ticks"):
            return cls("tick", 0)
        for unit, ns in (("min", 60 * NS_PER_S), ("h", 3600 * NS_PER_S), ("s", NS_PER_S)):
            if plain.endswith(unit) and plain[: -len(unit)].isdigit() and int(plain[: -len(unit)]) > 0:
                return cls(plain, int(plain[: -len(unit)]) * ns)
        raise UsageError(
            f"{text!r} is no bar length.", remedy="Give tick, or a number with s, min or h: 5s, 1min, 1h."
        )


def parse_moment(text: str) -> int:
    """A moment of the command line (ISO 8601, UTC unless it says otherwise) in nanoseconds.

    Raises:
        UsageError: No moment, or none between 1970-01-02 and 2200-01-01.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no moment.", remedy="Write it as 2013-10-07T13:30 (UTC), or with an offset."
        ) from None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    if not _FIRST <= aware <= _LAST:
        raise UsageError(
            f"{text!r} lies outside the years for which there are prices.",
            remedy="Give a moment between 1970-01-02 and 2200-01-01 (UTC).",
        )
    return int(aware.timestamp()) * NS_PER_S + aware.microsecond * 1000


class _Merged:
    """The ticks that a live feed would make of one instrument's tape."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.ticks: deque[Tick] = deque()
        self._bid: float | None = None
        self._ask: float | None = None
        self._volume = 0.0

    def add(self, event: MarketEvent) -> None:
        if event.bid is not None:
            self._bid = event.bid
        if event.ask is not None:
            self._ask = event.ask
        traded = (event.last_size or 0.0) if event.last is not None else 0.0
        if event.traded is not None:
            traded = event.traded
        self._volume += traded
        # Top-of-book frames carry milliseconds.
        time_ns = event.time_ns // NS_PER_MS * NS_PER_MS
        self.ticks.append(
            Tick(
                time_ns,
                event.conid,
                self._bid,
                self._ask,
                None,
                None,
                event.last,
                event.last_size,
                traded,
                self._volume,
                DataQuality.REALTIME,
                False,
                time_ns,
            )
        )


def market_bars(
    settings: EmulatorSettings, wanted: tuple[int, ...], bar: BarLength, start_ns: int, end_ns: int
) -> dict[int, list[Bar]]:
    """Bars (for ``tick``: one per trade) of the market that the emulator would play, by conid.

    Built by the same code as a live feed's, so that a backtest sees what the emulator's client sees.

    Args:
        settings: The emulator's; ``market``, ``synthetic_day``, ``synthetic_instruments`` and ``seed`` count.
        wanted: Conids.
        bar: Their length.
        start_ns, end_ns: Only bars inside; 0 for no bound.
    """
    universe, tape = open_market(settings)
    if bar.ns:
        # As the emulator, which begins where the tape opens: a bar that began before it is not whole, and left out.
        start_ns = max(start_ns, tape.opens_ns)
    merged = {i.contract.conid: _Merged(i) for i in universe.all() if i.contract.conid in wanted}
    while True:
        at_ns = tape.next_ns()
        if at_ns is None or (end_ns and at_ns >= end_ns):
            break
        event = tape.pop()
        target = merged.get(event.conid)
        if target is not None:
            target.add(event)
    return {conid: _bars(one, bar, start_ns) for conid, one in merged.items()}


def _bars(one: _Merged, bar: BarLength, start_ns: int) -> list[Bar]:
    source = PriceSource.BID if one.instrument.quote_only else PriceSource.TRADES
    if bar.ns:
        built: deque[Bar] = deque()
        builder = BarBuilder(bar.ns, source, -(-start_ns // bar.ns) * bar.ns)
        builder.drain(one.ticks, built)
        builder.close_until(builder.open_end_ns, built)
        return list(built)
    rows = []
    before: float | None = None
    for tick in one.ticks:
        price = tick.last if source is PriceSource.TRADES else tick.bid
        if price is None or tick.time_ns < start_ns:
            continue
        if source is PriceSource.BID and price == before:
            continue
        if source is PriceSource.TRADES and not tick.traded:
            continue
        before = price
        rows.append(Bar(tick.time_ns, tick.time_ns, price, price, price, price, tick.traded))
    return rows
