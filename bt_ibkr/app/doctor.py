"""Whether everything is in order for a run: looked at step by step, nothing changed.

The one thing the doctor may do is open the brokerage session where nobody has it, as a run would; it never
takes it from another login.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from bt_ibkr.app.key_files import look_at_keys
from bt_ibkr.app.server_dates import ServerDates
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.config import SessionSettings, state_directory
from bt_ibkr.connection.guard import AccountKind, Standing
from bt_ibkr.errors import (
    AuthenticationError,
    BtIbkrError,
    PacingPenaltyError,
    TrustError,
    UnreachableError,
    UsageError,
)
from bt_ibkr.login import TokenLogin
from bt_ibkr.model.market import DataQuality
from bt_ibkr.redaction import redact
from bt_ibkr.services.availability import availability
from bt_ibkr.services.contracts import ContractService
from bt_ibkr.services.datanames import parse_dataname
from bt_ibkr.session.http import HttpClient, Reply
from bt_ibkr.session.loop import new_event_loop
from bt_ibkr.session.pacing import gate_of
from bt_ibkr.wire import session as wire_session
from bt_ibkr.wire.values import quality

#: Seconds that the clocks may differ: OAuth and bar edges suffer from more.
SKEW_WARN_S: Final = 5.0
SKEW_FAIL_S: Final = 30.0
#: Bytes that should be, and must be, free where state is kept.
DISK_WARN: Final = 1_000_000_000
DISK_FAIL: Final = 100_000_000
#: Seconds that a token which only its owner replaces should still be good for.
TOKEN_WARN_S: Final = 600.0
#: What is written to see whether the disk takes it.
_TRIAL_BYTES: Final = 65_536

_LOGGED_OUT: Final = frozenset({401, 403, 410})
_MONEY_WORDS = {
    AccountKind.PAPER: "a paper account",
    AccountKind.LIVE: "a live account: real money",
}


class Status(StrEnum):
    """Of one row; only ``fail`` makes the whole unhealthy."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at, and what to do about it where it is not ok."""

    name: str
    status: Status
    text: str
    remedy: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All rows, in the order in which they were looked at."""

    healthy: bool
    gateway: str
    rows: tuple[Row, ...]


class Doctor:
    """Looks at one login. Used once.

    Args:
        settings: Where and how.
        dataname: Instrument whose market data is looked at.
        folder: Where state is kept: its disk must have room. By default the state directory, which need not be
            there yet.
        wall_s: This machine's clock, epoch seconds.
    """

    def __init__(
        self,
        settings: SessionSettings,
        *,
        dataname: str = "AAPL",
        folder: Path | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._query = parse_dataname(dataname)
        self._folder = folder
        self._dates = ServerDates(wall_s)
        self._gate = gate_of(settings)
        self._rows: dict[str, Row] = {}
        self._http: HttpClient

    async def examine(self) -> Diagnosis:
        """Everything, one thing after another; what depends on something that failed is skipped."""
        self._look_at_tls()
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True), trace_configs=[self._dates.trace()]
        ) as client:
            try:
                self._http = HttpClient(client, self._settings, self._gate)
                await self._look_at_server()
            except BtIbkrError as problem:
                self._failed(problem)
            finally:
                if hasattr(self, "_http"):
                    await self._http.close()
        self._look_at_clock()
        self._look_at_pacing()
        self._look_at_disk()
        self._look_at_keys()
        rows = tuple(self._rows.get(name, _skipped(name)) for name in ROWS)
        return Diagnosis(
            healthy=all(row.status is not Status.FAIL for row in rows),
            gateway=self._settings.base_url,
            rows=rows,
        )

    def _tell(self, name: str, status: Status, text: str, remedy: str = "") -> None:
        # Words of a server may repeat what it was sent.
        self._rows[name] = Row(name=name, status=status, text=redact(text), remedy=remedy)

    # -- the server ----------------------------------------------------------------------------------

    async def _look_at_server(self) -> None:
        await self._http.log_on()
        reply = await self._http.send("POST", "/tickle")
        self._tell("gateway reachable", Status.OK, f"{self._settings.base_url} answers")
        status = await self._brokerage(reply)
        if not self._judge(status):
            return
        reply = await self._http.send("GET", "/iserver/accounts")
        accounts = wire_session.brokerage_accounts(self._http.checked("GET /iserver/accounts", reply))
        self._judge_accounts(accounts)
        await self._look_at_data()

    async def _brokerage(self, reply: Reply) -> wire_session.AuthStatus:
        """The brokerage session's state; opened, if nobody has it."""
        if reply.status in _LOGGED_OUT:
            return wire_session.AuthStatus(message=reply.text)
        if reply.status != 200:
            self._http.checked("POST /tickle", reply)
        tickle = wire_session.tickle(reply.body)
        status = tickle.auth or wire_session.AuthStatus(message=tickle.error or "")
        if status.ready or status.competing or not (status.connected or tickle.session):
            return status
        reply = await self._http.send(
            "POST", "/iserver/auth/ssodh/init", body={"publish": True, "compete": False}
        )
        if reply.status != 200:
            return wire_session.AuthStatus(
                connected=status.connected, competing="compete" in reply.text.lower(), message=reply.text
            )
        return wire_session.auth_status(reply.body)

    def _judge(self, status: wire_session.AuthStatus) -> bool:
        """Rows of log-in and competition; whether to go on."""
        competing = status.competing or "compete" in status.message.lower()
        if competing:
            self._tell("authenticated", Status.WARN, "logged in, but without the brokerage session")
            self._tell(
                "competing",
                Status.FAIL,
                "another login of the same user holds the brokerage session",
                "End the other login (TWS, the mobile app, another program), or let a run take over.",
            )
            return False
        if not status.ready:
            said = f": {status.message}" if status.message else ""
            what = (
                "logged in, but there is no brokerage session" if status.connected else "nobody is logged in"
            )
            self._tell("authenticated", Status.FAIL, what + said, self._http.authenticator.remedy)
            return False
        self._tell_login()
        self._tell("competing", Status.OK, "no other login holds the brokerage session")
        return True

    def _tell_login(self) -> None:
        """Logged in; a token that nobody renews may be about to end."""
        ends_ns = self._http.authenticator.expires_ns
        words = "logged in, the brokerage session stands"
        if isinstance(self._settings.login, TokenLogin) and ends_ns is not None:
            left_s = ends_ns / NS_PER_S - self._dates.wall_s()
            if left_s < TOKEN_WARN_S:
                self._tell(
                    "authenticated",
                    Status.WARN,
                    f"{words}, but the token ends in {left_s:.0f} s",
                    self._http.authenticator.remedy,
                )
                return
        self._tell("authenticated", Status.OK, words)

    def _judge_accounts(self, accounts: wire_session.Accounts) -> None:
        ids = tuple(
            sorted((a.account_id for a in accounts.accounts), key=lambda one: one != accounts.selected)
        )
        if not ids:
            self._tell(
                "account", Status.FAIL, "this login has no account", "Look at the login in IBKR's portal."
            )
            return
        standing = Standing(accounts=ids, account=ids[0], is_paper=accounts.is_paper)
        others = f"; also {', '.join(ids[1:])}" if ids[1:] else ""
        each = (msgspec.structs.replace(standing, account=one) for one in ids)
        unclear = [f"{one.account} {one.told}" for one in each if one.kind is AccountKind.UNCLEAR]
        if unclear:
            self._tell(
                "account", Status.FAIL, "; ".join(unclear), "Nothing is traded in it; look at the login."
            )
            return
        self._tell("account", Status.OK, f"{ids[0]} is {_MONEY_WORDS[standing.kind]}{others}")

    async def _look_at_data(self) -> None:
        name = self._query.text
        contract = await ContractService(self._http).resolve(self._query)
        code = await availability(self._http, contract.conid)
        what = quality(code)
        words = f"{name}: {what.name.lower().replace('_', ' ')} (6509 is {code or 'not told'})"
        if what in (DataQuality.REALTIME, DataQuality.EXEMPT):
            self._tell("market data", Status.OK, words)
        elif not code:
            self._tell(
                "market data",
                Status.FAIL,
                words,
                "IBKR gave no market data. Look at the subscriptions in IBKR's portal, and whether another session "
                "of this user takes the data, or programs that ended keep its market-data lines: a run that is alone "
                "gives those back at its start.",
            )
        elif what in (DataQuality.NOT_SUBSCRIBED, DataQuality.NO_ACKNOWLEDGEMENT):
            self._tell(
                "market data",
                Status.FAIL,
                words,
                "Subscribe to the market's data in IBKR's portal and acknowledge its use over an API.",
            )
        else:
            self._tell(
                "market data",
                Status.WARN,
                words,
                "Orders would be decided on prices that are not the present ones. Outside trading hours frozen data "
                "is ordinary; otherwise look at the market-data subscriptions in IBKR's portal.",
            )

    def _failed(self, problem: BtIbkrError) -> None:
        """An error that ended the examination of the server, in the row where it belongs."""
        if isinstance(problem, TrustError):
            self._tell("gateway reachable", Status.OK, f"{self._settings.base_url} answers")
            self._tell("TLS", Status.FAIL, problem.message, problem.remedy)
            return
        if isinstance(problem, PacingPenaltyError):
            self._tell("pacing budget", Status.FAIL, problem.message, problem.remedy)
            return
        if isinstance(problem, UsageError):
            # A key or token is not where the login says.
            self._tell("authenticated", Status.FAIL, problem.message, problem.remedy)
            return
        if isinstance(problem, AuthenticationError):
            if self._dates.skew_s is not None:
                self._tell("gateway reachable", Status.OK, f"{self._settings.base_url} answers")
            self._tell("authenticated", Status.FAIL, problem.message, problem.remedy)
            return
        open_rows = [name for name in _OF_SERVER if name not in self._rows]
        name = open_rows[0] if open_rows else "market data"
        if isinstance(problem, UnreachableError):
            name = "gateway reachable"
        remedy = problem.remedy or "Try again; bt-ibkr -v doctor tells more."
        self._tell(name, Status.FAIL, problem.message, remedy)

    # -- without asking ------------------------------------------------------------------------------

    def _look_at_tls(self) -> None:
        parts = urlsplit(self._settings.base_url)
        if parts.scheme != "https":
            if parts.hostname in ("localhost", "127.0.0.1", "::1"):
                self._tell("TLS", Status.SKIP, "plain http on this machine")
            else:
                self._tell(
                    "TLS", Status.FAIL, "plain http to another machine", "Write https:// in the address."
                )
        elif self._settings.trust.insecure:
            self._tell(
                "TLS",
                Status.WARN,
                "any certificate is taken (--insecure)",
                "Name the gateway's certificate with --ca-file FILE.",
            )

    def _look_at_clock(self) -> None:
        if self._settings.base_url.startswith("https") and "TLS" not in self._rows and self._answered:
            self._tell("TLS", Status.OK, "the certificate is trusted")
        skew_s = self._dates.skew_s
        if skew_s is None:
            if self._answered:
                self._tell(
                    "clock",
                    Status.WARN,
                    "the server's answers tell no time to compare with",
                    "Look at the proxy in between, and whether this machine's clock follows a time server (NTP).",
                )
            return
        text = f"the server's clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} ours"
        remedy = "Set this machine's clock by a time server (NTP)."
        if abs(skew_s) > SKEW_FAIL_S:
            self._tell("clock", Status.FAIL, text, remedy)
        elif abs(skew_s) > SKEW_WARN_S:
            self._tell("clock", Status.WARN, text, remedy)
        else:
            self._tell("clock", Status.OK, text)

    @property
    def _answered(self) -> bool:
        return self._dates.skew_s is not None or self._rows.get("authenticated") is not None

    def _look_at_pacing(self) -> None:
        if "pacing budget" in self._rows or not self._answered:
            return
        status = self._gate.status()
        self._tell(
            "pacing budget",
            Status.OK,
            f"no penalty; {status.budget} requests could leave at once; these waited {status.waited_s:.1f} s",
        )

    def _look_at_disk(self) -> None:
        try:
            folder = self._folder or _nearest(state_directory())
        except UsageError as problem:
            self._tell("disk", Status.FAIL, problem.message, problem.remedy)
            return
        try:
            free = shutil.disk_usage(folder).free
            # A quota, a disk without inodes, or one that only can be read shows only when something is written.
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"\0" * _TRIAL_BYTES)
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            self._tell(
                "disk",
                Status.FAIL,
                f"nothing can be written to {folder}: {problem.strerror}",
                "Make the folder, let this user write there, or free the disk.",
            )
            return
        text = f"{free / 1e9:.1f} GB free at {folder}"
        if free < DISK_FAIL:
            self._tell("disk", Status.FAIL, text, "Make room: state could not be written.")
        elif free < DISK_WARN:
            self._tell("disk", Status.WARN, text, "Make room.")
        else:
            self._tell("disk", Status.OK, text)

    def _look_at_keys(self) -> None:
        found = look_at_keys(self._settings.login)
        if not found.places:
            self._tell("key files", Status.SKIP, "this way to log on has none")
            return
        if found.wrong:
            remedy = "Look at the places that the login names."
            if found.open_files:
                remedy = f"Run: chmod 600 {' '.join(found.open_files)}"
            self._tell("key files", Status.FAIL, " ".join(found.wrong), remedy)
        else:
            self._tell(
                "key files",
                Status.OK,
                f"{found.places} of {found.places} can be used, and only their owner can read them",
            )


ROWS: Final = (
    "gateway reachable",
    "TLS",
    "authenticated",
    "competing",
    "account",
    "market data",
    "clock",
    "pacing budget",
    "disk",
    "key files",
)
_OF_SERVER: Final = ("gateway reachable", "authenticated", "account", "market data")


def _nearest(path: Path) -> Path:
    """What there is of a path: where the rest would be made."""
    return next(one for one in (path, *path.parents) if one.exists())


def _skipped(name: str) -> Row:
    return Row(name=name, status=Status.SKIP, text="not looked at, because of what failed before")


def run_doctor(settings: SessionSettings, *, dataname: str = "AAPL", folder: Path | None = None) -> Diagnosis:
    """Examine, from a thread without a loop.

    Raises:
        UsageError: The dataname is none.
    """
    doctor = Doctor(settings, dataname=dataname, folder=folder)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(doctor.examine())
