"""Which market data IBKR gives of an instrument: field 6509 of a snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import fields, tags

#: The first call only opens the stream at the server; values come half a second to a second later (wire facts, 5.1).
_TRIES: Final = 4
_PAUSE_S: Final = 0.5


async def availability(
    http: HttpClient, conid: int, *, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> str:
    """Field 6509 as IBKR spells it (``RpB``, ``DPB`` …); empty if it was not told in four attempts.

    Args:
        pause: Waits between two attempts.

    Raises:
        SessionError, WireError: As ``HttpClient.get``.
    """
    wanted = {"conids": str(conid), "fields": f"31,84,86,{tags.AVAILABILITY}"}
    for attempt in range(_TRIES):
        if attempt:
            await pause(_PAUSE_S)
        rows = fields.array(await http.get("/iserver/marketdata/snapshot", wanted), "snapshot")
        for row in rows:
            if isinstance(row, dict) and (code := fields.text(row.get(tags.AVAILABILITY))):
                return code
    return ""
