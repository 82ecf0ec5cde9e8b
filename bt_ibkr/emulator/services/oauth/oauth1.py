"""OAuth 1.0a on the server's side: grants, live session tokens, and the check of every request."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.oauth import refusals
from bt_ibkr.emulator.services.oauth.material import Grant, Material
from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.emulator.services.oauth.signature import Signed, java_bytes

_PRIVATE_BITS: Final = 256
#: Live session tokens of one grant that hold at the same time.
_LIVE: Final = 8


class _Live(msgspec.Struct, frozen=True):
    key: bytes
    until: float


class _Pending(msgspec.Struct):
    """A request token; the user's grant gives it its verifier."""

    verifier: str = ""


class OAuth1:
    """One consumer.

    Args:
        settings: Its name and limits.
        material: Its keys, and the first grant.
        wall: Wall seconds since the epoch.
    """

    def __init__(
        self, settings: AuthenticationSettings, material: Material, wall: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._material = material
        self._wall = wall
        first = material.grant
        self._grants: dict[str, Grant] = {} if first is None or settings.third_party else {first.token: first}
        self._live: dict[str, deque[_Live]] = {}
        self._pending: dict[str, _Pending] = {}
        self._nonces: dict[str, float] = {}

    def request_token(self, signed: Signed) -> dict[str, object]:
        self._third_party(signed)
        if not signed.params.get("oauth_callback"):
            raise errors.bad_request("missing oauth_callback")
        token = secrets.token_hex(10)
        self._pending[token] = _Pending()
        return {"oauth_token": token}

    def authorize(self, token: str) -> str:
        """The user grants access: the verifier.

        Raises:
            ApiError: No such request token.
        """
        pending = self._pending.get(token)
        if pending is None:
            raise refusals.token()
        pending.verifier = pending.verifier or secrets.token_hex(5)
        return pending.verifier

    def access_token(self, signed: Signed) -> dict[str, object]:
        self._third_party(signed)
        token = signed.params.get("oauth_token", "")
        pending = self._pending.get(token)
        given = signed.params.get("oauth_verifier", "")
        if pending is None:
            raise refusals.token()
        if not pending.verifier or not hmac.compare_digest(pending.verifier.encode(), given.encode()):
            raise refusals.verifier()
        del self._pending[token]
        grant = self._material.new_grant()
        self._grants[grant.token] = grant
        return {"is_paper": True, "oauth_token": grant.token, "oauth_token_secret": grant.sealed}

    def _third_party(self, signed: Signed) -> None:
        self._known(signed, "RSA-SHA256")
        if not self._settings.third_party:
            raise refusals.consumer()
        if not signed.signed_by(self._material.signature):
            raise refusals.signature()
        self._fresh(signed)

    def live_session_token(self, signed: Signed) -> dict[str, object]:
        """The server's half of the Diffie-Hellman exchange."""
        self._known(signed, "RSA-SHA256")
        grant = self._grants.get(signed.params.get("oauth_token", ""))
        if grant is None:
            raise refusals.token()
        if not signed.signed_by(self._material.signature, grant.secret.hex()):
            raise refusals.signature()
        self._fresh(signed)
        prime = self._material.prime
        try:
            theirs = int(signed.params.get("diffie_hellman_challenge", ""), 16)
        except ValueError:
            theirs = 0
        if not 1 < theirs < prime - 1:
            raise errors.bad_request("diffie_hellman_challenge")
        private = secrets.randbits(_PRIVATE_BITS) | 1
        common = java_bytes(pow(theirs, private, prime))
        key = hmac.new(common, grant.secret, hashlib.sha1).digest()
        until = self._wall() + self._settings.lifetime_s
        self._live.setdefault(grant.token, deque(maxlen=_LIVE)).append(_Live(key, until))
        proof = hmac.new(key, self._settings.consumer_key.encode(), hashlib.sha1).hexdigest()
        return {
            "diffie_hellman_response": f"{pow(self._material.generator, private, prime):x}",
            "live_session_token_signature": proof,
            "live_session_token_expiration": int(until * 1000),
        }

    def admit(self, signed: Signed) -> None:
        """Check one request of the API.

        Raises:
            ApiError: 401, why not.
        """
        self._known(signed, "HMAC-SHA256")
        token = signed.params.get("oauth_token", "")
        if token not in self._grants:
            raise refusals.token()
        live = self._holding(token)
        if not live:
            raise refusals.live_session()
        if not any(signed.keyed_with(one.key) for one in live):
            raise refusals.signature()
        self._fresh(signed)

    def admit_socket(self, token: str) -> None:
        """Check the query of a WebSocket; raises ApiError with 401."""
        if token not in self._grants or not self._holding(token):
            raise refusals.live_session()

    def expire(self) -> None:
        """End every live session token now."""
        self._live.clear()

    def _holding(self, token: str) -> list[_Live]:
        now = self._wall()
        return [one for one in self._live.get(token, ()) if one.until > now]

    def _known(self, signed: Signed, method: str) -> None:
        settings = self._settings
        if signed.params["oauth_consumer_key"] != settings.consumer_key:
            raise refusals.consumer()
        if signed.params["oauth_signature_method"] != method:
            raise errors.bad_request(f"oauth_signature_method must be {method}")
        if signed.realm != ("test_realm" if settings.consumer_key == "TESTCONS" else "limited_poa"):
            raise refusals.realm()

    def _fresh(self, signed: Signed) -> None:
        """Refuse a clock that is wrong, and what was sent before. Only after the signature was found right: else
        anybody could use up nonces."""
        text = signed.params["oauth_timestamp"]
        now, skew = self._wall(), self._settings.skew_s
        if len(text) != 10 or not text.isdecimal() or abs(int(text) - now) > skew:
            raise refusals.timestamp()
        nonce = signed.params["oauth_nonce"]
        # Insertion order is that of arrival: the oldest come first.
        for old in [one for one, until in self._nonces.items() if until <= now]:
            del self._nonces[old]
        if nonce in self._nonces:
            raise refusals.nonce()
        self._nonces[nonce] = now + 2 * skew
