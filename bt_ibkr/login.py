"""How to log on: settings of the five ways, frozen and without a secret in them.

Secrets stay where they are kept, and a setting names the place: the path of a file that only its owner can
read, or ``keyring:SERVICE/NAME`` for an entry of the operating system's keyring.
"""

from __future__ import annotations

import ipaddress
import math
from typing import ClassVar, Final, Literal
from urllib.parse import urlsplit

import msgspec

from bt_ibkr.errors import UsageError

#: Where third-party users grant access (wire facts, 2.1).
AUTHORIZE_URL = "https://interactivebrokers.com/authorize"


#: No path is longer; a key or token may be.
_LONGEST_PLACE: Final = 1024


def is_loopback(url: str) -> bool:
    """Whether ``url`` is of this machine, by its spelling alone."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _place(kind: str, name: str, value: str) -> None:
    """The place of a secret; the secret itself in its stead is refused, and not repeated."""
    _wanted(kind, name, value)
    if (
        "\n" in value
        or "\0" in value
        or "-----BEGIN" in value
        or value.startswith("eyJ")
        or len(value) > _LONGEST_PLACE
    ):
        raise UsageError(
            f"{kind}: {name} holds a secret itself, not the place of one (it is not repeated here).",
            remedy="Store it in a file that only you can read and give the file's path, or keyring:SERVICE/NAME.",
        )


def _secure_url(kind: str, name: str, value: str) -> None:
    """A place on the net that is sent a credential: https, or this machine."""
    try:
        parts = urlsplit(value)
        fine = bool(parts.hostname) and "@" not in value and parts.port != 0
        fine = fine and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(value)))
    except ValueError:
        fine = False
    if not fine:
        shown = "it" if "@" in value else repr(value)
        raise UsageError(
            f"{kind}: {name} is no https URL: {shown} would be sent a credential.",
            remedy="Give it as https://HOST/PATH, without a user name or password.",
        )


def _seconds(kind: str, name: str, value: float, *, least: float = 0.0) -> None:
    if not least <= value < math.inf:
        raise UsageError(
            f"{kind}: {name} must be {least:g} or more seconds, not {value!r}.",
            remedy="Leave it out, or mend it.",
        )


def _wanted(kind: str, name: str, value: str) -> None:
    if not value.strip():
        raise UsageError(
            f"{kind}: {name} is empty.", remedy=f"Give {name}; docs/authentication.md explains it."
        )


class GatewayLogin(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="gateway", tag_field="provider"
):
    """A person logs in at the Client Portal Gateway with a browser; its cookies do the rest.

    Attributes:
        wait_s: How long to wait for the gateway to come up and for the person to log in; 0 not at all.
        poll_s: Between two looks meanwhile.
    """

    wait_s: float = 0.0
    poll_s: float = 2.0

    def __post_init__(self) -> None:
        _seconds("GatewayLogin", "wait_s", self.wait_s)
        _seconds("GatewayLogin", "poll_s", self.poll_s, least=0.001)


class OAuth1Login(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="oauth1a", tag_field="provider"
):
    """OAuth 1.0a with a consumer key of one's own, or of a third party with tokens it was granted.

    Attributes:
        consumer_key: As registered.
        access_token: Place of the access token.
        access_token_secret: Place of its secret: base64, encrypted for ``encryption_key``.
        signature_key, encryption_key: Places of the private RSA keys, PEM.
        dh_parameters: File of the Diffie-Hellman parameters, PEM; they are not secret.
        realm: ``None`` for ``test_realm`` with the consumer ``TESTCONS``, else ``limited_poa``.
        renew_before_s: The live session token, good for about a day, is renewed this long before its end.
    """

    consumer_key: str
    access_token: str
    access_token_secret: str
    signature_key: str
    encryption_key: str
    dh_parameters: str
    realm: str | None = None
    renew_before_s: float = 900.0

    def __post_init__(self) -> None:
        for name in ("consumer_key", "dh_parameters"):
            _wanted("OAuth1Login", name, getattr(self, name))
        for name in ("access_token", "access_token_secret", "signature_key", "encryption_key"):
            _place("OAuth1Login", name, getattr(self, name))
        _seconds("OAuth1Login", "renew_before_s", self.renew_before_s)


class OAuth2Login(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="oauth2", tag_field="provider"
):
    """OAuth 2.0 with ``private_key_jwt``, then an SSO session of the named user.

    Attributes:
        client_id, key_id: As registered; the key id goes into the assertion as ``kid``.
        private_key: Place of the private key, PEM: RSA of 3072 bits or more, or P-256 for ES256.
        credential: User name whose session is opened.
        ip: The public address requests come from; empty for this machine's own, which behind a router
            is not the public one and is refused.
        algorithm: Of the signatures.
        variant: ``standard`` posts a form to ``/oauth2/api/v1/token``; ``institutional`` posts JSON to
            ``/oauth/token``.
        token_url, sso_url: Where tokens and sessions come from; empty for the paths of ``variant`` at the
            server of the REST base.
        scope: Asked for.
        audience: The assertion's ``aud``; empty for ``/token``, and the token URL with ``institutional``.
        websocket_parameter: Query parameter that carries the token to the WebSocket: two official texts
            name two.
        renew_before_s: Tokens are renewed this long before their end.
    """

    client_id: str
    key_id: str
    private_key: str
    credential: str
    ip: str = ""
    algorithm: Literal["RS256", "PS256", "ES256"] = "RS256"
    variant: Literal["standard", "institutional"] = "standard"
    token_url: str = ""
    sso_url: str = ""
    scope: str = "sso-sessions.write"
    audience: str = ""
    websocket_parameter: Literal["bearer_token", "sessionToken"] = "bearer_token"
    renew_before_s: float = 900.0

    def __post_init__(self) -> None:
        for name in ("client_id", "key_id", "credential"):
            _wanted("OAuth2Login", name, getattr(self, name))
        _place("OAuth2Login", "private_key", self.private_key)
        for name in ("token_url", "sso_url"):
            if getattr(self, name):
                _secure_url("OAuth2Login", name, getattr(self, name))
        _seconds("OAuth2Login", "renew_before_s", self.renew_before_s)
        if self.ip:
            try:
                ipaddress.ip_address(self.ip)
            except ValueError:
                raise UsageError(
                    f"OAuth2Login: ip {self.ip!r} is not an address.",
                    remedy="Give the public address that IBKR sees, as 203.0.113.7.",
                ) from None


class TokenLogin(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="token", tag_field="provider"
):
    """A bearer token that something else obtained and keeps fresh.

    Attributes:
        token: Place of the token. It is read again when it runs out or was refused.
        websocket_parameter: As with OAuth 2.0.
        renew_before_s: A token that tells its end (a JWT) is read again this long before.
    """

    token: str
    websocket_parameter: Literal["bearer_token", "sessionToken"] = "bearer_token"
    renew_before_s: float = 60.0

    def __post_init__(self) -> None:
        _place("TokenLogin", "token", self.token)
        _seconds("TokenLogin", "renew_before_s", self.renew_before_s)


class NoLogin(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="none", tag_field="provider"
):
    """Nothing is added to requests: a proxy in between authenticates them."""

    description: ClassVar[str] = "a proxy authenticates"


Login = GatewayLogin | OAuth1Login | OAuth2Login | TokenLogin | NoLogin
