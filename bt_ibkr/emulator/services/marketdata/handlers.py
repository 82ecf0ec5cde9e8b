"""Snapshots and the end of streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.marketdata import extra_fields, fields

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

MAX_CONIDS = 100
MAX_FIELDS = 50


async def snapshot(core: Core, call: Call) -> object:
    """Top of the book of several instruments; the first call for each opens its stream and says nothing.

    Raises:
        ApiError: 400 without ``conids``, or with too many conids or fields.
    """
    conids = [one.strip() for one in call.query.get("conids", "").split(",") if one.strip()]
    tags = tuple(dict.fromkeys(t.strip() for t in call.query.get("fields", "").split(",") if t.strip()))
    if not conids:
        raise errors.bad_request("conids is required")
    if len(conids) > MAX_CONIDS:
        raise errors.bad_request(f"at most {MAX_CONIDS} conids per request")
    if len(tags) > MAX_FIELDS:
        raise errors.bad_request(f"at most {MAX_FIELDS} fields per request")
    return [_row(core, call, text, tags or ("31", "84", "86")) for text in conids]


def _row(core: Core, call: Call, conid_ex: str, tags: tuple[str, ...]) -> dict[str, object]:
    conid = call.integer("conid", conid_ex.partition("@")[0])
    row: dict[str, object] = {"conidEx": conid_ex, "conid": conid}
    instrument = core.instrument(conid)
    if instrument is None or not core.faults.market.entitled(conid):
        return {"55": "-", "conidEx": conid_ex, "6119": "q0", "server_id": "q0", "31": "N/A"}
    if not core.has_line(conid):
        return row
    open_before = core.snapshots.ask(conid, tags)
    if not open_before:
        return row
    core.engine.book(conid)  # an option comes into the market when it is asked for
    quote = core.hub.shown_quote(conid)
    row |= {"6509": core.faults.market.quality(conid), "6119": "q0", "server_id": "q0"}
    if quote is None:
        return row
    row["_updated"] = core.updated_ms(core.now_ns)
    for tag in tags:
        read = None
        if tag in open_before and tag != "6509":
            read = fields.reader(instrument, tag) or extra_fields.reader(core, instrument, tag)
        value = read(quote) if read is not None else None
        if value is not None:
            row[tag] = f"{value}%" if tag == "83" else value
    return row


async def unsubscribe(core: Core, call: Call) -> object:
    """Close one instrument's stream, also those of the sockets.

    Raises:
        ApiError: 500 ``unknown`` if none is open.
    """
    conid = call.integer("conid", str(call.object().get("conid", "")))
    closed = core.snapshots.close(conid)
    if core.hub.close_market_data(conid) or closed:
        return {"success": True}
    raise errors.error(500, "unknown")


async def unsubscribe_all(core: Core, call: Call) -> object:
    core.snapshots.clear()
    core.hub.close_market_data(None)
    return {"unsubscribed": True}
