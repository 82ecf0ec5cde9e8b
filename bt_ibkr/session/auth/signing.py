"""The arithmetic of OAuth 1.0a as IBKR does it: base strings, signatures, the Diffie-Hellman exchange.

Pure functions of bytes and numbers. Facts: wire facts 2.1, checked with the recorded vectors. What differs from
RFC 5849: parameters are joined as they are and encoded once, all together; the query's parameters belong to them,
a body's do not; and the request for a live session token puts the decrypted secret before the base string.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from bt_ibkr.errors import AuthenticationError, UsageError

RSA_SHA256: Final = "RSA-SHA256"
HMAC_SHA256: Final = "HMAC-SHA256"


def encoded(text: str) -> str:
    """Percent-encoding of everything but letters, digits and ``-._~``."""
    return quote(text, safe="")


def base_string(method: str, url: str, params: Mapping[str, str], *, prepend: str = "") -> str:
    """What is signed.

    Args:
        url: Without a query.
        params: OAuth's parameters and the query's, not encoded.
        prepend: The decrypted access-token secret in hex, for the live session token only.
    """
    joined = "&".join(f"{name}={value}" for name, value in sorted(params.items()))
    return f"{prepend}{method.upper()}&{encoded(url)}&{encoded(joined)}"


def rsa_signature(key: RSAPrivateKey, text: str) -> str:
    """RSA-SHA256 of a base string, base64."""
    return base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())).decode("ascii")


def hmac_signature(live_session_token: bytes, text: str) -> str:
    """HMAC-SHA256 of a base string, base64."""
    return base64.b64encode(hmac.digest(live_session_token, text.encode(), hashlib.sha256)).decode("ascii")


def authorization(params: Mapping[str, str], signature: str, realm: str) -> str:
    """Value of the ``Authorization`` header; the realm is added after signing."""
    whole = {**params, "oauth_signature": encoded(signature), "realm": realm}
    return "OAuth " + ", ".join(f'{name}="{value}"' for name, value in sorted(whole.items()))


def prepend_of(key: RSAPrivateKey, access_token_secret: str) -> str:
    """The access-token secret, decrypted, in hex.

    Raises:
        UsageError: It is not base64, or was not encrypted for this key.
    """
    remedy = "Store the secret that was issued together with this encryption key, with its `=` at the end."
    try:
        sealed = base64.b64decode(access_token_secret, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("The access-token secret is not base64.", remedy=remedy) from None
    try:
        return key.decrypt(sealed, padding.PKCS1v15()).hex()
    except ValueError:
        raise UsageError("The access-token secret is not for this encryption key.", remedy=remedy) from None


def challenge(prime: int, generator: int, private: int) -> str:
    """``generator ** private mod prime`` in hex, as it is sent."""
    return f"{pow(generator, private, prime):x}"


def shared_secret(prime: int, response: str, private: int) -> bytes:
    """The common number as Java's ``BigInteger.toByteArray`` spells it: the fewest bytes, with a zero byte in
    front where the first bit would be taken for a sign.

    Raises:
        AuthenticationError: ``response`` is no number, or one that gives the secret away.
    """
    try:
        theirs = int(response, 16)
    except ValueError:
        theirs = 0
    if not 1 < theirs < prime - 1:
        raise AuthenticationError(
            "The server's Diffie-Hellman response cannot be used.",
            remedy="The parameters are not those that were registered, or somebody sits in between.",
        )
    return big_integer(pow(theirs, private, prime))


def big_integer(number: int) -> bytes:
    """``number``, 0 or more, as the shortest two's complement, big end first."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def live_session_token(shared: bytes, prepend: str) -> bytes:
    """HMAC-SHA1 of the decrypted access-token secret, keyed with the common number."""
    return hmac.digest(shared, bytes.fromhex(prepend), hashlib.sha1)


def proves(token: bytes, consumer_key: str, signature: str) -> bool:
    """Whether the server's signature shows that it holds the same live session token."""
    own = hmac.new(token, consumer_key.encode(), hashlib.sha1).hexdigest()
    return hmac.compare_digest(own.encode(), signature.lower().encode())
