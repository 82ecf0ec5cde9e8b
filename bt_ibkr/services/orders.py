"""Conversations about orders: submission with its questions, modification, cancellation, and looking one up.

A submission is one transaction per account: IBKR wants one order at a time until it is fully acknowledged,
replies included. Nothing is repeated here. How far a conversation came when it broke off is told by its error,
so that whoever keeps the record can look the order up and knows what may be sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable

import msgspec

from bt_ibkr.errors import (
    AuthenticationError,
    BtIbkrError,
    OrderRefusedError,
    PacingPenaltyError,
    RequestTimeoutError,
    TrustError,
    UnreachableError,
)
from bt_ibkr.model.order import DONE, OrderReport, OrderStatus, OrderTicket
from bt_ibkr.services.conversation import BrokenOffError, Conversation, Stage, answer_prompt
from bt_ibkr.services.matching import Placement, in_order, pair
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.session.classes import RequestClass
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import orders as wire

_log = logging.getLogger(__name__)

_INACTIVE = OrderStatus.INACTIVE.value


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a submission.

    Attributes:
        placed: The orders that stand, in the order of the tickets.
        refusal: Why the other ones do not stand; if all do, why one of them waits for an answer of a person.
        strays: IBKR's ids of orders of the same answer that belong to no ticket.
    """

    placed: tuple[Placement, ...]
    refusal: OrderRefusedError | None = None
    strays: tuple[str, ...] = ()


def _class_of(tickets: tuple[OrderTicket, ...]) -> RequestClass:
    """A submission that only protects goes first, and passes even while IBKR punishes haste."""
    protects = all(ticket.protective for ticket in tickets)
    return RequestClass.PROTECT if protects else RequestClass.ORDER


def _no_step(name: str) -> None:
    """Nobody counts the steps."""


class OrderService:
    """Conversations of one session.

    Args:
        http: The session's REST client.
        policy: Answers to questions.
        step: Told before and after each request that leaves; for tests that kill the process there.
    """

    def __init__(
        self, http: HttpClient, policy: QuestionPolicy, *, step: Callable[[str], None] = _no_step
    ) -> None:
        self._http = http
        self._policy = policy
        self._step = step
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def place(
        self, tickets: tuple[OrderTicket, ...], check: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Submit one order, a bracket (parent first) or an OCA group.

        A submission is not atomic: of a bracket, some may stand and others not.

        Args:
            tickets: All of one account.
            check: Asked when its turn has come, just before it is sent; what it raises is raised.

        Raises:
            OrderRefusedError: IBKR refused, or a question was declined: nothing stands.
            BrokenOffError: The conversation ended without an outcome, or which order is which could not be read.
        """
        problem: OrderRefusedError | None = None
        talk = Conversation(self._http, self._policy, _class_of(tickets), self._step)
        standing = talk.standing
        async with self._locks[tickets[0].account]:
            check()
            try:
                await talk.hold(
                    f"/iserver/account/{tickets[0].routed_account}/orders", wire.orders_request(tickets)
                )
            except OrderRefusedError as refused:
                if not standing:
                    raise
                problem = refused
            # Recorded: what is refused may be left there as Inactive, with an id. That is no order that stands.
            lively = [a for a in standing.values() if problem is None or a.status_text != _INACTIVE]
            placed = await self._match(tickets, tuple(lively))
        known = {one.order_id for one in placed}
        if len(placed) < len(tickets) <= len(standing) and problem is None:
            # All were accepted: none of them may be called refused.
            raise BrokenOffError(
                f"IBKR accepted the orders {', '.join(standing)}, but which is which could not be read.",
                stage=Stage.SENT,
            )
        if len(placed) < len(tickets) and problem is None:
            problem = OrderRefusedError(
                f"IBKR accepted only {len(placed)} of {len(tickets)} orders of one submission."
            )
        return Outcome(
            placed=placed,
            refusal=problem,
            strays=tuple(order_id for order_id in standing if order_id not in known),
        )

    async def modify(self, order_id: str, ticket: OrderTicket) -> str:
        """Replace a working order by ``ticket``, the whole order.

        Returns:
            The order's id from now on; IBKR may change it.

        Raises:
            OrderRefusedError: It stands as it was.
            BrokenOffError: Whether it was changed is not known.
        """
        talk = Conversation(self._http, self._policy, _class_of((ticket,)), self._step)
        async with self._locks[ticket.account]:
            await talk.hold(
                f"/iserver/account/{ticket.routed_account}/order/{order_id}", wire.order_request(ticket)
            )
        return next(iter(talk.standing), order_id)

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
        if len(open_tickets) == len(rest) == 1 and len(acks) == len(tickets):
            known.append((open_tickets[0], rest[0].order_id))
        elif open_tickets and rest:
            reports = []
            for ack in rest:
                try:
                    reports.append(await self.status(ack.order_id))
                except BtIbkrError as problem:
                    _log.warning("order-status-unread order_id=%s problem=%s", ack.order_id, problem)
            known.extend(pair(tuple(open_tickets), reports))
        return in_order(tickets, known)

    async def cancel(self, ticket: OrderTicket, order_id: str) -> None:
        """Ask for a cancellation. It has happened only when the order's status says so.

        Raises:
            OrderRefusedError: IBKR will not (done already, unknown …).
            BrokenOffError: The answer was lost, or the request did not leave.
        """
        await self.cancel_by_id(ticket.account, order_id, wire.cancel_parameters(ticket))

    async def cancel_by_id(
        self, account: str, order_id: str, parameters: dict[str, str] | None = None
    ) -> None:
        """As ``cancel``, for an order of which only the id is known."""
        self._step("desk.delete.before")
        try:
            reply = await self._http.send(
                "DELETE", f"/iserver/account/{account}/order/{order_id}", params=parameters or None
            )
        except (UnreachableError, TrustError, AuthenticationError, PacingPenaltyError) as problem:
            raise BrokenOffError(
                f"The cancellation of order {order_id} did not reach IBKR: {problem}", stage=Stage.UNSENT
            ) from problem
        except RequestTimeoutError as problem:
            raise BrokenOffError(
                f"Whether order {order_id} is being cancelled is not known: {problem}", stage=Stage.SENT
            ) from problem
        self._step("desk.delete.after")
        if reply.status >= 500 or reply.status in (401, 410):
            raise BrokenOffError(
                f"The cancellation of order {order_id} was answered with HTTP {reply.status}.",
                stage=Stage.SENT,
            )
        answer = wire.cancel_answer(reply.body)
        if reply.status != 200 or answer.error:
            raise OrderRefusedError(f"Order {order_id} was not cancelled: {answer.error or reply.text}")

    async def answer(self, prompt: wire.Prompt) -> None:
        """Answer a prompt that came by topic ``ntf``; raises as ``answer_prompt``."""
        await answer_prompt(self._http, self._policy, prompt, self._step)

    async def status(self, order_id: str) -> OrderReport:
        """What IBKR says of one order.

        Raises:
            ResponseError: 503 also for an order that it does not know any more.
        """
        return wire.order_status(await self._http.get(f"/iserver/account/order/status/{order_id}"))


def is_done(report: OrderReport) -> bool:
    """Whether the report says that the order will not execute any more."""
    return report.status in DONE
