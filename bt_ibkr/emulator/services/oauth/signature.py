"""Reading and checking what OAuth 1.0a clients sign; written for the server's side alone.

Only the client's own half of this arithmetic would otherwise check itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from bt_ibkr.emulator.services import errors

_PAIR: Final = re.compile(r'\s*([A-Za-z_]+)="([^"]*)"\s*')
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ALWAYS: Final = (
    "oauth_consumer_key",
    "oauth_nonce",
    "oauth_signature",
    "oauth_signature_method",
    "oauth_timestamp",
)


class Signed(msgspec.Struct, frozen=True):
    """A request as its signature covers it.

    Attributes:
        params: OAuth's parameters, decoded, without signature and realm.
        query: The query's parameters, decoded.
    """

    method: str
    url: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    signature: bytes
    realm: str

    def bases(self, prepend: str = "") -> Iterator[str]:
        """Base strings the signature may be of.

        Clients in the field write a space as ``%20`` or ``+``. And IBKR's text has the query's parameters signed, but
        ibind leaves them out of every signature and works with the real service, so both are right.
        """
        head = f"{prepend}{self.method}&{_escape(self.url)}&"
        for covered in ({**self.query, **self.params}, self.params) if self.query else (self.params,):
            joined = "&".join(f"{name}={value}" for name, value in sorted(covered.items()))
            yield head + _escape(joined)
            if " " in joined:
                yield head + _escape(joined).replace("%20", "+")

    def signed_by(self, key: RSAPublicKey, prepend: str = "") -> bool:
        """Whether it is an RSA-SHA256 signature of the holder of ``key``."""
        for base in self.bases(prepend):
            try:
                key.verify(self.signature, base.encode(), padding.PKCS1v15(), hashes.SHA256())
            except InvalidSignature:
                continue
            return True
        return False

    def keyed_with(self, secret: bytes) -> bool:
        """Whether it is an HMAC-SHA256 signature with ``secret``."""
        own = (hmac.new(secret, base.encode(), hashlib.sha256).digest() for base in self.bases())
        return any(hmac.compare_digest(one, self.signature) for one in own)


def parse(method: str, url: str, query: Mapping[str, str], authorization: str) -> Signed:
    """The request with its ``Authorization`` header read.

    Raises:
        ApiError: 401 without such a header, 400 if something is missing in it.
    """
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "oauth":
        raise errors.not_authenticated()
    found: dict[str, str] = {}
    for part in rest.split(","):
        pair = _PAIR.fullmatch(part)
        if pair is None or pair[1] in found:
            raise errors.bad_request("malformed Authorization header")
        found[pair[1]] = unquote(pair[2])
    for name in _ALWAYS:
        if not found.get(name):
            raise errors.bad_request(f"missing {name}")
    try:
        # A `+` that was not encoded is a `+`, not a space.
        signature = base64.b64decode(found.pop("oauth_signature"), validate=True)
    except (binascii.Error, ValueError):
        raise errors.bad_request("oauth_signature is not base64") from None
    realm = found.pop("realm", "")
    return Signed(method, url, found, query, signature, realm)


def _escape(text: str) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode())


def java_bytes(number: int) -> bytes:
    """Bytes of Java's ``BigInteger``: hex of even length, and a zero byte first if the first bit is set."""
    digits = f"{number:x}"
    if len(digits) % 2:
        digits = "0" + digits
    if int(digits[0], 16) >= 8:
        digits = "00" + digits
    return bytes.fromhex(digits)
