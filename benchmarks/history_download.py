"""A year of 1-minute bars, downloaded into an archive from the emulator, which keeps IBKR's limits strictly.

::

    python benchmarks/history_download.py [--days N] [--speed N] [--json]

The clock of the limits runs ``--speed`` times as fast on both sides; nothing else is changed. What the limits allow
is 50 requests a minute, each with the bars of one trading day: bars below ten minutes are told for a day at most, so
no client can do with fewer. Requests for holidays and to see how answers are cut count against the product. One
request too many would be HTTP 429 and end the run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence

import aiohttp
import msgspec

from bt_ibkr.app.control import ControlClient, EmulatorProcess
from bt_ibkr.archive import Archive, Columns, SeriesKey, verify
from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.services.history import HistoryRequest, HistoryService
from bt_ibkr.session.http import HttpClient
from bt_ibkr.session.pacing import connection_kind, gate_of, limits_for

#: Wanted: at least this share of what the limits allow.
WANTED = 0.95
_MINUTE_NS = 60_000_000_000
_DAY_NS = 1440 * _MINUTE_NS
_PATH = "/iserver/marketdata/history"
AAPL = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK, time_zone="America/New_York")


async def download(
    settings: SessionSettings, folder: str, now_ns: int, calendar_days: int
) -> dict[str, float]:
    """Fetch and store; seconds, requests and bars."""
    series = Archive(folder).series(SeriesKey(conid=AAPL.conid, bar="1min", regular_hours=True))
    wanted = HistoryRequest(
        contract=AAPL,
        bar_ns=_MINUTE_NS,
        start_ns=now_ns - calendar_days * _DAY_NS,
        end_ns=now_ns,
        outside_regular_hours=False,
    )
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        http = HttpClient(client, settings, gate_of(settings))
        await http.get("/iserver/accounts")
        requests = bars = 0
        began = time.monotonic()
        async for part in HistoryService(http).parts(wanted):
            stored = await asyncio.to_thread(
                series.store,
                AAPL,
                Columns.of(part.bars),
                part.start_ns,
                part.end_ns,
                now_ns=now_ns,
                final_ns=now_ns,
            )
            requests += part.asked
            bars += stored.bars
        took = time.monotonic() - began
        await http.close()
    verdict = verify(series)
    if verdict.problems or verdict.bars != bars:
        msg = f"The archive is not whole: {verdict.problems or verdict.bars}."
        raise SystemExit(msg)
    days = len(set((series.read().start // _DAY_NS).tolist()))
    return {"seconds": took, "requests": requests, "bars": bars, "trading_days": days}


def measure(days: int, speed: float) -> dict[str, float]:
    """One download of so many days of the calendar."""
    emulated = EmulatorSettings(
        port=0,
        speed="lockstep",
        synthetic_instruments=("AAPL",),
        # Trading days: more than there are in the span.
        history_days=days * 5 // 7 + 5,
        pacing="strict",
        pacing_speed=speed,
    )
    with EmulatorProcess(emulated) as emulator, tempfile.TemporaryDirectory() as folder:
        control = ControlClient(emulator.control)
        now_ns = control.get("/state")["now_ns"]
        settings = SessionSettings(base_url=emulator.url, pacing_speed=speed, request_timeout_s=60.0)
        found = asyncio.run(download(settings, folder, now_ns, days))
        refused = control.get("/state")["requests_refused"]
        control.close()
    # Nine of ten weekdays are trading days, with at least half a session each.
    whole = found["trading_days"] >= days * 5 / 7 * 0.9 and found["bars"] >= found["trading_days"] * 385
    if refused or not whole:
        msg = f"{found['bars']} bars of {found['trading_days']} days, {refused} requests refused."
        raise SystemExit(msg)
    limits = [one for one in limits_for(connection_kind(settings)) if one.path == _PATH]
    allowed = max(found["trading_days"] / one.count * one.per_s for one in limits) / speed
    return found | {"allowed_seconds": allowed, "share": allowed / found["seconds"], "speed": speed}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit code 1 if what is wanted was not met."""
    parser = argparse.ArgumentParser(description="A year of 1-minute bars under strict limits.")
    parser.add_argument("--days", type=int, default=365, help="days of the calendar")
    parser.add_argument("--speed", type=float, default=2.0, help="of the clock of the limits")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found = measure(options.days, options.speed)
    met = found["share"] >= WANTED
    if options.json:
        print(msgspec.json.encode(found | {"wanted": WANTED, "met": met}).decode())
    else:
        earnest = found["seconds"] * options.speed / 60
        print(
            f"{options.days} days, {found['trading_days']} of them trading days: {found['bars']:,} bars by "
            f"{found['requests']} requests"
        )
        print(
            f"  took {found['seconds']:.1f} s, the limits allow {found['allowed_seconds']:.1f} s, their clock "
            f"{options.speed:g} times as fast as in earnest ({earnest:.1f} min)"
        )
        word = "met" if met else "NOT met"
        print(f"  wanted: at least {WANTED:.0%} of what they allow: {found['share']:.1%}, {word}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
