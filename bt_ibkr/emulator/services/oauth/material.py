"""Keys and tokens: what the server knows, and the client's half where both were made here."""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import textwrap
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.emulator.services.oauth.signature import java_bytes
from bt_ibkr.errors import UsageError

#: The group of 2048 bits of RFC 3526 (number 14), generator 2. A new prime of this size takes minutes to find.
GROUP_14: Final = int(
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd"
    "ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed"
    "ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f"
    "83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b"
    "e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510"
    "15728e5a8aacaa68ffffffffffffffff",
    16,
)
_RSA_BITS: Final = 2048
#: Shortest RSA key of an OAuth 2.0 client.
_CLIENT_BITS: Final = 3072

_PUBLIC: Final = "Write the public half of a key: openssl pkey -in private.pem -pubout -out public.pem"

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class Grant(msgspec.Struct, frozen=True):
    """An access token of OAuth 1.0a.

    Attributes:
        secret: Its secret as it is, bytes.
        sealed: The secret as the client gets it: encrypted for its encryption key, base64.
    """

    token: str
    secret: bytes
    sealed: str


class Material:
    """Makes or loads what the settings want.

    Args:
        settings: Kind, and the files of public keys.

    Attributes:
        private: PEM of the private keys that were made here, by the name of their file.

    Raises:
        UsageError: A file holds no such key.
    """

    signature: rsa.RSAPublicKey
    encryption: rsa.RSAPublicKey
    client: PublicKey

    def __init__(self, settings: AuthenticationSettings) -> None:
        self._settings = settings
        self.private: dict[str, str] = {}
        self.prime, self.generator = GROUP_14, 2
        #: The first user's grant (oauth1a).
        self.grant: Grant | None = None
        #: The token that is asked for (token).
        self.token = ""
        if settings.kind == "oauth1a":
            self._oauth1(settings)
        elif settings.kind == "oauth2":
            self.client = self._client(settings)
        elif settings.kind == "token":
            self.token = secrets.token_urlsafe(32)

    def _oauth1(self, settings: AuthenticationSettings) -> None:
        self.signature = self._rsa(settings.signature_key, "private_signature.pem")
        self.encryption = self._rsa(settings.encryption_key, "private_encryption.pem")
        if settings.dh_parameters:
            self.prime, self.generator = _dh(settings.dh_parameters)
        self.grant = self.new_grant()

    def new_grant(self) -> Grant:
        """An access token and its secret."""
        secret = secrets.token_bytes(20)
        sealed = self.encryption.encrypt(secret, padding.PKCS1v15())
        return Grant(secrets.token_hex(10), secret, base64.b64encode(sealed).decode("ascii"))

    def _rsa(self, path: str, name: str) -> rsa.RSAPublicKey:
        if path:
            key = _public(path)
            if not isinstance(key, rsa.RSAPublicKey):
                raise UsageError(f"{path!r} holds no public RSA key.", remedy=_PUBLIC)
            return key
        made = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
        self.private[name] = _pem(made)
        return made.public_key()

    def _client(self, settings: AuthenticationSettings) -> PublicKey:
        if settings.public_key:
            key = _public(settings.public_key)
            if isinstance(key, rsa.RSAPublicKey) and key.key_size < _CLIENT_BITS:
                raise UsageError(
                    f"The RSA key in {settings.public_key!r} has less than {_CLIENT_BITS} bits.",
                    remedy=f"Make one: openssl genrsa -out private.pem {_CLIENT_BITS}",
                )
            return key
        made: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
        if settings.algorithm == "ES256":
            made = ec.generate_private_key(ec.SECP256R1())
        else:
            made = rsa.generate_private_key(public_exponent=65537, key_size=_CLIENT_BITS)
        self.private["private_client.pem"] = _pem(made)
        return made.public_key()

    def client_half(self) -> dict[str, str]:
        """What the client needs, by the names of its files: private keys made here, ``access_token``,
        ``access_token_secret``, ``dhparam.pem``, ``token``."""
        values = dict(self.private)
        if self.grant is not None:
            values["access_token"] = self.grant.token
            values["access_token_secret"] = self.grant.sealed
            values["dhparam.pem"] = self._dh_pem()
        if self.token:
            values["token"] = self.token
        return values

    def write(self, folder: Path) -> dict[str, Path]:
        """Write the client's half into ``folder``, each file for its owner only; the files by their names."""
        folder.mkdir(parents=True, exist_ok=True)
        return {name: write_file(folder / name, value) for name, value in self.client_half().items()}

    def _dh_pem(self) -> str:
        numbers = b"".join(_der(0x02, java_bytes(one)) for one in (self.prime, self.generator))
        lines = textwrap.wrap(base64.b64encode(_der(0x30, numbers)).decode("ascii"), 64)
        return "\n".join(("-----BEGIN DH PARAMETERS-----", *lines, "-----END DH PARAMETERS-----", ""))


def write_file(path: Path, value: str) -> Path:
    """Write a new file that only its owner can read, in place of any that is there."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(value)
    return path


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise UsageError(
            f"The key file {path!r} cannot be read: {problem.strerror}.",
            remedy="Name a file that you can read.",
        ) from None


def _der(tag: int, content: bytes) -> bytes:
    """One element of DER."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    spelt = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(spelt))) + spelt + content


def _dh(path: str) -> tuple[int, int]:
    """Prime and generator of a PEM file; of DER only what such a file needs: every length in two bytes."""
    body = re.sub(rb"-----[^-]+-----|\s", b"", _read(path))
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    # 30 82 <size> 02 82 <size> <prime> 02 01 <generator>
    found = re.match(rb"\x30\x82..\x02\x82(..)", data, re.S)
    if found is None:
        raise UsageError(
            f"{path!r} holds no Diffie-Hellman parameters of 1024 bits or more.",
            remedy="Make them with: openssl dhparam -out dhparam.pem 2048",
        )
    start, size = found.end(), int.from_bytes(found[1], "big")
    return int.from_bytes(data[start : start + size], "big"), data[start + size + 2]


def _public(path: str) -> PublicKey:
    try:
        key = serialization.load_pem_public_key(_read(path))
    except ValueError:
        raise UsageError(f"{path!r} holds no public key in PEM form.", remedy=_PUBLIC) from None
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        raise UsageError(f"{path!r} holds neither an RSA nor an EC key.", remedy=_PUBLIC)
    return key


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")
