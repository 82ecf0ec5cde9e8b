"""The continuous front: which single future it means, and until when.

A future is the front until a number of calendar days before its end. Its end is the last trade date, or IBKR's own
cut-off where that comes first: of futures with physical delivery IBKR closes positions well before the last day.
Where a name asks for it, volume or open interest decides instead, among the futures that are nearest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, timedelta
from typing import Final

import msgspec

from bt_ibkr.errors import ContractError, ContractNotFoundError
from bt_ibkr.services.datanames import ContractQuery, RollBy, RollRule
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import fields, tags, values
from bt_ibkr.wire.contracts import FutureListing

#: Among so many of the nearest, volume or open interest decides.
_NEAREST: Final = 4
_TRIES: Final = 5
_PAUSE_S: Final = 0.7
_FIELDS: Final = {RollBy.VOLUME: tags.VOLUME, RollBy.INTEREST: tags.FUTURES_OPEN_INTEREST}


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """What a continuous future means on a day.

    Attributes:
        listing: The single future.
        roll_date: ``YYYYMMDD``: from that day on the name means ``successor``; ``None`` where the market decides.
        successor: The one after it, if one is listed.
    """

    listing: FutureListing
    roll_date: str | None
    successor: FutureListing | None


def end_of(listing: FutureListing) -> str:
    """``YYYYMMDD``: the last day on which it can be held without IBKR's interference."""
    days = (listing.last_trade_date, listing.cut_off, listing.expiration_date)
    return min(day for day in days if day)


def roll_date(listing: FutureListing, rule: RollRule) -> date:
    """The day from which the next future is the front."""
    return date.fromisoformat(end_of(listing)) - timedelta(days=rule.days)


def front_by_days(listings: Sequence[FutureListing], rule: RollRule, today: date) -> Front | None:
    """The front by calendar days; ``None`` if nothing is listed that far out.

    Args:
        listings: The futures of one product, in any order.
        today: At the exchange.
    """
    rows = sorted(listings, key=lambda one: (end_of(one), one.conid))
    alive = [one for one in rows if today < roll_date(one, rule)]
    if len(alive) <= rule.offset:
        return None
    found = alive[rule.offset]
    # With an offset the name moves on when the front does.
    moves = roll_date(alive[0], rule)
    successor = alive[rule.offset + 1] if len(alive) > rule.offset + 1 else None
    return Front(listing=found, roll_date=moves.strftime("%Y%m%d"), successor=successor)


def front_by_size(
    listings: Sequence[FutureListing], rule: RollRule, today: date, sizes: dict[int, float]
) -> Front | None:
    """The front by what ``sizes`` tells of each conid; of equals the nearest. ``None`` as above."""
    rows = sorted(listings, key=lambda one: (end_of(one), one.conid))
    alive = [one for one in rows if today.strftime("%Y%m%d") <= end_of(one)]
    known = [one for one in alive[:_NEAREST] if one.conid in sizes]
    if not known:
        return None
    place = alive.index(max(known, key=lambda one: sizes[one.conid])) + rule.offset
    if place >= len(alive):
        return None
    successor = alive[place + 1] if place + 1 < len(alive) else None
    return Front(listing=alive[place], roll_date=None, successor=successor)


async def choose_front(
    http: HttpClient,
    query: ContractQuery,
    listings: Sequence[FutureListing],
    today: date,
    *,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Front:
    """The front that ``query`` names.

    Args:
        http: Asked for volume or open interest, where these decide.
        listings: The futures of one product.
        today: At the exchange.
        pause: Waits between two looks at the market.

    Raises:
        ContractNotFoundError: Nothing is listed that far out.
        ContractError: Volume or open interest decides, and IBKR tells none.
    """
    rule = query.roll or RollRule()
    tag = _FIELDS.get(rule.by)
    if tag is None:
        found = front_by_days(listings, rule, today)
    else:
        nearest = sorted(listings, key=end_of)
        alive = [one for one in nearest if today.strftime("%Y%m%d") <= end_of(one)][:_NEAREST]
        sizes = await _sizes(http, [one.conid for one in alive], tag, pause)
        if alive and not sizes:
            raise ContractError(
                f"{query.text!r}: IBKR tells no {_WORDS[rule.by]} of {query.symbol}'s futures.",
                remedy="Let calendar days decide: leave the word out, or write days=N.",
            )
        found = front_by_size(listings, rule, today, sizes)
    if found is None:
        ends = ", ".join(end_of(one) for one in listings) or "none"
        raise ContractNotFoundError(
            f"{query.text!r}: no future of {query.symbol} is listed that far out (they end on: {ends}).",
            remedy="Name a nearer one, or fewer days=N.",
        )
    return found


_WORDS: Final = {RollBy.VOLUME: "volume", RollBy.INTEREST: "open interest"}


async def _sizes(
    http: HttpClient, conids: Sequence[int], tag: str, pause: Callable[[float], Awaitable[None]]
) -> dict[int, float]:
    """What a snapshot tells of each; the first call only opens the stream at the server."""
    found: dict[int, float] = {}
    wanted = {"conids": ",".join(map(str, conids)), "fields": tag}
    for attempt in range(_TRIES if conids else 0):
        if attempt:
            await pause(_PAUSE_S)
        for row in fields.rows(await http.get("/iserver/marketdata/snapshot", wanted)):
            told = row if isinstance(row, dict) else {}
            conid = fields.lenient(fields.conid, told.get("conid"), "conid")
            size = fields.lenient(values.number, told.get(tag), tag)
            if conid in conids and conid is not None and size is not None:
                found[conid] = size
        if len(found) == len(conids):
            break
    return found
