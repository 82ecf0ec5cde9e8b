"""Orders out: submission with its questions, modification, cancellation, and the look-up of lost answers.

A submission is one transaction per account: IBKR wants one order at a time until it is fully acknowledged,
replies included. A POST is never repeated. If its answer is lost, the order is looked up by its ``cOID``;
until it is found or proven absent its outcome is unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict

import msgspec

from bt_ibkr.errors import (
    BtIbkrError,
    OrderRefusedError,
    OutcomeUnknownError,
    RequestTimeoutError,
    WireError,
)
from bt_ibkr.model.order import DONE, OrderReport, OrderTicket
from bt_ibkr.services.portfolio import PortfolioService
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.session.classes import RequestClass
from bt_ibkr.session.http import HttpClient, Reply
from bt_ibkr.wire import orders as wire

_log = logging.getLogger(__name__)

#: Longest chain of questions followed; chains of three were recorded.
_MOST_QUESTIONS = 8
#: Looks at the order list after a lost answer, each an order-list interval apart.
_LOOK_UPS = 4
_MARGIN_WORDS = ("cash needed", "insufficient", "margin", "available converted", "available funds")


class Placement(msgspec.Struct, frozen=True):
    """Where a ticket stands after its submission: IBKR's order id."""

    ticket: OrderTicket
    order_id: str


def refusal(text: str) -> OrderRefusedError:
    """The error for IBKR's refusal in words."""
    lowered = text.lower()
    return OrderRefusedError(text, margin=any(word in lowered for word in _MARGIN_WORDS))


def _class_of(tickets: tuple[OrderTicket, ...]) -> RequestClass:
    """A submission that only protects goes first, and passes even while IBKR punishes haste."""
    protects = all(ticket.protective for ticket in tickets)
    return RequestClass.PROTECT if protects else RequestClass.ORDER


class OrderService:
    """Orders of one session.

    Args:
        http: The session's REST client.
        portfolio: For look-ups.
        policy: Answers to questions.
    """

    def __init__(self, http: HttpClient, portfolio: PortfolioService, policy: QuestionPolicy) -> None:
        self._http = http
        self._portfolio = portfolio
        self._policy = policy
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def place(self, tickets: tuple[OrderTicket, ...]) -> tuple[Placement, ...]:
        """Submit one order, a bracket (parent first) or an OCA group.

        Args:
            tickets: All of one account.

        Returns:
            One placement per ticket, in the order of the tickets.

        Raises:
            OrderRefusedError: IBKR refused, or a question was declined: nothing stands.
            OutcomeUnknownError: The answer was lost and the look-up did not settle it.
        """
        account = tickets[0].account
        standing: dict[str, wire.OrderAck] = {}
        async with self._locks[account]:
            try:
                path = f"/iserver/account/{account}/orders"
                await self._converse(path, wire.orders_request(tickets), standing, _class_of(tickets))
                placements = await self._match(tickets, tuple(standing.values()))
            except OrderRefusedError:
                # A submission is not atomic: a part of it may stand although the rest was refused.
                await self._withdraw(account, standing)
                raise
            except (RequestTimeoutError, WireError) as problem:
                return await self._look_up(tickets, problem)
            except BtIbkrError as problem:
                if not standing:
                    raise
                return await self._look_up(tickets, problem)
        if len(placements) < len(tickets):
            await self._withdraw(account, standing)
            raise OrderRefusedError(
                f"IBKR accepted only {len(placements)} of {len(tickets)} orders of a bracket; those were cancelled."
            )
        return placements

    async def _converse(
        self, path: str, body: object, standing: dict[str, wire.OrderAck], klass: RequestClass
    ) -> None:
        """POST and answer questions until the order is accepted or refused; orders that an answer names go
        into ``standing`` by their id."""
        reply = await self._post(path, body, klass)
        for _ in range(_MOST_QUESTIONS):
            answer = wire.submission(reply.body, reply.status)
            if isinstance(answer, wire.Accepted):
                standing.update((ack.order_id, ack) for ack in answer.acks)
                return
            if isinstance(answer, wire.Refused):
                standing.update((ack.order_id, ack) for ack in answer.left_over)
                raise refusal(answer.text)
            if isinstance(answer, wire.Prompt):
                raise OrderRefusedError(f"IBKR asks a question of another kind: {answer.text}")
            standing.update((ack.order_id, ack) for ack in answer.acks)
            accepts = self._policy.accepts(answer.message_ids)
            _log.info(
                "order-question ids=%s answer=%s", ",".join(answer.message_ids), "yes" if accepts else "no"
            )
            confirmed = await self._post(f"/iserver/reply/{answer.reply_id}", {"confirmed": accepts}, klass)
            if not accepts:
                raise OrderRefusedError(
                    f"IBKR asked {', '.join(answer.message_ids) or 'a question without an id'} "
                    f"({' '.join(answer.texts)[:300]}), which the question policy declines.",
                    remedy="Allow the id in the question policy if the order is meant.",
                )
            reply = confirmed
        raise OrderRefusedError(f"IBKR asked more than {_MOST_QUESTIONS} questions about one order.")

    async def _post(self, path: str, body: object, klass: RequestClass) -> Reply:
        reply = await self._http.send("POST", path, body=body, klass=klass)
        if reply.status >= 500:
            # 503 to an order or a reply may come although the order was taken.
            raise RequestTimeoutError(f"POST {path} was answered with HTTP {reply.status}: {reply.text}")
        return reply

    async def _look_up(self, tickets: tuple[OrderTicket, ...], problem: BtIbkrError) -> tuple[Placement, ...]:
        """What became of a submission whose answer was lost."""
        wanted = tickets[0].client_order_id
        _log.warning("order-outcome-unknown coid=%s problem=%s", wanted, problem)
        lists = 0
        for _ in range(_LOOK_UPS):
            try:
                orders = await self._portfolio.live_orders()
                trades = await self._portfolio.trades()
            except BtIbkrError as trouble:
                _log.warning("order-look-up-failed coid=%s problem=%s", wanted, trouble)
                await asyncio.sleep(1.0)
                continue
            lists += 1
            found = self._found(tickets, orders)
            if found is not None:
                return found
            for trade in trades:
                if wanted and trade.order_ref == wanted and trade.order_id and len(tickets) == 1:
                    return (Placement(tickets[0], trade.order_id),)
        raise OutcomeUnknownError(
            f"Whether order {wanted} stands at IBKR is not known: {problem} It was not in {lists} lists read since.",
            remedy="It was not sent again. Check the account before you do.",
        )

    def _found(
        self, tickets: tuple[OrderTicket, ...], orders: tuple[OrderReport, ...]
    ) -> tuple[Placement, ...] | None:
        by_reference = {o.order_ref: o.order_id for o in orders if o.order_ref}
        known = [
            (ticket, by_reference[ticket.client_order_id])
            for ticket in tickets
            if ticket.client_order_id and ticket.client_order_id in by_reference
        ]
        if not known:
            return None
        children = [o for o in orders if o.parent_id == known[0][1]]
        known.extend(_pair(tuple(t for t in tickets if not t.client_order_id), children))
        return _in_order(tickets, known) if len(known) == len(tickets) else None

    async def _match(
        self, tickets: tuple[OrderTicket, ...], acks: tuple[wire.OrderAck, ...]
    ) -> tuple[Placement, ...]:
        """Which acknowledgement belongs to which ticket.

        The answer's rows are in no order that could be relied on, and children carry no id of ours.
        """
        by_reference = {ack.client_order_id: ack for ack in acks if ack.client_order_id}
        known: list[tuple[OrderTicket, str]] = []
        open_tickets: list[OrderTicket] = []
        for ticket in tickets:
            ack = by_reference.get(ticket.client_order_id) if ticket.client_order_id else None
            if ack is not None:
                known.append((ticket, ack.order_id))
            else:
                open_tickets.append(ticket)
        taken = {order_id for _, order_id in known}
        rest = [ack for ack in acks if ack.order_id not in taken]
        if len(open_tickets) == 1 and len(rest) == 1:
            known.append((open_tickets[0], rest[0].order_id))
        elif open_tickets and len(rest) >= len(open_tickets):
            # A plain order without an echo of its cOID is alone and was matched above; these are children.
            reports = [
                wire.order_status(await self._http.get(f"/iserver/account/order/status/{ack.order_id}"))
                for ack in rest
            ]
            known.extend(_pair(tuple(open_tickets), reports))
        return _in_order(tickets, known)

    async def _withdraw(self, account: str, standing: dict[str, wire.OrderAck]) -> None:
        for order_id in standing:
            try:
                await self.cancel(account, order_id)
            except BtIbkrError as problem:
                _log.error("order-withdraw-failed order_id=%s problem=%s", order_id, problem)

    async def cancel(self, account: str, order_id: str) -> None:
        """Ask for a cancellation. It has happened only when the order's status says so.

        Raises:
            OrderRefusedError: IBKR will not (done already, unknown …).
            OutcomeUnknownError: The answer was lost.
        """
        try:
            reply = await self._http.send("DELETE", f"/iserver/account/{account}/order/{order_id}")
        except RequestTimeoutError as problem:
            raise OutcomeUnknownError(
                f"Whether order {order_id} is being cancelled is not known: {problem}"
            ) from None
        if reply.status >= 500:
            raise OutcomeUnknownError(
                f"The cancellation of order {order_id} was answered with HTTP {reply.status}."
            )
        answer = wire.cancel_answer(reply.body)
        if reply.status != 200 or answer.error:
            raise OrderRefusedError(f"Order {order_id} was not cancelled: {answer.error or reply.text}")

    async def status(self, order_id: str) -> OrderReport:
        """What IBKR says of one order."""
        return wire.order_status(await self._http.get(f"/iserver/account/order/status/{order_id}"))


def _in_order(
    tickets: tuple[OrderTicket, ...], pairs: list[tuple[OrderTicket, str]]
) -> tuple[Placement, ...]:
    """Placements in the order of the tickets."""
    place = {id(ticket): index for index, ticket in enumerate(tickets)}
    ordered = sorted(pairs, key=lambda pair: place[id(pair[0])])
    return tuple(Placement(ticket, order_id) for ticket, order_id in ordered)


_TYPE_WORDS = {
    "MKT": "MKT", "MARKET": "MKT", "LMT": "LMT", "LIMIT": "LMT", "STP": "STP", "STOP": "STP",
    "STOPLIMIT": "STOP_LIMIT", "STPLMT": "STOP_LIMIT", "STOPLMT": "STOP_LIMIT", "STOP_LIMIT": "STOP_LIMIT",
    "TRAIL": "TRAIL", "TRAILINGSTOP": "TRAIL", "TRAILLMT": "TRAILLMT", "TRAILLIMIT": "TRAILLMT",
    "TRAILINGSTOPLIMIT": "TRAILLMT",
}  # fmt: skip


def _type_word(text: str | None) -> str:
    """IBKR's request word for the many ways it writes an order type (``Stop``, ``STOP_LIMIT`` …)."""
    plain = (text or "").upper().replace(" ", "")
    return _TYPE_WORDS.get(plain, _TYPE_WORDS.get(plain.replace("_", ""), plain))


def _pair(tickets: tuple[OrderTicket, ...], reports: list[OrderReport]) -> list[tuple[OrderTicket, str]]:
    """Tickets and reports of the same type and nearest price; both sides may stay incomplete."""
    free = list(reports)
    pairs = []
    for ticket in tickets:
        same = [r for r in free if _type_word(r.order_type) == ticket.order_type.value]
        if not same:
            continue
        price = ticket.limit_price if ticket.limit_price is not None else ticket.stop_price

        def distance(report: OrderReport, price: float | None = price) -> float:
            other = report.limit_price if report.limit_price is not None else report.stop_price
            return abs((other or 0.0) - (price or 0.0))

        best = min(same, key=distance)
        free.remove(best)
        pairs.append((ticket, best.order_id))
    return pairs


def is_done(report: OrderReport) -> bool:
    """Whether the report says that the order will not execute any more."""
    return report.status in DONE
