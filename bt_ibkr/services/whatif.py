"""What an order would cost and bind, before it is placed.

The server wants a snapshot of the contract's market data first, and answers HTTP 200 also where it would refuse the
order. It never places what it previews; a question is not answered here, as a reply could be taken for a consent.
"""

from __future__ import annotations

import logging

import msgspec

from bt_ibkr.errors import BtIbkrError, OrderRefusedError, ResponseError
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.services.questions import each
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import orders as wire
from bt_ibkr.wire.json import decode, error_text
from bt_ibkr.wire.order_answers import Impact, WhatIf

__all__ = ["Impact", "WhatIf", "WhatIfService"]

_log = logging.getLogger(__name__)

#: Last, bid and ask: what the server itself looks at.
_FIELDS = "31,84,86"
_MARGIN_WORDS = ("cash needed", "insufficient", "margin", "available converted", "available funds")


class WhatIfService:
    """Previews of one session.

    Args:
        http: The session's REST client.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._seen: set[int] = set()

    async def preview(self, *tickets: OrderTicket) -> WhatIf:
        """What an order, or a bracket (parent first), would change.

        Args:
            tickets: As for a submission. Their own ids are not sent: a preview must not use one up.

        Returns:
            Cost, commission, margins and position before and after. An order that IBKR would refuse has an
            ``error``, and figures only where the server gave any.

        Raises:
            OrderRefusedError: The request itself is refused: a size of 0, a contract that is not known, or a
                question that has to be suppressed first.
            SessionError: The server did not answer, or there is no brokerage session.
            WireError: The answer is no preview.
        """
        await self._look_at(tickets)
        body = wire.orders_request(_anonymous(tickets))
        path = f"/iserver/account/{tickets[0].routed_account}/orders/whatif"
        reply = await self._http.send("POST", path, body=body)
        if reply.status != 200:
            raise self._refusal(path, reply.status, reply.body, reply.text)
        decoded = decode(reply.body)
        if isinstance(decoded, list):
            raise _unasked(decoded)
        return wire.whatif(decoded)

    async def _look_at(self, tickets: tuple[OrderTicket, ...]) -> None:
        """The snapshot that a preview needs, of each contract once; without it, a warning comes with the preview."""
        conids = {
            conid
            for ticket in tickets
            for conid in ([leg.conid for leg in ticket.legs] or [ticket.contract_id])
            if conid not in self._seen
        }
        if not conids:
            return
        query = {"conids": ",".join(str(conid) for conid in sorted(conids)), "fields": _FIELDS}
        try:
            await self._http.get("/iserver/marketdata/snapshot", query)
        except BtIbkrError as problem:
            _log.warning("preview-without-snapshot conids=%s problem=%s", query["conids"], problem)
            return
        self._seen |= conids

    @staticmethod
    def _refusal(path: str, status: int, body: bytes, text: str) -> BtIbkrError:
        """400 and 500 with an error in words are about the order; anything else is about the session."""
        try:
            told = error_text(decode(body))
        except BtIbkrError:
            told = None
        about_the_session = status in (401, 403, 404, 410, 502, 503, 504) or not told
        if about_the_session or told is None or "no bridge" in told.lower():
            return ResponseError(
                f"POST {path} was answered with HTTP {status}: {told or text}",
                status=status,
                body=told or text,
            )
        return classified(told)


def classified(text: str) -> OrderRefusedError:
    """The error for IBKR's words on an order it would not take."""
    lowered = text.lower()
    return OrderRefusedError(
        text,
        margin=any(word in lowered for word in _MARGIN_WORDS),
        remedy="It was only a preview; nothing was sent.",
    )


def refusal_of(preview: WhatIf) -> OrderRefusedError | None:
    """The error that placing the previewed order would end in; ``None`` if IBKR would take it."""
    return None if preview.error is None else classified(preview.error)


def _anonymous(tickets: tuple[OrderTicket, ...]) -> tuple[OrderTicket, ...]:
    """Without ids of ours, but children still find their parent."""
    if len(tickets) > 1:
        names = {ticket.client_order_id: f"preview-{n}" for n, ticket in enumerate(tickets)}
        return tuple(
            msgspec.structs.replace(
                ticket,
                client_order_id=None if ticket.client_order_id is None else names[ticket.client_order_id],
                parent=None if ticket.parent is None else names.get(ticket.parent, ticket.parent),
            )
            for ticket in tickets
        )
    return tuple(msgspec.structs.replace(one, client_order_id=None, parent=None) for one in tickets)


def _unasked(decoded: list[object]) -> OrderRefusedError:
    """The answer to a preview is a list: questions, or a refusal that looks like an order."""
    answer = wire.submission(decoded)
    if isinstance(answer, wire.Refused):
        return classified(answer.text)
    ids: tuple[str, ...] = ()
    if isinstance(answer, wire.Question):
        ids = tuple(one for question in each(answer) for one in question.message_ids)
    return OrderRefusedError(
        f"IBKR asks {', '.join(ids) or 'a question'} before it previews the order.",
        remedy="Suppress the question in the question policy to see the preview.",
    )
