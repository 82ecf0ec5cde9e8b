"""The truth, for tests: every order request that arrived and what came of it, and one dump of everything."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from bt_ibkr.emulator.services.json import decode
from bt_ibkr.emulator.types import EmulatedOrder

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_PLACE = re.compile(r"/iserver/account/([^/]+)/orders")
_CHANGE = re.compile(r"/iserver/account/([^/]+)/order/([^/]+)")
_REPLY = re.compile(r"/iserver/reply/([^/]+)")


class OrderRequest(msgspec.Struct, kw_only=True):
    """One request that may make, change or end orders.

    Attributes:
        n: Counts them.
        now_ns: When it arrived, by the market's clock.
        kind: ``place``, ``modify``, ``cancel`` or ``reply``.
        account: Of the path; empty for a reply.
        orders: How many it holds; of a reply, the submission it answers.
        client_ids: Their cOIDs.
        target: Order id or reply id of the path.
        confirmed: Of a reply.
        outcome: ``unprocessed`` (it never reached the order service), ``question``, ``accepted``, ``partly`` (one
            order of several) or ``refused``, whatever the client was told.
        created: Orders that exist because of it.
        status: HTTP status the client was told; 0 if it was told nothing.
    """

    n: int
    now_ns: int
    kind: str
    account: str = ""
    orders: int = 0
    client_ids: list[str] = []
    target: str = ""
    confirmed: bool | None = None
    outcome: str = "unprocessed"
    created: list[int] = []
    status: int = 0


class Oracle:
    """Keeps the record of order requests and tells everything that is known."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.requests: list[OrderRequest] = []

    # --- the record --------------------------------------------------------------------------------

    @staticmethod
    def kind_of(method: str, path: str) -> str:
        """Which kind of order request this is; empty if it is none."""
        if method == "POST" and _PLACE.fullmatch(path):
            return "place"
        if _CHANGE.fullmatch(path):
            return {"POST": "modify", "DELETE": "cancel"}.get(method, "")
        return "reply" if method == "POST" and _REPLY.fullmatch(path) else ""

    def arrived(self, kind: str, path: str, raw: bytes) -> OrderRequest:
        """Write a request down as it came."""
        entry = OrderRequest(n=len(self.requests), now_ns=self._core.now_ns, kind=kind)
        body = _decoded(raw)
        if kind == "reply":
            found = _REPLY.fullmatch(path)
            entry.target = found[1] if found else ""
            entry.confirmed = body.get("confirmed") is True
            waiting = self._core.orders.waiting(entry.target)
            if waiting is not None:
                entry.orders = len(waiting.specs)
                entry.client_ids = [one.client_order_id for one in waiting.specs if one.client_order_id]
        else:
            found = _PLACE.fullmatch(path) or _CHANGE.fullmatch(path)
            entry.account = found[1] if found else ""
            entry.target = found[2] if found and len(found.groups()) > 1 else ""
            listed = body.get("orders") if kind == "place" else [body]
            tickets: list[dict[str, Any]] = (
                [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
            )
            entry.orders = len(tickets) if kind == "place" else 1
            entry.client_ids = [str(one["cOID"]) for one in tickets if one.get("cOID")]
        self.requests.append(entry)
        return entry

    def done(self, entry: OrderRequest, before: int, status: int, body: object) -> None:
        """The order service has dealt with it.

        Args:
            entry: The request.
            before: How many orders there were then.
            status, body: Of its answer, before any fault.
        """
        entry.created = [one.order_id for one in self._core.engine.orders()[before:]]
        entry.outcome = _outcome(status, body)
        if entry.created and entry.outcome == "refused":
            entry.outcome = "accepted" if len(entry.created) == entry.orders else "partly"

    # --- everything --------------------------------------------------------------------------------

    def ledger(self) -> dict[str, Any]:
        """All accounts, orders, executions and order requests, as plain values.

        ``created`` counts the orders that ever existed by the strategy that their cOID names (all but its last
        two parts, ``NAME.EPOCH.SEQ``; a child counts for its parent's), and those of nobody under ``""``.
        ``by_client_id`` counts them by cOID, children under their parent's.
        """
        engine = self._core.engine
        found = engine.orders()
        by_id = {order.order_id: order for order in found}
        client_ids = Counter(_client_id(order, by_id) for order in found)
        strategies: Counter[str] = Counter()
        for client_id, number in client_ids.items():
            strategies[strategy_of(client_id)] += number
        return {
            **engine.ledger(),
            "requests": msgspec.to_builtins(self.requests),
            "by_client_id": {name: number for name, number in client_ids.items() if name},
            "created": dict(strategies),
            "corporate_actions": list(self._core.corporate.record),
        }

    def forget(self) -> None:
        """The market began anew."""
        self.requests.clear()


def strategy_of(client_id: str) -> str:
    """What stands before the last two parts of a cOID; all of it if it has no three parts."""
    parts = client_id.rsplit(".", 2)
    return parts[0] if len(parts) == 3 else client_id


def _client_id(order: EmulatedOrder, by_id: dict[int, EmulatedOrder]) -> str:
    if order.spec.client_order_id:
        return order.spec.client_order_id
    parent = by_id.get(order.parent_id)
    return "" if parent is None else _client_id(parent, by_id)


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        body = decode(raw) if raw.strip() else {}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return body if isinstance(body, dict) else {}


def _outcome(status: int, body: object) -> str:
    if status >= 400 or not body:
        return "refused"
    if isinstance(body, dict):
        return "accepted" if "msg" in body else "refused"
    rows = [row for row in body if isinstance(row, dict)] if isinstance(body, list) else []
    if any("message" in row for row in rows):
        return "question"
    good = sum(row.get("order_id") != "-1" and row.get("order_status") != "Inactive" for row in rows)
    return "refused" if not good else "accepted" if good == len(rows) else "partly"
