"""What a client sends over the WebSocket: ``TOPIC``, ``TOPIC+TARGET`` or ``TOPIC+TARGET+{JSON}``."""

from __future__ import annotations

from typing import Any

import msgspec

from bt_ibkr.emulator.services.json import decode


class Message(msgspec.Struct, frozen=True):
    """One message.

    Attributes:
        topic: Three letters.
        target: Conid, account or server id; empty without one.
        arguments: The JSON object; empty if there is none or it cannot be read.
    """

    topic: str
    target: str = ""
    arguments: dict[str, Any] = {}


def parse(text: str) -> Message:
    """The message in ``text``; anything can be parsed, what means nothing has an unknown topic.

    >>> parse('smd+265598+{"fields":["31"]}').arguments
    {'fields': ['31']}
    >>> parse("sor+{}").target
    ''
    """
    topic, _, rest = text.strip().partition("+")
    if rest.startswith("{"):
        return Message(topic, "", _arguments(rest))
    target, _, body = rest.partition("+{")
    return Message(topic, target, _arguments("{" + body) if body else {})


def _arguments(text: str) -> dict[str, Any]:
    """A wrong key or broken JSON is ignored in silence, as the real server does."""
    try:
        found = decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return {}
    return found if isinstance(found, dict) else {}
