"""Answers to submissions, replies, modifications, cancellations and previews.

All kinds come under HTTP 200, also refusals: a body is classed by what it holds. What cannot be classed, and
every answer of a server in trouble (500 and above), leaves it open whether the order stands. That is a
``WireError``, never a refusal.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from bt_ibkr.errors import WireError
from bt_ibkr.wire import fields
from bt_ibkr.wire.json import describe, error_text, parsed

_SENTINEL: Final = "-1"
_FAILED: Final = "Failed"
#: The question was answered or invalidated before; what became of the order is not said.
_STALE_REPLY: Final = "reply id not found"
_LEADING_NUMBER: Final = re.compile(r"[+-]?[0-9][0-9,]*(?:\.[0-9]+)?")
_CURRENCY: Final = re.compile(r"\b[A-Z]{3}\b")


class OrderAck(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted order. ``client_order_id`` is its ``cOID``; several come in no reliable order."""

    order_id: str
    status_text: str
    client_order_id: str | None = None
    parent_order_id: str | None = None


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The orders stand at IBKR."""

    acks: tuple[OrderAck, ...]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """IBKR asks before it takes the order.

    Attributes:
        reply_id: For ``/iserver/reply/{reply_id}``.
        texts: What is asked; may hold HTML.
        message_ids: What a policy should go by: ``o163`` …
        options: Words of the buttons.
        others: Further questions of the same answer, each with its own reply id.
        prompts: Questions of the other kind in the same answer.
        acks: Orders of the same answer that were accepted already.
    """

    reply_id: str
    texts: tuple[str, ...]
    message_ids: tuple[str, ...]
    options: tuple[str, ...] = ()
    others: tuple[Question, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    acks: tuple[OrderAck, ...] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """IBKR does not take the order, in its own words.

    Attributes:
        left_over: Orders that the same answer names with an id: they exist, if only as Inactive.
    """

    text: str
    left_over: tuple[OrderAck, ...] = ()


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A question of the other kind, also sent by topic ``ntf``; answered with ``POST /iserver/notification``
    and one of ``options``.

    Attributes:
        others, acks: Further prompts, and accepted orders, of the same answer.
    """

    order_id: str
    request_id: str
    text: str
    options: tuple[str, ...]
    message_id: str | None = None
    others: tuple[Prompt, ...] = ()
    acks: tuple[OrderAck, ...] = ()


Submission = Accepted | Question | Refused | Prompt


class CancelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a cancellation was taken: it was if ``error`` is ``None``, but it has not happened yet."""

    order_id: str | None
    text: str
    error: str | None = None


class Impact(msgspec.Struct, frozen=True, kw_only=True):
    """A figure before and after the order, in the account's base currency."""

    current: float | None
    change: float | None
    after: float | None


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """A preview.

    Attributes:
        amount, commission, total: In ``currency``; ``None`` where the server's words hold no figure.
        warnings, error: The server's words.
    """

    amount: float | None
    commission: float | None
    total: float | None
    currency: str | None
    equity: Impact | None
    initial_margin: Impact | None
    maintenance_margin: Impact | None
    position: Impact | None
    warnings: tuple[str, ...]
    error: str | None


class _Row(msgspec.Struct):
    """An element of an answer: an order, a refused order, or a question."""

    order_id: object = None  # text, "-1" for a refused order
    order_status: object = None
    local_order_id: object = None  # cOID
    parent_order_id: object = None
    text: object = None
    warning_message: object = None
    id: object = None  # of a question
    message: object = None
    message_ids: object = msgspec.field(default=None, name="messageIds")
    message_options: object = msgspec.field(default=None, name="messageOptions")


class _Prompt(msgspec.Struct, rename="camel"):
    order_id: object = None
    req_id: object = None
    text: object = None
    options: object = None
    message_id: object = None


def submission(body: object, status: int = 200) -> Submission:
    """What IBKR makes of an order, a reply to a question, or a modification.

    Args:
        body: Bytes or decoded JSON.
        status: HTTP status of the answer.

    Raises:
        WireError: The answer does not tell whether the order stands.
    """
    if status >= 500:
        told = describe(bytes(body)) if isinstance(body, (bytes, msgspec.Raw)) else error_text(body)
        raise WireError(f"An order was answered with HTTP {status}: {told}; whether it stands is not said.")
    value = parsed(body)
    if isinstance(value, dict):
        return _single(value)
    if isinstance(value, list) and value:
        return _rows(value)
    raise WireError(f"An order was answered with {fields.show(value) if value else 'nothing'}.")


def _single(value: dict[str, object]) -> Submission:
    if "reqId" in value:
        return prompt(value)
    if "order_id" in value or isinstance(value.get("message"), list):
        return _rows([value])
    text = error_text(value)
    if text is None or not _envelope(value):
        raise WireError(f"An order was answered with an object of keys {sorted(value)[:8]}.")
    if text.lower().startswith(_STALE_REPLY):
        raise WireError(f"A reply came too late: {text!r}; whether the order stands is not said.")
    return Refused(text=text)


def _envelope(value: dict[str, object]) -> bool:
    """Whether an object is an error about the request, not a message about the service."""
    return bool(value.get("error")) or isinstance(value.get("title"), str)


def _rows(items: list[object]) -> Submission:
    acks: list[OrderAck] = []
    questions: list[Question] = []
    prompts: list[Prompt] = []
    refusals: list[str] = []
    for item in items:
        if isinstance(item, dict) and "reqId" in item:
            prompts.append(prompt(item))
            continue
        row = fields.payload(item, _Row, "answer to an order")
        text = error_text(item) or error_text([item])
        if row.order_id is not None and fields.text(row.order_id) != _SENTINEL:
            ack = _ack(row)
            if ack.status_text == _FAILED:
                refusals.append(fields.text(row.text) or text or _FAILED)
            else:
                acks.append(ack)
        elif row.id is not None:
            questions.append(_question(row))
        elif text is not None:
            refusals.append(text)
        else:
            raise WireError("An order was answered with a row that is no order, question or refusal.")
    if refusals:
        return Refused(text=" ".join(refusals), left_over=tuple(acks))
    if questions:
        first, *others = questions
        return msgspec.structs.replace(first, others=tuple(others), prompts=tuple(prompts), acks=tuple(acks))
    if prompts:
        return msgspec.structs.replace(prompts[0], others=tuple(prompts[1:]), acks=tuple(acks))
    return Accepted(acks=tuple(acks))


def _ack(row: _Row) -> OrderAck:
    return OrderAck(
        order_id=fields.required(fields.order_id(row.order_id), "answer to an order: order_id"),
        status_text=fields.text(row.order_status) or "",
        client_order_id=fields.text(row.local_order_id),
        parent_order_id=fields.lenient(fields.order_id, row.parent_order_id, "parent_order_id"),
    )


def _question(row: _Row) -> Question:
    texts = fields.words(row.message)
    single = fields.text(row.message)
    return Question(
        reply_id=fields.required(fields.identifier(row.id, "question: id"), "question: id"),
        texts=texts or ((single,) if single else ()),
        message_ids=fields.words(row.message_ids),
        options=fields.words(row.message_options),
    )


def prompt(item: object) -> Prompt:
    """A prompt object, out of an answer or of topic ``ntf``.

    Raises:
        WireError: Not an object, or without an order id or request id.
    """
    row = fields.payload(item, _Prompt, "order prompt")
    return Prompt(
        order_id=fields.required(fields.order_id(row.order_id), "order prompt: orderId"),
        request_id=fields.required(
            fields.identifier(row.req_id, "order prompt: reqId"), "order prompt: reqId"
        ),
        text=fields.text(row.text) or "",
        options=fields.words(row.options),
        message_id=fields.text(row.message_id),
    )


class _Cancel(msgspec.Struct):
    msg: object = None
    order_id: object = None  # number


def cancel_answer(body: object) -> CancelAnswer:
    """The answer to a cancellation: ``{"msg": "Request was submitted", …}`` or an error.

    Raises:
        WireError: Neither.
    """
    value = parsed(body)
    row = fields.payload(value, _Cancel, "answer to a cancellation")
    order_id = fields.lenient(fields.order_id, row.order_id, "order_id")
    problem = error_text(value)
    if problem is not None:
        return CancelAnswer(order_id=order_id, text=problem, error=problem)
    text = fields.required(fields.text(row.msg), "answer to a cancellation: msg")
    return CancelAnswer(order_id=order_id, text=text)


class _WhatIf(msgspec.Struct):
    amount: object = None
    equity: object = None
    initial: object = None
    maintenance: object = None
    position: object = None
    warn: object = None
    warns: object = None
    error: object = None


def whatif(body: object) -> WhatIf:
    """A preview. Figures are texts such as ``1,977.60 USD (10 Shares)``; refusals come under HTTP 200.

    Raises:
        WireError: Not an object.
    """
    value = parsed(body)
    row = fields.payload(value, _WhatIf, "preview")
    amounts = row.amount if isinstance(row.amount, dict) else {}
    total = fields.text(amounts.get("total")) or fields.text(amounts.get("amount")) or ""
    currency = _CURRENCY.search(total)
    warning = fields.text(row.warn)
    warnings = fields.words(row.warns)
    return WhatIf(
        amount=_leading_number(amounts.get("amount")),
        commission=_leading_number(amounts.get("commission")),
        total=_leading_number(amounts.get("total")),
        currency=currency.group() if currency else None,
        equity=_impact(row.equity),
        initial_margin=_impact(row.initial),
        maintenance_margin=_impact(row.maintenance),
        position=_impact(row.position),
        warnings=warnings if warning is None or warning in warnings else (warning, *warnings),
        error=error_text(value),
    )


def _impact(value: object) -> Impact | None:
    if not isinstance(value, dict):
        return None
    return Impact(
        current=_leading_number(value.get("current")),
        change=_leading_number(value.get("change")),
        after=_leading_number(value.get("after")),
    )


def _leading_number(value: object) -> float | None:
    if isinstance(value, str):
        match = _LEADING_NUMBER.match(value.strip())
        value = match.group() if match else None
    return fields.lenient(fields.amount, value, "figure")
