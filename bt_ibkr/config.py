"""Settings: frozen, keyword only, units in the names, secrets masked. The environment is read in one place."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import urlsplit, urlunsplit

import msgspec

from bt_ibkr.errors import UsageError
from bt_ibkr.login import GatewayLogin, Login, NoLogin, is_loopback

#: How long IBKR refuses an address that asked too fast: 15 minutes; another official text says 10.
PENALTY_S = 900.0
#: Where the Client Portal Gateway listens unless its conf.yaml says otherwise.
DEFAULT_GATEWAY = "https://localhost:5000/v1/api"
#: What to do about another login that holds the brokerage session.
Competing = Literal["yield", "take_over_once", "ask"]
#: What becomes of a feed beyond the market-data lines.
LinesOverflow = Literal["refuse", "snapshots"]
#: Who gives back the lines of the user's programs.
ClearLines = Literal["auto", "always", "never"]
#: Where the API begins below a server's address.
API_PATH: Final = "/v1/api"


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
            (wait for ``IBKRStore.take_over``).
        region: Whose midnight resets the session: ``america``, ``europe`` or ``asia``.
        penalty_s: Seconds for which nothing but what protects positions is sent after HTTP 429.
        tick_backlog: So many ticks of a feed wait one by one for a slow reader; beyond, they are conflated, up to as
            many again. 0 for no limit. Where the market waits for its reader (lockstep, or as fast as it can) there
            is none.
        market_data_lines: So many instruments may stream at one time: IBKR gives a user 100 unless more were bought.
        lines_overflow: What becomes of a feed beyond them: ``refuse`` it, or read it by ``snapshots``, every few
            seconds and a few instruments at a time.
        contract_cache: Keep what IBKR tells of contracts in a file of the state directory, for the next run; never of
            a server without TLS on this machine, which is taken for an emulator.
        clear_lines: Whether the lines of all programs of this user are given back at the start and at the end
            (those of programs that died stay open otherwise): ``always``, ``never``, or ``auto``: where no other
            process of this product uses the login on this machine.
        suppress: Ids of order questions that IBKR shall not ask in this session; told anew after each log-on.
        paced: Keep to IBKR's request limits. Off only for servers that have none, such as an emulator
            without pacing.
        share_turns: Keep the limits of requests of which one is allowed at a time together with other processes of
            this machine that use the login (files of the state directory).
        pacing_speed: Seconds on the clock of the limits per second. Other than 1 only towards an emulator on this
            machine whose own setting is the same: IBKR's limits know no other clock.
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
    competing: Competing = "take_over_once"
    region: str = "america"
    penalty_s: float = PENALTY_S
    tick_backlog: int = 10_000
    market_data_lines: int = 100
    lines_overflow: LinesOverflow = "refuse"
    contract_cache: bool = True
    clear_lines: ClearLines = "auto"
    suppress: tuple[str, ...] = ()
    paced: bool = True
    share_turns: bool = True
    pacing_speed: float = 1.0

    def __post_init__(self) -> None:
        _check_address(self.base_url)
        self._check_way()
        for name in self.__struct_fields__:
            if not name.endswith("_s"):
                continue
            if not getattr(self, name) > 0:
                raise UsageError(
                    f"SessionSettings: {name} must be above 0, not {getattr(self, name)!r}.",
                    remedy="Give seconds above 0, or leave it out.",
                )
        if not (self.tick_backlog == 0 or self.tick_backlog >= 10):
            raise UsageError(
                f"SessionSettings: tick_backlog must be at least 10, or 0 for no limit, not {self.tick_backlog!r}.",
                remedy="Leave it out for 10,000 ticks a feed.",
            )
        if self.market_data_lines < 1:
            raise UsageError(
                f"SessionSettings: market_data_lines must be 1 or more, not {self.market_data_lines!r}.",
                remedy="Leave it out for 100.",
            )
        for name, words in (
            ("lines_overflow", get_args(LinesOverflow)),
            ("clear_lines", get_args(ClearLines)),
        ):
            if getattr(self, name) not in words:
                raise UsageError(
                    f"SessionSettings: {name} {getattr(self, name)!r} is no policy.",
                    remedy=f"Policies: {', '.join(words)}.",
                )
        if self.competing not in get_args(Competing):
            raise UsageError(
                f"SessionSettings: competing {self.competing!r} is no policy.",
                remedy=f"Policies: {', '.join(get_args(Competing))}.",
            )
        if self.pacing_speed != 1 and not (self.pacing_speed > 0 and is_loopback(self.base_url)):
            raise UsageError(
                f"SessionSettings: pacing_speed {self.pacing_speed!r} cannot be used with {self.base_url}.",
                remedy="Leave it out: only an emulator on this machine has limits on another clock.",
            )

    def _check_way(self) -> None:
        """A credential goes nowhere but to the server it is for: over TLS that is looked at, or no network at all."""
        if isinstance(self.login, (GatewayLogin, NoLogin)) or is_loopback(self.base_url):
            return
        if not self.base_url.lower().startswith("https:"):
            raise UsageError(
                f"The login would send a credential to {self.base_url} without encryption.",
                remedy="Write https:// in the address.",
            )
        if self.trust.insecure:
            raise UsageError(
                f"The login would send a credential to {self.base_url}, whoever answers there (`insecure`).",
                remedy="Leave --insecure out; name a certificate of your own with --ca-file FILE.",
            )

    @property
    def websocket_url(self) -> str:
        """The WebSocket's address beside the REST base."""
        base = self.base_url.rstrip("/")
        return ("wss" if urlsplit(base).scheme == "https" else "ws") + base[base.index(":") :] + "/ws"


def state_directory() -> Path:
    """Where the program keeps what must outlast it, its journals above all; it need not be there yet.

    ``BT_IBKR_HOME``, if it is set; else the user's directory for the state of programs, as the system has it.

    Raises:
        UsageError: ``BT_IBKR_HOME`` is not absolute, or there is neither it nor a home directory.
    """
    own = os.environ.get("BT_IBKR_HOME")
    try:
        if own:
            path = Path(own).expanduser()
        elif sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            path = (Path(local) if local else Path.home() / "AppData" / "Local") / "bt-ibkr"
        elif sys.platform == "darwin":
            path = Path.home() / "Library" / "Application Support" / "bt-ibkr"
        else:
            state = Path(os.environ.get("XDG_STATE_HOME") or "")
            path = (state if state.is_absolute() else Path.home() / ".local" / "state") / "bt-ibkr"
    except RuntimeError:
        raise UsageError(
            "There is no home directory to keep state in.", remedy="Set BT_IBKR_HOME to an absolute path."
        ) from None
    if not path.is_absolute():
        raise UsageError(
            f"BT_IBKR_HOME is {own!r}, which means another place in every directory.",
            remedy="Set it to an absolute path.",
        )
    return path


def rest_base(address: str) -> str:
    """The REST base that a user means by ``address``: without a path it is completed, since that is what a
    browser's page of the gateway shows.

    Raises:
        UsageError: No http URL, or one of another path.
    """
    _check_address(address)
    parts = urlsplit(address)
    path = parts.path.rstrip("/")
    if path and not path.endswith(API_PATH):
        raise UsageError(
            f"The gateway address {address!r} does not end in {API_PATH}.",
            remedy=f"Give the REST base, as {DEFAULT_GATEWAY}, or the server alone.",
        )
    return urlunsplit((parts.scheme, parts.netloc, path or API_PATH, "", ""))


def _check_address(address: str) -> None:
    """Refuse what is no http URL with a host and, if any, a possible port; and what carries a credential, without
    repeating it."""
    try:
        parts = urlsplit(address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        extra = "@" in parts.netloc or "?" in address or "#" in address
    except ValueError:
        fine, extra = False, "@" in address
    if extra or "@" in address:
        raise UsageError(
            "The gateway address holds more than scheme, host, port and path (it is not repeated: it may hold a "
            "password).",
            remedy=f"Give it as {DEFAULT_GATEWAY}. A password has no place in it; docs/authentication.md shows the "
            "ways to log on.",
        )
    if not fine:
        raise UsageError(
            f"The gateway address {address!r} is not an http or https URL.",
            remedy=f"Give it in full, for example {DEFAULT_GATEWAY}.",
        )
