"""Bodies as JSON, and what kind of trouble a body tells of.

IBKR answers with JSON, with HTML (unknown paths, refusals by the edge), with plain text, and with nothing.
Errors come in several envelopes, some of them under HTTP 200.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from bt_ibkr.errors import WireError

#: A body above this many bytes is refused unread (the largest known one, scanner parameters, has 0.2 MB).
MAX_BODY: Final = 64_000_000
#: Containers within containers; IBKR's deepest known body has 8.
MAX_DEPTH: Final = 64

#: Words under ``message`` or ``status`` that report success.
_GOOD_WORDS: Final = frozenset({"success", "triggered", "submitted", "request was submitted"})
#: Keys that may stand beside ``message`` in an error; beside any other key it is an ordinary field.
_ERROR_KEYS: Final = frozenset({"message", "code", "statusCode", "status", "topic", "id"})
_WAITING: Final = "waiting for reply"
_TITLE: Final = re.compile(r"<(title|h1)[^>]{0,200}>([^<]{1,200})</\1>", re.IGNORECASE)

_decode = msgspec.json.Decoder().decode

Body = bytes | bytearray | memoryview | msgspec.Raw


def decode(body: Body | str) -> object:
    """The JSON value in ``body``.

    Raises:
        WireError: Empty, HTML, not UTF-8, not JSON (``NaN`` and ``Infinity`` are not JSON), a number out of
            range, nested too deeply, or too large.
    """
    data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
    if len(data) > MAX_BODY:
        raise WireError(f"A body of {len(data)} bytes was refused (limit {MAX_BODY}).")
    try:
        value: object = _decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as problem:
        raise _not_json(data, problem) from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    return value


def _not_json(data: bytes, problem: Exception) -> WireError:
    head = data[:400].strip()
    if not head:
        return WireError("The body is empty where JSON was expected.")
    if head.startswith(b"<"):
        return WireError(f"The body is HTML, not JSON: {describe(data)!r}.")
    return WireError(f"The body is not JSON ({problem}); it begins with {head[:80]!r}.")


def _check_depth(value: object) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for container in level for child in _children(container)]
        if not level:
            return
    raise WireError(f"The body is nested more than {MAX_DEPTH} levels deep.")


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def parsed(body: object) -> object:
    """``body`` itself, or the JSON in it if it is still bytes.

    Raises:
        WireError: As ``decode``.
    """
    if isinstance(body, (bytes, bytearray, memoryview, msgspec.Raw)):
        return decode(body)
    return body


def error_text(body: object) -> str | None:
    """What a parsed body says went wrong, or ``None`` if it is not one of IBKR's error envelopes.

    Known envelopes: ``{"error": text}`` (any HTTP status, also 200), the same with an object inside,
    ``[{"order_id": "-1", "text": …}]`` (a refused order), problem+json (``title``, ``detail``),
    ``{"message": text}`` alone, ``{"status": "waiting for reply"}`` (a service that is not warm yet).
    """
    if isinstance(body, list):
        for row in body:
            if isinstance(row, dict):
                text = _sentinel_text(row) or _envelope_text(row.get("error"))
                if text:
                    return text
        return None
    if not isinstance(body, dict):
        return None
    text = _envelope_text(body.get("error"))
    if text:
        return text
    return _problem_text(body) or _message_text(body)


def _envelope_text(error: object) -> str | None:
    if isinstance(error, str):
        return error.strip() or None
    if isinstance(error, dict):
        for key in ("message", "description", "text", "code"):
            inner = error.get(key)
            if isinstance(inner, str) and inner.strip():
                return inner.strip()
        return "unspecified error" if error else None
    return "unspecified error" if error is True else None


def _sentinel_text(row: dict[str, object]) -> str | None:
    identifier = row.get("order_id")
    if isinstance(identifier, bool) or identifier not in ("-1", -1):
        return None
    texts = [row.get("text"), row.get("warning_message")]
    parts = [part.strip() for part in texts if isinstance(part, str)]
    return " ".join(part for part in parts if part) or "order refused"


def _problem_text(body: dict[str, object]) -> str | None:
    title, detail = body.get("title"), body.get("detail")
    if not isinstance(title, str) or not ("status" in body or "type" in body):
        return None
    return f"{title}: {detail}" if isinstance(detail, str) and detail else title or None


def _message_text(body: dict[str, object]) -> str | None:
    if body.get("status") == _WAITING:
        return _WAITING
    message = body.get("message")
    if not isinstance(message, str) or not body.keys() <= _ERROR_KEYS:
        return None
    text = message.strip()
    return None if text.lower() in _GOOD_WORDS else text or None


def describe(body: bytes | str) -> str:
    """A short text for people out of an error body of any kind: JSON, HTML, plain text, nothing.

    Never raises.
    """
    text = body if isinstance(body, str) else body[:4000].decode("utf-8", "replace")
    text = text.strip()
    if not text:
        return "(empty body)"
    if text.startswith("<"):
        match = _TITLE.search(text[:4000])
        return match.group(2).strip() if match else "(HTML)"
    try:
        found = error_text(decode(body))
    except WireError:
        found = None
    return (found or " ".join(text.split()))[:300]
