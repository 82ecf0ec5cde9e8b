"""Time zones as backtrader asks for them: with pytz's ``localize``."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import backtrader as bt

from bt_ibkr.errors import UsageError


class Localizing(tzinfo):
    """A ``ZoneInfo`` that backtrader can use.

    Args:
        zone: What it stands for.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone

    def localize(self, moment: datetime) -> datetime:
        """The naive moment in this zone; of two readings the earlier one."""
        return moment.replace(tzinfo=self)

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        return self.zone.utcoffset(None if dt is None else dt.replace(tzinfo=self.zone))

    def dst(self, dt: datetime | None) -> timedelta | None:
        return self.zone.dst(None if dt is None else dt.replace(tzinfo=self.zone))

    def tzname(self, dt: datetime | None) -> str | None:
        return self.zone.tzname(None if dt is None else dt.replace(tzinfo=self.zone))

    def fromutc(self, dt: datetime) -> datetime:
        return self.zone.fromutc(dt.replace(tzinfo=self.zone)).replace(tzinfo=self)

    def __repr__(self) -> str:
        return f"Localizing({self.zone.key!r})"


def backtrader_zone(given: Any, exchange: ZoneInfo) -> Any:
    """What a feed's ``tz`` means: ``None`` (UTC), ``"exchange"``, a zone's name, or a ``tzinfo``.

    Raises:
        UsageError: There is no zone of that name.
    """
    if given is None:
        return None
    if isinstance(given, str):
        try:
            return Localizing(exchange if given == "exchange" else ZoneInfo(given))
        except (ZoneInfoNotFoundError, ValueError):
            raise UsageError(
                f"tz={given!r} is no time zone.",
                remedy='Give an IANA name ("America/New_York") or "exchange".',
            ) from None
    return Localizing(given) if isinstance(given, ZoneInfo) else bt.utils.date.Localizer(given)
