"""Previews: what is asked for first, what is never sent, and what refusals are."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from bt_ibkr.errors import AuthenticationError, OrderRefusedError, ResponseError, WireError
from bt_ibkr.model.contract import Leg, combo_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side
from bt_ibkr.services.whatif import WhatIfService, refusal_of

if TYPE_CHECKING:
    from tests.services.conftest import Server, StartEmulator

PREVIEW = "POST /iserver/account/DU1/orders/whatif"
SNAPSHOT = "GET /iserver/marketdata/snapshot"
FOUND = {
    "amount": {"amount": "1,977.60 USD (10 Shares)", "commission": "1 USD", "total": "1,978.60 USD"},
    "equity": {"current": "215,415,594", "change": "-1", "after": "215,415,593"},
    "initial": {"current": "116,965", "change": "652", "after": "117,617"},
    "maintenance": {"current": "106,332", "change": "592", "after": "106,924"},
    "position": {"current": "0", "change": "10", "after": "10"},
    "warn": "21/You are trying to submit an order without having market data for this instrument.",
    "error": None,
}
SHORT = {
    "amount": {"amount": "1 USD", "commission": "1 USD", "total": "2 USD"}, "equity": None, "initial": None,
    "maintenance": None, "position": None, "warn": "23/x",
    "error": "Available converted to base: 66.73 EUR Cash needed for this order",
}  # fmt: skip


def ticket(**changes: Any) -> OrderTicket:
    plain: dict[str, Any] = {
        "account": "DU1", "contract_id": 265598, "side": Side.BUY, "order_type": OrderType.MARKET,
        "quantity": Decimal(10), "client_order_id": "s.k3f9a.1",
    }  # fmt: skip
    return OrderTicket(**(plain | changes))


async def test_a_preview(server: Server) -> None:
    server.answers |= {PREVIEW: FOUND, SNAPSHOT: [{"conid": 265598}]}
    service = WhatIfService(server.http)
    found = await service.preview(ticket())
    assert (found.amount, found.commission, found.total, found.currency) == (1977.6, 1.0, 1978.6, "USD")
    assert found.initial_margin is not None
    assert (found.initial_margin.current, found.initial_margin.change) == (116965.0, 652.0)
    assert found.warnings
    assert refusal_of(found) is None
    await service.preview(ticket())
    # The snapshot comes first, once for a contract; the order's own id is not used up.
    assert [one.line for one in server.seen] == [SNAPSHOT, PREVIEW, PREVIEW]
    (sent,) = server.seen[1].body["orders"]
    assert "cOID" not in sent
    assert sent["quantity"] == 10


async def test_a_bracket_keeps_its_shape_under_other_names(server: Server) -> None:
    server.answers |= {PREVIEW: FOUND, SNAPSHOT: []}
    child = ticket(
        client_order_id=None, parent="s.k3f9a.1", side=Side.SELL, order_type=OrderType.STOP, stop_price=9.0
    )
    await WhatIfService(server.http).preview(ticket(), child)
    rows = server.seen[-1].body["orders"]
    assert rows[1]["parentId"] == rows[0]["cOID"] != "s.k3f9a.1"


async def test_the_legs_of_a_combo_are_looked_at(server: Server) -> None:
    server.answers |= {PREVIEW: FOUND, SNAPSHOT: []}
    legs = (Leg(8314, -1), Leg(265598, 1))
    combo = ticket(contract_id=combo_key(legs), security_type="BAG", legs=legs, spread_id=28812380)
    await WhatIfService(server.http).preview(combo)
    assert server.seen[0].query["conids"] == "8314,265598"


async def test_a_group_is_previewed_under_its_name(server: Server) -> None:
    server.answers |= {"POST /iserver/account/all/orders/whatif": FOUND, SNAPSHOT: []}
    await WhatIfService(server.http).preview(ticket(allocation_group="all"))
    assert "acctId" not in server.seen[-1].body["orders"][0]


async def test_lack_of_funds_is_a_preview_with_an_error(server: Server) -> None:
    server.answers |= {PREVIEW: SHORT, SNAPSHOT: []}
    found = await WhatIfService(server.http).preview(ticket())
    assert found.equity is None
    problem = refusal_of(found)
    assert problem is not None
    assert problem.margin


async def test_a_snapshot_that_fails_is_no_reason_to_give_up(server: Server) -> None:
    server.answers[PREVIEW] = FOUND
    service = WhatIfService(server.http)
    assert (await service.preview(ticket())).total == 1978.6
    await service.preview(ticket())
    assert server.lines("snapshot") == [SNAPSHOT, SNAPSHOT]


@pytest.mark.parametrize(
    ("status", "body", "kind", "why"),
    [
        (500, {"error": "Order size 0 is not valid. Please enter size greater than 0."}, OrderRefusedError, "size 0"),
        (400, {"error": "Unknown order type"}, OrderRefusedError, "Unknown order type"),
        (400, {"error": "Bad Request: no bridge", "statusCode": 400}, ResponseError, "no bridge"),
        (401, {"error": "not authenticated"}, AuthenticationError, "401"),
        (503, {"error": "Service Unavailable", "statusCode": 503}, ResponseError, "503"),
        (200, [{"order_id": "-1", "order_status": "Failed", "text": "minimum variation of 100"}], OrderRefusedError,
         "minimum variation"),
        (200, [{"id": "a", "message": ["?"], "messageIds": ["o354"]}], OrderRefusedError, "o354"),
        (200, "nonsense", WireError, "preview"),
    ],
)  # fmt: skip
async def test_what_is_no_preview(
    server: Server, status: int, body: Any, kind: type[Exception], why: str
) -> None:
    server.answers |= {PREVIEW: lambda _seen: web.json_response(body, status=status), SNAPSHOT: []}
    with pytest.raises(kind, match=why):
        await WhatIfService(server.http).preview(ticket())
    # A question is not answered: a reply could be taken for a consent.
    assert not server.lines("reply")


async def test_the_emulators_preview_places_nothing(start_emulator: StartEmulator) -> None:
    emulator = await start_emulator()
    service = WhatIfService(emulator.http)
    limit: dict[str, Any] = {"order_type": OrderType.LIMIT, "limit_price": 100.0}
    found = await service.preview(ticket(**limit))
    assert (found.amount, found.commission, found.total) == (1000.0, 1.0, 1001.0)
    assert found.position is not None
    assert found.position.after == 10.0
    assert not list(emulator.server.core.engine.orders("DU1"))
    poor = await service.preview(ticket(quantity=Decimal(10_000_000), **limit))
    problem = refusal_of(poor)
    assert problem is not None
    assert problem.margin
