"""In which zone an instrument's exchange lives, and when its session ends on a day.

The ends are the ordinary ones; ``services.calendars`` knows the days that end early.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.model.contract import Contract, SecurityType

_NEW_YORK: Final = "America/New_York"
_BY_EXCHANGE: Final = {
    **dict.fromkeys(("CME", "GLOBEX", "CBOT", "ECBOT", "CBOE", "CFE", "CFECRYPTO"), "America/Chicago"),
    **dict.fromkeys(("NYMEX", "COMEX", "IDEALPRO", "NYBOT", "PAXOS", "ZEROHASH"), _NEW_YORK),
    **dict.fromkeys(("EUREX", "DTB", "IBIS", "IBIS2", "FWB", "FWB2", "SWB", "GETTEX"), "Europe/Berlin"),
    **dict.fromkeys(("SBF", "MATIF", "MONEP"), "Europe/Paris"),
    **dict.fromkeys(("AEB", "FTA"), "Europe/Amsterdam"),
    **dict.fromkeys(("BVME", "IDEM"), "Europe/Rome"),
    **dict.fromkeys(("BM", "MEFFRV"), "Europe/Madrid"),
    **dict.fromkeys(("LSE", "LSEETF", "IPE", "ICEEU", "ICEEUSOFT", "LMEOTC"), "Europe/London"),
    **dict.fromkeys(("EBS", "VIRTX"), "Europe/Zurich"),
    **dict.fromkeys(("SFB", "OMS"), "Europe/Stockholm"),
    **dict.fromkeys(("TSEJ", "OSE.JPN"), "Asia/Tokyo"),
    **dict.fromkeys(("SEHK", "HKFE", "SEHKNTL", "SEHKSZSE"), "Asia/Hong_Kong"),
    "SGX": "Asia/Singapore",
    "KSE": "Asia/Seoul",
    "NSE": "Asia/Kolkata",
    **dict.fromkeys(("ASX", "SNFE"), "Australia/Sydney"),
    **dict.fromkeys(("TSE", "VENTURE", "CDE"), "America/Toronto"),
    **dict.fromkeys(("MEXI", "MEXDER"), "America/Mexico_City"),
}
_BY_CURRENCY: Final = {
    "USD": _NEW_YORK,
    "CAD": "America/Toronto",
    "MXN": "America/Mexico_City",
    "EUR": "Europe/Berlin",
    "GBP": "Europe/London",
    "CHF": "Europe/Zurich",
    "SEK": "Europe/Stockholm",
    "JPY": "Asia/Tokyo",
    "HKD": "Asia/Hong_Kong",
    "CNH": "Asia/Hong_Kong",
    "SGD": "Asia/Singapore",
    "KRW": "Asia/Seoul",
    "INR": "Asia/Kolkata",
    "AUD": "Australia/Sydney",
}
#: IBKR's own names of zones.
_IBKR_NAMES: Final = {
    "US/Eastern": _NEW_YORK,
    "US/Central": "America/Chicago",
    "EST5EDT": _NEW_YORK,
    "MET": "Europe/Berlin",
    "GB-Eire": "Europe/London",
    "Japan": "Asia/Tokyo",
    "Hongkong": "Asia/Hong_Kong",
}
_MIDNIGHT: Final = time(23, 59, 59)
#: Ends of the ordinary session of stocks, and of what trades with them.
_STOCKS_END: Final = {
    _NEW_YORK: time(16),
    "America/Chicago": time(15, 15),
    "America/Toronto": time(16),
    "America/Mexico_City": time(15),
    "Europe/London": time(16, 30),
    **dict.fromkeys(
        (
            "Europe/Amsterdam",
            "Europe/Berlin",
            "Europe/Madrid",
            "Europe/Paris",
            "Europe/Rome",
            "Europe/Stockholm",
            "Europe/Zurich",
        ),
        time(17, 30),
    ),
    "Asia/Tokyo": time(15, 30),
    "Asia/Hong_Kong": time(16),
    "Asia/Singapore": time(17),
    "Asia/Seoul": time(15, 30),
    "Asia/Kolkata": time(15, 30),
    "Australia/Sydney": time(16),
}
_FUTURES_END: Final = {"America/Chicago": time(16), _NEW_YORK: time(17), "Europe/Berlin": time(22)}
#: US stocks trade until then in extended hours.
_EXTENDED_END: Final = time(20)
#: Nothing but overnight trading goes on then.
_MORNING: Final = time(4)
_FUTURES: Final = frozenset({SecurityType.FUTURE, SecurityType.FUTURE_OPTION})


def exchange_zone(contract: Contract) -> ZoneInfo:
    """The zone of the contract's exchange: as resolved, or by the exchange, or by the currency (``UTC`` else)."""
    known = _BY_EXCHANGE.get(contract.exchange) or _BY_EXCHANGE.get(contract.listing_exchange or "")
    name = contract.time_zone or known or _BY_CURRENCY.get(contract.currency, "UTC")
    try:
        return ZoneInfo(_IBKR_NAMES.get(name, name))
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def session_end_ns(contract: Contract, day: date, *, extended: bool = False) -> int:
    """When the session of ``day`` ends, epoch nanoseconds.

    Args:
        contract: Whose session.
        day: In the exchange's zone.
        extended: The end of extended hours, where there are any.
    """
    zone = exchange_zone(contract)
    return int(datetime.combine(day, _end(contract, zone, extended), tzinfo=zone).timestamp()) * NS_PER_S


def next_turn_ns(contract: Contract, time_ns: int) -> int:
    """When the trading day that the moment belongs to is over for good, epoch nanoseconds.

    Futures and currencies turn with the end of their session, since the next one begins in the evening; crypto at
    midnight; all others before the first of them opens in the morning.
    """
    zone = exchange_zone(contract)
    kind = contract.security_type
    turn = _MORNING
    if kind in _FUTURES or kind is SecurityType.FOREX:
        turn = _end(contract, zone, extended=False)
    if kind is SecurityType.CRYPTO or turn == _MIDNIGHT:
        turn = time()
    day = datetime.fromtimestamp(time_ns // NS_PER_S, tz=zone).date()
    while True:
        turn_ns = int(datetime.combine(day, turn, tzinfo=zone).timestamp()) * NS_PER_S
        if turn_ns > time_ns:
            return turn_ns
        day += timedelta(days=1)


def _end(contract: Contract, zone: ZoneInfo, extended: bool) -> time:
    kind = contract.security_type
    if kind in _FUTURES:
        return _FUTURES_END.get(zone.key, _MIDNIGHT)
    if kind is SecurityType.FOREX:
        return time(17) if zone.key == _NEW_YORK else _MIDNIGHT
    if kind is SecurityType.CRYPTO:
        return _MIDNIGHT
    if extended and kind is SecurityType.STOCK and zone.key == _NEW_YORK:
        return _EXTENDED_END
    return _STOCKS_END.get(zone.key, _MIDNIGHT)
