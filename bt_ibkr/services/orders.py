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
from enum import StrEnum

import msgspec

from bt_ibkr.errors import (
    AuthenticationError,
    BtIbkrError,
    OrderRefusedError,
    OutcomeUnknownError,
    PacingPenaltyError,
    RequestTimeoutError,
    SessionError,
    TrustError,
    UnreachableError,
    WireError,
)
from bt_ibkr.model.order import DONE, OrderReport, OrderTicket
from bt_ibkr.services.matching import Placement, in_order, pair
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.session.classes import RequestClass
from bt_ibkr.session.http import HttpClient, Reply
from bt_ibkr.wire import orders as wire

_log = logging.getLogger(__name__)

#: Longest chain of questions followed; chains of three were recorded.
_MOST_QUESTIONS = 8
_FUTURES = frozenset({"FUT", "FOP"})
_MARGIN_WORDS = ("cash needed", "insufficient", "margin", "available converted", "available funds")
#: Words of the server that it has not even looked at the request, with any status.
_STALE_REPLY = b"reply id not found"
_NOT_LOOKED_AT = ("no bridge", "query /accounts first", "not authenticated")


class Stage(StrEnum):
    """How far a broken-off conversation had come."""

    #: Nothing reached IBKR's order handling: it may be sent again with the same ``cOID``.
    UNSENT = "unsent"
    #: A question was open and was never confirmed: once no list shows the order it may be sent again.
    ASKED = "asked"
    #: Sent or confirmed, and the answer was lost: it may stand. It is looked up, never sent again.
    SENT = "sent"


class BrokenOffError(OutcomeUnknownError):
    """A conversation that ended without an outcome.

    Args:
        message: What happened.
        stage: How far it had come.
    """

    def __init__(self, message: str, *, stage: Stage, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.stage = stage


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a submission.

    Attributes:
        placed: The orders that stand, in the order of the tickets.
        refusal: Why the other ones do not stand; ``None`` if all do.
        strays: IBKR's ids of orders of the same answer that belong to no ticket.
    """

    placed: tuple[Placement, ...]
    refusal: OrderRefusedError | None = None
    strays: tuple[str, ...] = ()


def refusal(text: str) -> OrderRefusedError:
    """The error for IBKR's refusal in words."""
    lowered = text.lower()
    return OrderRefusedError(text, margin=any(word in lowered for word in _MARGIN_WORDS))


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

    async def place(self, tickets: tuple[OrderTicket, ...]) -> Outcome:
        """Submit one order, a bracket (parent first) or an OCA group.

        A submission is not atomic: of a bracket, some may stand and others not.

        Args:
            tickets: All of one account.

        Raises:
            OrderRefusedError: IBKR refused, or a question was declined: nothing stands.
            BrokenOffError: The conversation ended without an outcome.
        """
        account = tickets[0].account
        standing: dict[str, wire.OrderAck] = {}
        problem: OrderRefusedError | None = None
        async with self._locks[account]:
            try:
                await self._converse(
                    f"/iserver/account/{tickets[0].routed_account}/orders",
                    wire.orders_request(tickets),
                    standing,
                    _class_of(tickets),
                )
            except OrderRefusedError as refused:
                if not standing:
                    raise
                problem = refused
            placed = await self._match(tickets, tuple(standing.values()))
        known = {one.order_id for one in placed}
        if len(placed) < len(tickets) and problem is None:
            problem = OrderRefusedError(
                f"IBKR accepted only {len(placed)} of {len(tickets)} orders of one submission."
            )
        return Outcome(
            placed=placed,
            refusal=problem if len(placed) < len(tickets) else None,
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
        account = ticket.account
        standing: dict[str, wire.OrderAck] = {}
        async with self._locks[account]:
            await self._converse(
                f"/iserver/account/{account}/order/{order_id}",
                wire.order_request(ticket),
                standing,
                _class_of((ticket,)),
            )
        return next(iter(standing), order_id)

    async def _converse(
        self, path: str, body: object, standing: dict[str, wire.OrderAck], klass: RequestClass
    ) -> None:
        """POST and answer questions until the order is accepted or refused; orders that an answer names go
        into ``standing`` by their id."""
        stage = Stage.UNSENT
        reply = await self._post(path, body, klass, stage)
        for _ in range(_MOST_QUESTIONS):
            try:
                answer = wire.submission(reply.body, reply.status)
            except WireError as problem:
                # The reply's id is gone: another conversation came in between, or it was answered before.
                lost = Stage.ASKED if _STALE_REPLY in reply.body.lower() else Stage.SENT
                raise BrokenOffError(str(problem), stage=lost) from None
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
            path = f"/iserver/reply/{answer.reply_id}"
            if not accepts:
                await self._decline(path, klass)
                raise OrderRefusedError(
                    f"IBKR asked {', '.join(answer.message_ids) or 'a question without an id'} "
                    f"({' '.join(answer.texts)[:300]}), which the question policy declines.",
                    remedy="Allow the id in the question policy if the order is meant.",
                )
            reply = await self._post(path, {"confirmed": True}, klass, Stage.ASKED)
        raise OrderRefusedError(f"IBKR asked more than {_MOST_QUESTIONS} questions about one order.")

    async def _decline(self, path: str, klass: RequestClass) -> None:
        """Say no. The order does not stand whatever becomes of that: it was never confirmed."""
        try:
            await self._http.send("POST", path, body={"confirmed": False}, klass=klass)
        except BtIbkrError as problem:
            _log.warning("order-decline-unanswered problem=%s", problem)

    async def _post(self, path: str, body: object, klass: RequestClass, stage: Stage) -> Reply:
        """One request of a conversation; ``stage`` is how far it is if this one certainly does not arrive."""
        used = self._http.generation
        self._step(f"before POST {stage}")
        try:
            reply = await self._http.send("POST", path, body=body, klass=klass)
        except (UnreachableError, TrustError, AuthenticationError, PacingPenaltyError) as problem:
            raise BrokenOffError(f"POST {path} did not reach IBKR: {problem}", stage=stage) from problem
        except SessionError as problem:
            raise BrokenOffError(str(problem), stage=Stage.SENT) from problem
        self._step(f"after POST {stage}")
        if reply.status in (401, 410) or (
            reply.status >= 400 and any(words in reply.text.lower() for words in _NOT_LOOKED_AT)
        ):
            repair = self._http.repair
            if repair is not None:
                await repair(reply, used)
            raise BrokenOffError(f"POST {path} was not taken: HTTP {reply.status}: {reply.text}", stage=stage)
        if reply.status >= 500:
            # 503 to an order or a reply may come although the order was taken.
            raise BrokenOffError(
                f"POST {path} was answered with HTTP {reply.status}: {reply.text}", stage=Stage.SENT
            )
        return reply

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
        await self.cancel_by_id(ticket.account, order_id, _cancel_parameters(ticket))

    async def cancel_by_id(
        self, account: str, order_id: str, parameters: dict[str, str] | None = None
    ) -> None:
        """As ``cancel``, for an order of which only the id is known."""
        self._step("before DELETE")
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
        self._step("after DELETE")
        if reply.status >= 500 or reply.status in (401, 410):
            raise BrokenOffError(
                f"The cancellation of order {order_id} was answered with HTTP {reply.status}.",
                stage=Stage.SENT,
            )
        answer = wire.cancel_answer(reply.body)
        if reply.status != 200 or answer.error:
            raise OrderRefusedError(f"Order {order_id} was not cancelled: {answer.error or reply.text}")

    async def status(self, order_id: str) -> OrderReport:
        """What IBKR says of one order.

        Raises:
            ResponseError: 503 also for an order that it does not know any more.
        """
        return wire.order_status(await self._http.get(f"/iserver/account/order/status/{order_id}"))


def _cancel_parameters(ticket: OrderTicket) -> dict[str, str]:
    """CME rule 536-B wants to know of a cancellation, too, who asked for it."""
    if ticket.security_type not in _FUTURES:
        return {}
    manual = bool(ticket.manual_indicator)
    return {
        "manualIndicator": str(manual).lower(),
        "extOperator": ticket.ext_operator or ticket.account,
    }


def is_done(report: OrderReport) -> bool:
    """Whether the report says that the order will not execute any more."""
    return report.status in DONE
