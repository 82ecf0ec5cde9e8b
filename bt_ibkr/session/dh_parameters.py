"""Diffie-Hellman parameters in the form ``openssl dhparam`` writes: PKCS #3 in DER, in PEM.

Two numbers in a sequence; cryptography is about to drop them, so they are read here.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

_PEM: Final = re.compile(rb"-----BEGIN DH PARAMETERS-----(.{1,20000}?)-----END DH PARAMETERS-----", re.S)
_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02


def parse(pem: bytes) -> tuple[int, int]:
    """Prime and generator.

    Raises:
        ValueError: Something else.
    """
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("there are no DH PARAMETERS in it")
    try:
        data = base64.b64decode(b"".join(found[1].split()), validate=True)
    except binascii.Error:
        raise ValueError("the base64 is broken") from None
    inside, rest = _element(data, _SEQUENCE)
    prime, inside = _element(inside, _INTEGER)
    # A recommended length of the private number may follow; it does not bind.
    generator, _ = _element(inside, _INTEGER)
    if rest:
        raise ValueError("more follows the parameters")
    return _positive(prime), _positive(generator)


def _element(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Content of the first element, and what follows it."""
    if len(data) < 2 or data[0] != tag:
        raise ValueError("an element is missing")
    size, start = data[1], 2
    if size >= 0x80:
        count = size & 0x7F
        if not 1 <= count <= 3 or len(data) < 2 + count:
            raise ValueError("an element has no usable length")
        size, start = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
    if len(data) < start + size:
        raise ValueError("an element is cut off")
    return data[start : start + size], data[start + size :]


def _positive(content: bytes) -> int:
    number = int.from_bytes(content, "big", signed=True)
    if number < 2:
        raise ValueError("a number is too small")
    return number
