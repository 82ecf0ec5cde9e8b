"""``GET /iserver/marketdata/history``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bt_ibkr.clock import NS_PER_MS, NS_PER_S
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services import format as text
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.history import bars, periods
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.market import Bar

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

SOURCES = ("trades", "midpoint", "bid_ask", "bid", "ask")
#: Recorded: ``direction=1`` fails for these.
_BACKWARDS_ONLY = frozenset({"SPY", "QQQ"})


async def history(core: Core, call: Call) -> object:
    """Bars that end now, or at ``startTime``.

    Raises:
        ApiError: 400 for a parameter that cannot be read, 500 where there is no chart.
    """
    conid = call.integer("conid", call.query.get("conid"))
    instrument = core.instrument(conid)
    if instrument is None:
        raise errors.error(500, "Chart data unavailable")
    if call.query.get("direction") == "1" and instrument.contract.symbol in _BACKWARDS_ONLY:
        raise errors.error(500, "Chart data unavailable")
    faults = core.faults.history
    faults.admit(instrument)
    await faults.work(conid)
    asked = request(core, instrument, dict(call.query), outside_hours=call.flag("outsideRth"))
    asked = faults.misread(asked)
    return body(core, asked, faults.shorten(conid, bars.read(core, asked)))


def request(
    core: Core, instrument: Instrument, query: dict[str, str], *, outside_hours: bool
) -> bars.Request:
    """The request that parameters (or the arguments of ``smh``) make.

    Raises:
        ApiError: 400 for a parameter that cannot be read.
    """
    period = periods.period(query.get("period") or "1w")
    if period is None:
        raise errors.bad_request(f"Invalid period: {query.get('period')}")
    bar = query.get("bar") or periods.default_bar(period)
    if bar not in periods.BARS or not periods.fits(period, bar):
        raise errors.bad_request(f"Invalid bar {bar} for period {period.text}")
    source = (query.get("source") or "trades").lower()
    if source not in SOURCES:
        raise errors.bad_request(f"Invalid source: {source}")
    end_ns = core.now_ns
    if query.get("startTime"):
        end_ns = _time(query["startTime"])
        if query.get("direction") == "1":
            end_ns += period.nominal_ns
    return bars.Request(
        instrument=instrument,
        period=period,
        bar=bar,
        # The future is not told, and the present instant belongs to the bar that forms.
        end_ns=min(end_ns, core.now_ns + 1),
        source=source,
        regular_hours_only=not outside_hours,
    )


def _time(value: str) -> int:
    try:
        moment = datetime.strptime(value, "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise errors.bad_request(f"Invalid startTime: {value}") from None
    return int(moment.timestamp()) * NS_PER_S


def volume_factor(core: Core, instrument: Instrument) -> int:
    """What ``v`` must be multiplied by to be shares: 40 for US stocks (recorded 2026), 1 for others."""
    stock = instrument.contract.security_type is SecurityType.STOCK
    return core.settings.volume_factor if stock and instrument.is_us else 1


def body(core: Core, asked: bars.Request, found: list[Bar]) -> dict[str, object]:
    """The answer; ``points`` is one less than the bars, as recorded, and no bars make a placeholder."""
    instrument = asked.instrument
    digits = max(text.decimals(instrument.contract.tick_size), instrument.price_decimals)
    factor = volume_factor(core, instrument)
    bar_ns = periods.BARS[asked.bar]
    start_ns = found[0].start_ns if found else asked.end_ns
    answer: dict[str, object] = {
        "serverId": core.next_server_id(),
        "symbol": instrument.contract.symbol,
        "text": instrument.company_name,
        "priceFactor": 10**digits,
        "startTime": text.stamp(start_ns),
        "high": _extreme(found, start_ns, digits, factor, high=True),
        "low": _extreme(found, start_ns, digits, factor, high=False),
        "timePeriod": asked.period.text,
        "barLength": bar_ns // NS_PER_S,
        "mdAvailability": "S",
        "mktDataDelay": 0,
        "outsideRth": not asked.regular_hours_only,
        "volumeFactor": factor,
        "priceDisplayRule": 1,
        "priceDisplayValue": str(digits),
        "negativeCapable": False,
        "messageVersion": 2,
        "data": [_bar(bar, factor) for bar in found] or [{"o": 0.0, "c": 0.0}],
        "points": max(len(found) - 1, 0),
        "travelTime": 3,
    }
    if bar_ns < periods.DAY_NS:
        answer["tradingDayDuration"] = _session_minutes(instrument)
    return answer


def _bar(bar: Bar, factor: int) -> dict[str, float]:
    return {
        "o": bar.open,
        "c": bar.close,
        "h": bar.high,
        "l": bar.low,
        "v": bar.volume / factor,
        "t": bar.start_ns // NS_PER_MS,
    }


def _extreme(found: list[Bar], start_ns: int, digits: int, factor: int, *, high: bool) -> str:
    """``price × priceFactor / v / minutes since the start`` of the highest or lowest bar."""
    if not found:
        return "0/0/0"
    bar = max(found, key=lambda one: one.high) if high else min(found, key=lambda one: one.low)
    price = bar.high if high else bar.low
    minutes = (bar.start_ns - start_ns) // periods.MINUTE_NS
    return f"{round(price * 10**digits)}/{bar.volume / factor:g}/{minutes}"


def _session_minutes(instrument: Instrument) -> int:
    opening, closing = (
        int(word[:2]) * 60 + int(word[3:5]) for word in (instrument.session_open, instrument.session_close)
    )
    return (closing - opening) % 1440 or 1440
