"""How a third party comes by a user's access token for OAuth 1.0a: ask, let the user grant it, fetch it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import msgspec

from bt_ibkr.login import AUTHORIZE_URL
from bt_ibkr.session.auth import signing
from bt_ibkr.session.auth.answers import T, decoded
from bt_ibkr.session.auth.interface import Exchange
from bt_ibkr.session.auth.oauth1a import oauth_params, realm_of
from bt_ibkr.session.secrets import Secret, read_rsa_key, write_secret

_REMEDY = (
    "Look at the consumer key and the signature key that are registered. First-party consumers get their "
    "tokens from the self-service portal instead."
)


class RequestToken(msgspec.Struct, frozen=True):
    """What the user is asked with.

    Attributes:
        token: Good for one grant.
        authorization_url: To be opened by the user in a browser; it leads to a verifier.
    """

    token: Secret
    authorization_url: Secret


class AccessToken(msgspec.Struct, frozen=True):
    """What the user granted.

    Attributes:
        secret: Encrypted for the consumer's encryption key, base64.
        is_paper: The grant is for a paper account; ``None`` if the server did not say.
    """

    token: Secret
    secret: Secret
    is_paper: bool | None

    def store(self, token_file: Path, secret_file: Path) -> None:
        """Write both into new files that only their owner can read, for ``OAuth1Login`` to name.

        Raises:
            UsageError: A file exists already, or cannot be written.
        """
        write_secret(token_file, self.token.reveal())
        write_secret(secret_file, self.secret.reveal())


class _RequestAnswer(msgspec.Struct):
    oauth_token: str


class _AccessAnswer(msgspec.Struct):
    oauth_token: str
    oauth_token_secret: str
    is_paper: bool | None = None


class ThirdPartyGrant:
    """The three steps before ``OAuth1Login`` can be used.

    Args:
        consumer_key: As registered.
        signature_key: Place of the private RSA key.
        exchange: Asks the server.
        authorize_url: Where users grant access.
        realm: As with ``OAuth1Login``.
    """

    def __init__(
        self,
        *,
        consumer_key: str,
        signature_key: str,
        exchange: Exchange,
        authorize_url: str = AUTHORIZE_URL,
        realm: str | None = None,
    ) -> None:
        self._consumer_key = consumer_key
        self._key = read_rsa_key(signature_key, "The signature key")
        self._exchange = exchange
        self._authorize_url = authorize_url
        self._realm = realm_of(consumer_key, realm)

    async def request_token(
        self, client: aiohttp.ClientSession, *, callback: str = "oob", redirect_uri: str = ""
    ) -> RequestToken:
        """Ask for a token to be granted.

        Args:
            callback: ``oob`` if the user brings the verifier by hand.
            redirect_uri: Where the browser is sent after the grant, with the verifier in its query.

        Raises:
            AuthenticationError: Refused.
        """
        answer = await self._signed(client, "request_token", _RequestAnswer, oauth_callback=callback)
        query = {"oauth_token": answer.oauth_token}
        if redirect_uri:
            query["redirect_uri"] = redirect_uri
        token = Secret(answer.oauth_token)
        return RequestToken(token, Secret(f"{self._authorize_url}?{urlencode(query)}"))

    async def access_token(
        self, client: aiohttp.ClientSession, request: RequestToken, verifier: str
    ) -> AccessToken:
        """Fetch what the user granted.

        Args:
            verifier: What the grant ended with.

        Raises:
            AuthenticationError: Refused: a wrong verifier, or not granted.
        """
        answer = await self._signed(
            client,
            "access_token",
            _AccessAnswer,
            oauth_token=request.token.reveal(),
            oauth_verifier=Secret(verifier).reveal(),
        )
        return AccessToken(Secret(answer.oauth_token), Secret(answer.oauth_token_secret), answer.is_paper)

    async def _signed(self, client: aiohttp.ClientSession, name: str, into: type[T], **more: str) -> T:
        url = f"{self._exchange.base_url}/oauth/{name}"
        params = oauth_params(self._consumer_key, signing.RSA_SHA256, self._exchange.now_s(), **more)
        signature = signing.rsa_signature(self._key, signing.base_string("POST", url, params))
        sent = {key: signing.encoded(value) for key, value in params.items()}
        reply = await self._exchange.ask(
            client,
            "POST",
            url,
            headers={
                "Authorization": signing.authorization(sent, signature, self._realm),
                "Content-Length": "0",
            },
        )
        return decoded(reply, into, f"The {name.replace('_', ' ')}", _REMEDY)
