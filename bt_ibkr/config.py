"""Settings: frozen, keyword only, units in the names, secrets masked. Nothing here reads the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from bt_ibkr.errors import UsageError
from bt_ibkr.login import GatewayLogin, Login

#: How long IBKR refuses an address that asked too fast: 15 minutes; another official text says 10.
PENALTY_S = 900.0
#: Where the Client Portal Gateway listens unless its conf.yaml says otherwise.
DEFAULT_GATEWAY = "https://localhost:5000/v1/api"


class Trust(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the server's TLS certificate is judged. The gateway's own is self-signed.

    Attributes:
        ca_file: PEM file of the certificate or authority to trust; ``None`` for the system's store.
        insecure: Take any certificate. Only for a gateway on this machine that you started yourself.
    """

    ca_file: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.insecure and self.ca_file:
            raise UsageError("Trust: both a CA file and `insecure` were given.", remedy="Give one of them.")
        if self.ca_file and not Path(self.ca_file).is_file():
            raise UsageError(
                f"Trust: the CA file {self.ca_file!r} does not exist.",
                remedy="Give the path of a PEM file that holds the gateway's certificate.",
            )


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach IBKR and keep the session.

    Attributes:
        base_url: REST base, ending in ``/v1/api``.
        trust: Judgement of the TLS certificate.
        login: How to log on; with OAuth the REST base is ``https://api.ibkr.com/v1/api``.
        request_timeout_s: Longest wait for one answer. IBKR itself gives up at about 10 s, and answers
            for an unknown order after 5 s.
        connect_timeout_s: Longest wait for a connection and for the WebSocket's ``system.success``.
        tickle_interval_s: Between keep-alive calls; the session idles out after 5 to 6 minutes.
        tic_interval_s: Between keep-alive messages on the WebSocket (wanted once a minute).
        silence_s: A WebSocket without any frame for this long is dead (heartbeats come every 10 s).
        mute_s: A topic that says nothing for this long is asked for again, on a WebSocket that works; if it does
            not answer within a tenth of it, the WebSocket is opened anew.
        renew_market_data_s: Market seconds after which a subscription is sent again; the server ends it
            silently after 10 to 15 minutes.
        reconnect_first_s, reconnect_longest_s: Back-off between attempts to reopen the WebSocket.
        competing: What to do when another login of the same user holds the brokerage session: ``yield``
            (wait until it is free), ``take_over_once`` (take it, but do not fight if it is taken back), ``ask``
            (wait for ``Session.take_over``).
        region: Whose midnight resets the session: ``america``, ``europe`` or ``asia``.
        penalty_s: Seconds for which nothing but what protects positions is sent after HTTP 429.
        suppress: Ids of order questions that IBKR shall not ask in this session; told anew after each log-on.
        paced: Keep to IBKR's request limits. Off only for servers that have none, such as an emulator
            without pacing.
    """

    base_url: str = DEFAULT_GATEWAY
    trust: Trust = Trust()
    login: Login = GatewayLogin()
    request_timeout_s: float = 15.0
    connect_timeout_s: float = 10.0
    tickle_interval_s: float = 60.0
    tic_interval_s: float = 30.0
    silence_s: float = 18.0
    mute_s: float = 120.0
    renew_market_data_s: float = 540.0
    reconnect_first_s: float = 0.25
    reconnect_longest_s: float = 30.0
    competing: Literal["yield", "take_over_once", "ask"] = "take_over_once"
    region: str = "america"
    penalty_s: float = PENALTY_S
    suppress: tuple[str, ...] = ()
    paced: bool = True

    def __post_init__(self) -> None:
        if not _is_http_url(self.base_url):
            raise UsageError(
                f"The gateway address {self.base_url!r} is not an http or https URL.",
                remedy=f"Give it in full, for example {DEFAULT_GATEWAY}.",
            )
        for name in self.__struct_fields__:
            if not name.endswith("_s"):
                continue
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0, not {getattr(self, name)!r}.")

    @property
    def websocket_url(self) -> str:
        """The WebSocket's address beside the REST base."""
        base = self.base_url.rstrip("/")
        return ("wss" if urlsplit(base).scheme == "https" else "ws") + base[base.index(":") :] + "/ws"


def _is_http_url(text: str) -> bool:
    """Whether ``text`` is an http or https URL with a host and, if any, a possible port."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
