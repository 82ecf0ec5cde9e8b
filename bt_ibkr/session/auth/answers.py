"""Answers to requests for credentials: decoded into their type, or told as errors without a secret in them."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from bt_ibkr.errors import AuthenticationError, ResponseError, WireError
from bt_ibkr.redaction import redact
from bt_ibkr.session.transfer import Reply
from bt_ibkr.wire import json as wire_json

T = TypeVar("T", bound=msgspec.Struct)

#: By which a server says that it does not accept the credential.
_REFUSED = frozenset({400, 401, 403, 410})
#: Keys of an error besides those of IBKR's own envelopes: RFC 6749 and RFC 9457.
_WORDS = ("error_description", "error", "detail", "title")


def decoded(reply: Reply, into: type[T], what: str, remedy: str) -> T:
    """The answer as ``into``.

    Raises:
        AuthenticationError: The server refused.
        ResponseError: Another error, or an answer of another form.
    """
    if reply.status in _REFUSED:
        raise AuthenticationError(
            f"{what} was refused with HTTP {reply.status}: {words(reply)}", remedy=remedy
        )
    if not 200 <= reply.status < 300:
        told = words(reply)
        raise ResponseError(
            f"{what}: the server answered HTTP {reply.status}: {told}", status=reply.status, body=told
        )
    try:
        return msgspec.json.decode(reply.body, type=into)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The body may hold a credential; not a word of it is repeated.
        raise ResponseError(
            f"{what}: the server's answer has another form than expected.", status=reply.status, body=""
        ) from None


def words(reply: Reply) -> str:
    """What an error says, short."""
    try:
        body = wire_json.decode(reply.body)
    except WireError:
        return reply.text[:200]
    if isinstance(body, dict):
        for key in _WORDS:
            if isinstance(body.get(key), str):
                return redact(str(body[key]))[:200]
    return reply.text[:200]
