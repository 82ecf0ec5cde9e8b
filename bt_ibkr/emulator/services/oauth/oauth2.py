"""OAuth 2.0 and bearer tokens on the server's side."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt
import msgspec

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.oauth import refusals
from bt_ibkr.emulator.services.oauth.material import Material
from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings

_ALGORITHMS: Final = ["RS256", "PS256", "ES256"]
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SCOPES: Final = frozenset({"sso-sessions.write", "echo.read", "echo.write"})
#: An assertion may be dated this far ahead of the emulator's clock, seconds.
_AHEAD_S: Final = 30.0


class _Issued(msgspec.Struct, frozen=True):
    scopes: frozenset[str]
    session: bool
    until: float


class OAuth2:
    """One client and its tokens; with ``token`` only the one that was made at the start.

    Args:
        settings: Its name, and what it may do.
        material: Its public key.
        username: Whose sessions it may open unless the settings say otherwise.
        wall: Wall seconds since the epoch.
    """

    def __init__(
        self,
        settings: AuthenticationSettings,
        material: Material,
        username: str,
        wall: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._material = material
        self._credential = settings.credential or username
        self._wall = wall
        self._issued: dict[str, _Issued] = {}
        if material.token:
            self._issued[material.token] = _Issued(frozenset(), True, wall() + settings.lifetime_s)

    def token(self, fields: Mapping[str, object], url: str) -> dict[str, object]:
        """An access token for a client's assertion.

        Args:
            fields: Of the form or of the JSON body.
            url: The endpoint's own address: what the institutional variant's ``aud`` may name.

        Raises:
            ApiError: 400 or 401 as problem+json.
        """
        if fields.get("grant_type") != "client_credentials":
            raise refusals.bad("grant_type must be client_credentials")
        if fields.get("client_assertion_type") != _ASSERTION:
            raise refusals.bad("client_assertion_type is not supported")
        claims = self._verified(fields.get("client_assertion"))
        client = self._settings.client_id
        audiences = {"/token"} if self._settings.variant == "standard" else {"/token", "/oauth/token", url}
        if claims.get("iss") != client or claims.get("sub") != client or claims.get("aud") not in audiences:
            raise refusals.unauthorized("invalid client assertion")
        scopes = frozenset(str(fields.get("scope") or "").split())
        if not scopes <= _SCOPES:
            raise refusals.bad("invalid scope")
        token = self._issue(scopes, session=False)
        return {
            "access_token": token,
            "token_type": "Bearer",
            "scope": " ".join(sorted(scopes)),
            "expires_in": int(self._settings.lifetime_s),
        }

    def sso_session(self, authorization: str, body: bytes) -> dict[str, object]:
        """A session token for a user; raises as ``token``."""
        issued = self._find(_bearer(authorization))
        if issued is None or "sso-sessions.write" not in issued.scopes:
            raise refusals.unauthorized("invalid access token")
        claims = self._verified(body.decode("ascii", "replace").strip())
        if claims.get("iss") != self._settings.client_id:
            raise refusals.unauthorized("invalid issuer")
        if claims.get("credential") != self._credential:
            raise refusals.bad("unknown credential")
        try:
            ipaddress.ip_address(str(claims.get("ip")))
        except ValueError:
            raise refusals.bad("ip is not an address") from None
        return {"access_token": self._issue(frozenset(), session=True)}

    def _verified(self, token: object) -> dict[str, Any]:
        """Claims of a signed token whose key and times are right."""
        if not isinstance(token, str) or not token:
            raise refusals.bad("a signed token is missing")
        try:
            if jwt.get_unverified_header(token).get("kid") != self._settings.key_id:
                raise refusals.unauthorized("unknown key id")
            # The times are checked below, by the emulator's own clock; the audience by the endpoint.
            options: Any = {
                "require": ["exp", "iat", "iss"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_aud": False,
            }
            claims: dict[str, Any] = jwt.decode(
                token, self._material.client, algorithms=_ALGORITHMS, options=options
            )
        except (jwt.PyJWTError, TypeError, ValueError):
            raise refusals.unauthorized("the token's signature is not valid") from None
        ends, made, now = claims["exp"], claims["iat"], self._wall()
        if not isinstance(ends, (int, float)) or not isinstance(made, (int, float)):
            raise refusals.bad("exp and iat must be numbers")
        if ends <= now or made > now + _AHEAD_S:
            raise refusals.unauthorized("the token is over or not good yet")
        return claims

    def _issue(self, scopes: frozenset[str], *, session: bool) -> str:
        now = self._wall()
        for old in [token for token, one in self._issued.items() if one.until <= now]:
            del self._issued[old]
        token = secrets.token_urlsafe(32)
        self._issued[token] = _Issued(scopes, session, now + self._settings.lifetime_s)
        return token

    def _find(self, token: str) -> _Issued | None:
        issued = self._issued.get(token)
        return issued if issued is not None and issued.until > self._wall() else None

    def admit(self, authorization: str, query: Mapping[str, str]) -> None:
        """Check one request of the API, or a WebSocket, which may have the token in its query.

        Raises:
            ApiError: 401.
        """
        given = [_bearer(authorization), query.get("bearer_token", ""), query.get("sessionToken", "")]
        tokens = [token for token in given if token]
        found = [self._find(token) for token in tokens]
        if not tokens or not all(one is not None and one.session for one in found):
            raise errors.not_authenticated()

    def expire(self) -> None:
        """End every token now."""
        self._issued.clear()


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
