"""OAuth 1.0a: a live session token by Diffie-Hellman, then a signature on every request (wire facts 2.1)."""

from __future__ import annotations

import base64
import logging
import secrets
from collections.abc import Mapping

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from bt_ibkr.clock import NS_PER_MS
from bt_ibkr.errors import AuthenticationError, UsageError
from bt_ibkr.login import OAuth1Login
from bt_ibkr.redaction import remember
from bt_ibkr.session.auth import signing
from bt_ibkr.session.auth.answers import decoded
from bt_ibkr.session.auth.interface import Exchange, api_cookie, with_query
from bt_ibkr.session.secrets import Secret, read_dh_parameters, read_rsa_key, read_secret

_log = logging.getLogger(__name__)

#: IBKR's published test consumer has a realm of its own.
TEST_CONSUMER = "TESTCONS"
_PRIVATE_BITS = 256
#: Shortest prime that is accepted, bits; IBKR wants 2048.
_PRIME_BITS = 1024


def realm_of(consumer_key: str, realm: str | None = None) -> str:
    """The realm that belongs to a consumer."""
    return realm or ("test_realm" if consumer_key == TEST_CONSUMER else "limited_poa")


def oauth_params(consumer_key: str, method: str, now_s: int, **more: str) -> dict[str, str]:
    """OAuth's own parameters of one request, with a fresh nonce."""
    return {
        "oauth_consumer_key": consumer_key,
        "oauth_nonce": secrets.token_hex(16),
        "oauth_signature_method": method,
        "oauth_timestamp": str(now_s),
        **more,
    }


class Keys:
    """What the settings name, read once.

    Raises:
        UsageError: Something is not there, is no such key, or does not fit the rest.
    """

    def __init__(self, login: OAuth1Login) -> None:
        self.token = read_secret(login.access_token, "The access token")
        secret = read_secret(login.access_token_secret, "The access-token secret")
        self.signature: RSAPrivateKey = read_rsa_key(login.signature_key, "The signature key")
        encryption = read_rsa_key(login.encryption_key, "The encryption key")
        self.prime, self.generator = read_dh_parameters(login.dh_parameters)
        if self.prime.bit_length() < _PRIME_BITS:
            raise UsageError(
                f"The Diffie-Hellman prime in {login.dh_parameters!r} has {self.prime.bit_length()} bits.",
                remedy="Make one of 2048 bits (openssl dhparam -out dhparam.pem 2048) and register it.",
            )
        self.prepend = Secret(signing.prepend_of(encryption, secret.reveal()))


class _LiveSession(msgspec.Struct, frozen=True):
    key: Secret  # hex
    expires_ns: int


class OAuth1Authenticator:
    """Signs requests.

    Args:
        login: Consumer, and the places of keys and tokens; they are read at the first log-on.
        exchange: Asks the server.
    """

    kind = "oauth1a"
    opens_brokerage_session = True
    remedy = (
        "Look at the consumer key and its access token in IBKR's self-service portal; a new consumer key "
        "works from the day after."
    )

    def __init__(self, login: OAuth1Login, exchange: Exchange) -> None:
        self._login = login
        self._exchange = exchange
        self._realm = realm_of(login.consumer_key, login.realm)
        self._keys: Keys | None = None
        self._live: _LiveSession | None = None
        self._refused = False

    def __repr__(self) -> str:
        return f"OAuth1Authenticator(consumer_key={self._login.consumer_key!r})"

    @property
    def expires_ns(self) -> int | None:
        return None if self._live is None else self._live.expires_ns

    async def log_on(self, client: aiohttp.ClientSession) -> None:
        """Agree on a live session token unless there is one that holds; raises as the interface says."""
        if self._live is None or self._refused or self._exchange.ends_within(self.expires_ns, 0):
            await self._agree(client)

    async def renew(self, client: aiohttp.ClientSession) -> bool:
        if self._live is None or self._exchange.ends_within(self.expires_ns, self._login.renew_before_s):
            await self._agree(client)
            return True
        return False

    def forget(self) -> None:
        self._refused = True

    async def _agree(self, client: aiohttp.ClientSession) -> None:
        if self._keys is None or self._refused:
            # Refused: the user may have stored new ones.
            self._keys = Keys(self._login)
        keys = self._keys
        url = f"{self._exchange.base_url}/oauth/live_session_token"
        private = secrets.randbits(_PRIVATE_BITS) | 1 << (_PRIVATE_BITS - 1)
        params = oauth_params(
            self._login.consumer_key,
            signing.RSA_SHA256,
            self._exchange.now_s(),
            oauth_token=keys.token.reveal(),
            diffie_hellman_challenge=signing.challenge(keys.prime, keys.generator, private),
        )
        base = signing.base_string("POST", url, params, prepend=keys.prepend.reveal())
        signature = signing.rsa_signature(keys.signature, base)
        headers = {
            "Authorization": signing.authorization(params, signature, self._realm),
            "Content-Length": "0",
        }
        reply = await self._exchange.ask(client, "POST", url, headers=headers)
        answer = decoded(reply, _Answer, "The live session token", self.remedy)
        shared = signing.shared_secret(keys.prime, answer.diffie_hellman_response, private)
        token = signing.live_session_token(shared, keys.prepend.reveal())
        if not signing.proves(token, self._login.consumer_key, answer.live_session_token_signature):
            raise AuthenticationError(
                "The server's live session token does not match its signature.",
                remedy="The Diffie-Hellman parameters are not those that were registered, or somebody sits in "
                "between.",
            )
        expires_ns = answer.live_session_token_expiration * NS_PER_MS
        if self._exchange.ends_within(expires_ns, 0):
            raise AuthenticationError(
                "The server's live session token is over already.", remedy="Set this machine's clock."
            )
        # In every spelling that a message could have.
        remember(base64.b64encode(token).decode("ascii"), repr(token)[2:-1])
        self._live = _LiveSession(Secret(token.hex()), expires_ns)
        self._refused = False
        _log.info("oauth1a-live consumer=%s", self._login.consumer_key)

    def headers(self, method: str, url: str, params: Mapping[str, str]) -> dict[str, str]:
        live, keys = self._live, self._keys
        if live is None or keys is None:
            raise AuthenticationError("There is no live session token yet.", remedy="Log on first.")
        own = oauth_params(
            self._login.consumer_key,
            signing.HMAC_SHA256,
            self._exchange.now_s(),
            oauth_token=keys.token.reveal(),
        )
        base = signing.base_string(method, url, {**params, **own})
        signature = signing.hmac_signature(bytes.fromhex(live.key.reveal()), base)
        return {"Authorization": signing.authorization(own, signature, self._realm)}

    def websocket(self, url: str, session_id: str) -> tuple[str, dict[str, str]]:
        if self._live is None or self._keys is None:
            raise AuthenticationError("There is no live session token yet.", remedy="Log on first.")
        return with_query(url, "oauth_token", self._keys.token.reveal()), api_cookie(session_id)


class _Answer(msgspec.Struct):
    diffie_hellman_response: str
    live_session_token_signature: str
    live_session_token_expiration: int  # ms
