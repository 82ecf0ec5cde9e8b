"""From "somebody answers" to a brokerage session, and what may stand in the way.

IBKR allows one brokerage session per username. ``competing`` never becomes a war of log-ins: the session is taken
over at most once in the life of this object, unless a person asks for it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import AuthenticationError, CompetingError, WireError
from bt_ibkr.redaction import redact
from bt_ibkr.session.auth.interface import REFUSED, RENEWABLE
from bt_ibkr.session.http import HttpClient, Reply
from bt_ibkr.wire import json as wire_json
from bt_ibkr.wire import session as wire_session

_log = logging.getLogger(__name__)

#: How often in one attempt the brokerage session is asked for.
_INIT_TRIES = 3
#: After so many attempts in a row without a brokerage session, the outer session is ended once and begun anew.
_LOG_OUT_AFTER = 10
#: Statuses by which the gateway says that nobody is logged in; their bodies are text or HTML.
_NOT_LOGGED_IN = frozenset({401, 403, 410})
#: What to do about another login.
_TAKE_OVER = (
    "End the other login (TWS, the mobile app, another program), or allow this one to take over: "
    "--competing take_over_once, in Python SessionSettings(competing='take_over_once') or store.take_over()."
)


class LogOn:
    """The steps of a log-on, over one HTTP client.

    Args:
        http: The session's REST client.
        settings: The policy towards competing log-ins, and what to suppress.
        reached: Called with ``outer`` and ``brokerage`` when that session is known to stand.
    """

    def __init__(self, http: HttpClient, settings: SessionSettings, reached: Callable[[str], None]) -> None:
        self._http = http
        self._settings = settings
        self._reached = reached
        self._may_take_over = settings.competing == "take_over_once"
        self._in_vain = 0
        self.accounts: wire_session.Accounts | None = None

    def allow_take_over(self) -> None:
        """A person wants the session taken over, once more."""
        self._may_take_over = True

    async def tickle(self) -> wire_session.Tickle:
        """One keep-alive call; a refusal is an answer without a session."""
        reply = await self._ask("/tickle")
        if reply.status in _NOT_LOGGED_IN:
            return wire_session.Tickle(session=None, auth=None, error=reply.text)
        if reply.status != 200:
            # An outage, whatever the page says.
            self._http.checked("POST /tickle", reply)
        return wire_session.tickle(reply.body)

    async def run(self, tickle: wire_session.Tickle | None = None, *, known: str | None = None) -> bool:
        """Open the brokerage session, unless it stands, and prime it.

        Args:
            tickle: What the server just said, if it was asked already.
            known: Id of a session that was primed before: it needs less.

        Returns:
            Whether a new brokerage session was opened.

        Raises:
            AuthenticationError: Nobody is logged in, or no brokerage session is to be had.
            CompetingError: Another login holds it, and the policy leaves it there.
        """
        if tickle is None:
            tickle = await self.tickle()
        if tickle.auth is not None or tickle.session:
            self._reached("outer")
        opened = await self._open_brokerage(tickle.auth)
        self._in_vain = 0
        self._reached("brokerage")
        if opened or known is None or tickle.session != known:
            await self.prime()
        else:
            # Even a session that stands asks for the accounts again after the nightly reset.
            await self.prime_again()
        return opened

    async def _open_brokerage(self, status: wire_session.AuthStatus | None) -> bool:
        """Whether a new session was opened; false if one stands."""
        outer = status is not None
        said = ""
        for attempt in range(_INIT_TRIES):
            if status is None or not status.ready:
                # The very first look after a start can be wrong: look once more before acting.
                status = _status_in(await self._ask("/iserver/auth/status"))
            if status.ready:
                return False
            if status.connected and not outer:
                outer = True
                self._reached("outer")
            compete = self._compete(status)
            _log.info("session-init attempt=%d compete=%s", attempt + 1, compete)
            reply = await self._ask("/iserver/auth/ssodh/init", {"publish": True, "compete": compete})
            if reply.status == 200:
                status = wire_session.auth_status(reply.body)
                if status.ready:
                    return True
                said = status.message
            else:
                said = reply.text
            if "force compete" in said.lower():
                # "Force compete capability must be used": asking again the same way is in vain.
                raise CompetingError(
                    f"IBKR refuses the brokerage session: {redact(said)}",
                    remedy=_TAKE_OVER,
                )
            status = None
        await self._in_vain_again(outer)
        raise AuthenticationError(
            f"{self._settings.base_url} answers, but nobody is logged in there."
            + (f" It said: {redact(said)}" if said and not said.lstrip().startswith("<") else ""),
            remedy=self._http.authenticator.remedy,
        )

    def _compete(self, status: wire_session.AuthStatus) -> bool:
        """Whether to take the session from whoever has it."""
        if not status.competing:
            return self._may_take_over
        if not self._may_take_over:
            raise CompetingError(
                "Another login of the same user holds the brokerage session.",
                remedy=_TAKE_OVER,
            )
        self._may_take_over = False
        _log.warning("session-taken-over the other login of this user loses its session")
        return True

    async def _in_vain_again(self, outer: bool) -> None:
        """Connected, but never authenticated: after many attempts in vain the outer session is begun anew, once."""
        self._in_vain += 1
        if outer and self._in_vain == _LOG_OUT_AFTER:
            _log.error("session-log-out attempts=%d all in vain", self._in_vain)
            await self._http.send("POST", "/logout")

    async def prime(self) -> None:
        """What the server must be asked before anything else, and what it forgets between sessions."""
        reply = await self._http.send("GET", "/iserver/accounts")
        self.accounts = wire_session.brokerage_accounts(self._http.checked("GET /iserver/accounts", reply))
        await self._http.get("/portfolio/accounts")
        if self._settings.suppress:
            await self._http.post(
                "/iserver/questions/suppress", {"messageIds": list(self._settings.suppress)}
            )

    async def prime_again(self) -> None:
        """The server forgot that it had been asked for the accounts (it does at the nightly reset)."""
        reply = await self._http.send("GET", "/iserver/accounts")
        self.accounts = wire_session.brokerage_accounts(self._http.checked("GET /iserver/accounts", reply))

    async def _ask(self, path: str, body: object | None = None) -> Reply:
        """A POST about the session itself, which may be made twice: where the credential was refused it is
        replaced once, for all who wait."""
        used = self._http.generation
        reply = await self._http.send("POST", path, body=body)
        if reply.status in REFUSED and self._http.authenticator.kind in RENEWABLE:
            _log.warning("credential-refused path=%s status=%d", path, reply.status)
            await self._http.reauthenticate(used)
            reply = await self._http.send("POST", path, body=body)
        return reply


def repair_of(reply: Reply, kind: str) -> str | None:
    """What an answer asks for before its request may be made again: ``credential``, ``brokerage``, ``accounts``."""
    if reply.status in REFUSED:
        return "credential" if kind in RENEWABLE else "brokerage"
    if reply.status not in (400, 500):
        return None
    try:
        text = (wire_json.error_text(wire_json.decode(reply.body)) or "").lower()
    except WireError:
        return None
    if "no bridge" in text:
        return "brokerage"
    return "accounts" if "query /accounts" in text else None


def _status_in(reply: Reply) -> wire_session.AuthStatus:
    if reply.status in _NOT_LOGGED_IN:
        return wire_session.AuthStatus(message=reply.text)
    return wire_session.auth_status(reply.body)
