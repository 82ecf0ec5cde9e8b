"""How clients of the emulator must authenticate."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from bt_ibkr.errors import UsageError


class AuthenticationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of a client before it is heard.

    Attributes:
        kind: ``gateway`` asks for nothing, as the gateway does after a browser login; ``oauth1a`` for a signature
            on every request; ``oauth2`` for the bearer token of an SSO session; ``token`` for a bearer token.
        key_folder: Where the client's half is written at the start: private keys, tokens, and a ``login.toml`` that
            names them, each in a file that only its owner can read. Empty: nowhere.
        skew_s: Furthest a timestamp of OAuth 1.0a may be from the emulator's clock; also how long nonces are
            remembered.
        lifetime_s: Of live session tokens, access tokens and SSO sessions.
        consumer_key: OAuth 1.0a's consumer.
        third_party: It asks users for access, and may call ``request_token`` and ``access_token``.
        signature_key, encryption_key: Files of the consumer's public RSA keys, PEM; empty makes new pairs.
        dh_parameters: File of the registered Diffie-Hellman parameters; empty for a group of 2048 bits.
        client_id, key_id: OAuth 2.0's client.
        public_key: File of the client's public key, PEM; empty makes a new pair.
        algorithm: What the new pair is for.
        credential: User whose sessions the client may open; empty for the emulator's ``username``.
        variant: As the client's setting: where tokens are asked for, and in what form.
    """

    kind: Literal["gateway", "oauth1a", "oauth2", "token"] = "gateway"
    key_folder: str = ""
    skew_s: float = 300.0
    lifetime_s: float = 86_400.0
    consumer_key: str = "EMULATOR1"
    third_party: bool = False
    signature_key: str = ""
    encryption_key: str = ""
    dh_parameters: str = ""
    client_id: str = "emulator-client"
    key_id: str = "main"
    public_key: str = ""
    algorithm: Literal["RS256", "PS256", "ES256"] = "RS256"
    credential: str = ""
    variant: Literal["standard", "institutional"] = "standard"

    def __post_init__(self) -> None:
        for name in ("skew_s", "lifetime_s"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(
                    f"Emulator setting authentication: {name} {value!r} cannot be used.",
                    remedy="Give seconds above 0.",
                )
        for name in ("consumer_key", "client_id", "key_id"):
            if not getattr(self, name).strip():
                raise UsageError(
                    f"Emulator setting authentication: {name} is empty.",
                    remedy="Leave it out, or give a name.",
                )
