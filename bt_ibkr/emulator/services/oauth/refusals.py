"""How a credential is refused. The consumer's refusal is recorded, the others follow its form."""

from __future__ import annotations

from bt_ibkr.emulator.services.errors import ApiError, error
from bt_ibkr.emulator.services.json import encode

PROBLEM = "application/problem+json"


def _refused(number: int, text: str) -> ApiError:
    return error(401, f"id: {number}, error: {text}", with_code=True)


def consumer() -> ApiError:
    return _refused(39687, "invalid consumer")


def signature() -> ApiError:
    return _refused(39690, "invalid signature")


def timestamp() -> ApiError:
    return _refused(39691, "invalid timestamp")


def nonce() -> ApiError:
    return _refused(39692, "nonce already used")


def token() -> ApiError:
    return _refused(118871, "LST failed, error: No access secret key found for the access token")


def live_session() -> ApiError:
    return _refused(39693, "invalid live session token")


def realm() -> ApiError:
    return _refused(39694, "invalid realm")


def verifier() -> ApiError:
    return _refused(39695, "invalid verifier")


def problem(status: int, title: str, detail: str) -> ApiError:
    """As everything outside ``/v1/api`` refuses (RFC 9457)."""
    body = {"type": "/simple", "title": title, "status": status, "detail": detail}
    return ApiError(status, encode(body), PROBLEM)


def bad(detail: str) -> ApiError:
    return problem(400, "Bad Request", detail)


def unauthorized(detail: str) -> ApiError:
    return problem(401, "Unauthorized", detail)
