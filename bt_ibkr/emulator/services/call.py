"""What a handler gets and gives: no handler sees a socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.json import decode

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core


class Needs(Enum):
    """What must be true of the session before a route answers."""

    NOTHING = "nothing"
    LOGIN = "login"
    BRIDGE = "bridge"
    ACCOUNTS = "accounts"


class Text(msgspec.Struct, frozen=True):
    """An answer in plain text."""

    text: str


class Call(msgspec.Struct, frozen=True):
    """One request.

    Attributes:
        path: Values of the path's variables.
        query: The query string; of a repeated key the last value.
        raw: The body as it came.
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    raw: bytes

    def json(self) -> Any:
        """The body as JSON; an empty body is ``{}``.

        Raises:
            ApiError: 400, no JSON.
        """
        if not self.raw.strip():
            return {}
        try:
            return decode(self.raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise errors.error(
                400, "Failed to parse body as JSON. Content Type: application/json; charset=utf-8"
            ) from None

    def object(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            ApiError: 400, no object.
        """
        body = self.json()
        if not isinstance(body, dict):
            raise errors.bad_request("request body must be a JSON object")
        return body

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("true", "1")

    def integer(self, name: str, text: str | None) -> int:
        """``text`` as a whole number.

        Raises:
            ApiError: 400, not one.
        """
        body = (text or "").strip()
        digits = body.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
            raise errors.bad_request(f"{name} is not valid: {body}")
        return int(body)


Handler = Callable[["Core", Call], Awaitable[object]]


class Route(msgspec.Struct, frozen=True):
    """A path of the API and who answers it; ``path`` is below ``/v1/api``."""

    methods: tuple[str, ...]
    path: str
    handler: Handler
    needs: Needs = Needs.LOGIN
