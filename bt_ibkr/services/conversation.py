"""One conversation with IBKR about an order: the request, the questions it leads to, and the end of it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from enum import StrEnum

from bt_ibkr.errors import (
    AuthenticationError,
    BtIbkrError,
    OrderRefusedError,
    OutcomeUnknownError,
    PacingPenaltyError,
    SessionError,
    TrustError,
    UnreachableError,
    WireError,
)
from bt_ibkr.services.questions import QuestionPolicy, each, plain
from bt_ibkr.session.classes import RequestClass
from bt_ibkr.session.http import HttpClient, Reply
from bt_ibkr.wire import orders as wire

_log = logging.getLogger(__name__)

_MARGIN_WORDS = ("cash needed", "insufficient", "margin", "available converted", "available funds")
#: Words of the server that it has not even looked at the request, with any status.
_NOT_LOOKED_AT = ("no bridge", "query /accounts first", "not authenticated")
_STALE_REPLY = b"reply id not found"


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


def refusal(text: str) -> OrderRefusedError:
    """The error for IBKR's refusal in words."""
    lowered = text.lower()
    return OrderRefusedError(text, margin=any(word in lowered for word in _MARGIN_WORDS))


class Conversation:
    """One submission or modification.

    Args:
        http: The session's REST client.
        policy: Answers to questions.
        klass: How urgent it is.
        step: Told before and after each request that leaves.

    Attributes:
        standing: Orders that answers have named, by IBKR's id.
    """

    def __init__(
        self, http: HttpClient, policy: QuestionPolicy, klass: RequestClass, step: Callable[[str], None]
    ) -> None:
        self._http = http
        self._policy = policy
        self._klass = klass
        self._step = step
        self._asked = 0
        self.standing: dict[str, wire.OrderAck] = {}

    async def hold(self, path: str, body: object) -> None:
        """POST and answer questions until everything is accepted.

        Raises:
            OrderRefusedError: IBKR refused, or a question was declined. Orders in ``standing`` stand none the less.
            BrokenOffError: It ended without an outcome.
        """
        waiting: deque[wire.Question] = deque()
        reply = await self._post(path, body, Stage.UNSENT)
        while True:
            await self._take(reply, waiting)
            if not waiting:
                return
            question = waiting.popleft()
            self._count()
            decision = await self._policy.decide(question)
            named = ", ".join(question.message_ids) or "a question without an id"
            _log.info("order-question ids=%s answer=%s reason=%s", named, decision.accept, decision.reason)
            if not decision.accept:
                for one in (question, *waiting):
                    await self._decline(one)
                raise OrderRefusedError(
                    f"IBKR asked {named} ({plain(question).text[:300]}); the answer was no: {decision.reason}.",
                    remedy="Allow the id in the question policy if the order is meant.",
                )
            reply = await self._post(f"/iserver/reply/{question.reply_id}", {"confirmed": True}, Stage.ASKED)

    def _count(self) -> None:
        self._asked += 1
        if self._asked > self._policy.most_questions:
            raise OrderRefusedError(
                f"IBKR asked more than {self._policy.most_questions} questions about one order.",
                remedy="Look at the order in IBKR's own programs.",
            )

    async def _take(self, reply: Reply, waiting: deque[wire.Question]) -> None:
        """Take one answer in; its questions wait their turn."""
        try:
            answer = wire.submission(reply.body, reply.status)
        except WireError as problem:
            # The reply's id is gone: another conversation came in between, or it was answered before.
            lost = Stage.ASKED if _STALE_REPLY in reply.body.lower() else Stage.SENT
            raise BrokenOffError(str(problem), stage=lost) from None
        if isinstance(answer, wire.Refused):
            self._stand(answer.left_over)
            raise refusal(answer.text)
        self._stand(answer.acks)
        if isinstance(answer, wire.Question):
            waiting.extend(each(answer))
            for prompt in answer.prompts:
                await self._answer(prompt)
        elif isinstance(answer, wire.Prompt):
            for prompt in (answer, *answer.others):
                await self._answer(prompt)

    def _stand(self, acks: tuple[wire.OrderAck, ...]) -> None:
        self.standing.update((ack.order_id, ack) for ack in acks)

    async def _answer(self, prompt: wire.Prompt) -> None:
        """A prompt is about an order that has an id already; unanswered, the order waits."""
        self.standing.setdefault(
            prompt.order_id, wire.OrderAck(order_id=prompt.order_id, status_text="PendingSubmit")
        )
        self._count()
        try:
            await answer_prompt(self._http, self._policy, prompt, self._step)
        except OrderRefusedError:
            raise
        except BtIbkrError as problem:
            # The order has its id: it waits, and reports tell what becomes of it.
            _log.warning("order-prompt-unanswered order_id=%s problem=%s", prompt.order_id, problem)

    async def _decline(self, question: wire.Question) -> None:
        """Say no. The order does not stand whatever becomes of that: it was never confirmed."""
        self._step("desk.decline.before")
        try:
            await self._http.send(
                "POST", f"/iserver/reply/{question.reply_id}", body={"confirmed": False}, klass=self._klass
            )
        except BtIbkrError as problem:
            _log.warning("order-decline-unanswered problem=%s", problem)
        self._step("desk.decline.after")

    async def _post(self, path: str, body: object, stage: Stage) -> Reply:
        """One request of the conversation; ``stage`` is how far it is if this one certainly does not arrive."""
        self._step(f"desk.post.before.{stage}")
        try:
            reply = await self._http.send("POST", path, body=body, klass=self._klass)
        except (UnreachableError, TrustError, AuthenticationError, PacingPenaltyError) as problem:
            raise BrokenOffError(f"POST {path} did not reach IBKR: {problem}", stage=stage) from problem
        except SessionError as problem:
            raise BrokenOffError(str(problem), stage=Stage.SENT) from problem
        self._step(f"desk.post.after.{stage}")
        if reply.status >= 400 and any(words in reply.text.lower() for words in _NOT_LOOKED_AT):
            raise BrokenOffError(f"POST {path} was not taken: HTTP {reply.status}: {reply.text}", stage=stage)
        if reply.status >= 500:
            # 503 to an order or a reply may come although the order was taken.
            raise BrokenOffError(
                f"POST {path} was answered with HTTP {reply.status}: {reply.text}", stage=Stage.SENT
            )
        return reply


async def answer_prompt(
    http: HttpClient, policy: QuestionPolicy, prompt: wire.Prompt, step: Callable[[str], None]
) -> None:
    """Answer a question of the other kind, out of an answer or of topic ``ntf``.

    Raises:
        OrderRefusedError: The policy has no answer to it; the order waits at IBKR, unanswered.
    """
    decision = await policy.decide(prompt)
    _log.info("order-prompt id=%s option=%s reason=%s", prompt.message_id, decision.option, decision.reason)
    if decision.option is None:
        raise OrderRefusedError(
            f"IBKR asks {prompt.message_id or 'something without an id'} about order {prompt.order_id} "
            f"({plain(prompt).text[:300]}), and no answer was given: {decision.reason}.",
            remedy="Name the option to choose in the question policy, or answer it in IBKR's own programs.",
        )
    body = {"orderId": int(prompt.order_id), "reqId": prompt.request_id, "text": decision.option}
    step("desk.prompt.before")
    reply = await http.send("POST", "/iserver/notification", body=body, klass=RequestClass.ORDER)
    step("desk.prompt.after")
    if reply.status != 200:
        _log.warning("order-prompt-unanswered order_id=%s status=%d", prompt.order_id, reply.status)
