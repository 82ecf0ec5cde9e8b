"""Error answers of the real server, as recorded (wire facts, section 10)."""

from __future__ import annotations

from bt_ibkr.emulator.services.json import encode

JSON = "application/json"
HTML = "text/html"
TEXT = "text/plain"


class ApiError(Exception):
    """An answer that is an error, as bytes ready to send.

    Args:
        status: HTTP status.
        body: What is sent.
        content_type: Of the body.
    """

    def __init__(self, status: int, body: bytes, content_type: str = JSON) -> None:
        super().__init__(f"{status} {body[:80]!r}")
        self.status = status
        self.body = body
        self.content_type = content_type


def error(status: int, text: str, *, with_code: bool = False) -> ApiError:
    """``{"error": text}``, with ``statusCode`` where the real server adds it."""
    body: dict[str, object] = {"error": text}
    if with_code:
        body["statusCode"] = status
    return ApiError(status, encode(body))


def bad_request(text: str) -> ApiError:
    return error(400, f"Bad Request: {text}", with_code=True)


def no_bridge() -> ApiError:
    """No brokerage session."""
    return bad_request("no bridge")


def not_authenticated() -> ApiError:
    """Nobody is logged in at all."""
    return ApiError(401, b"not authenticated", TEXT)


def accounts_first() -> ApiError:
    return error(500, "Please query /accounts first")


def not_found() -> ApiError:
    return ApiError(404, b"<html><body><h1>Resource not found</h1></body></html>", HTML)


def length_required() -> ApiError:
    return ApiError(411, b"", HTML)


def too_many_requests() -> ApiError:
    return error(429, "Too many requests")


def unavailable() -> ApiError:
    return error(503, "Service Unavailable", with_code=True)
