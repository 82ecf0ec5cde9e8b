"""A hub on a thread of its own: what the command line and tests start."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from bt_ibkr.clock import Clock, ServerClock, SystemClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.brokerage import Brokerage, JournalInMemory
from bt_ibkr.errors import RequestTimeoutError
from bt_ibkr.hub.arming import Arming
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.server import HubServer
from bt_ibkr.hub.status import HubStatus
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.session.loop import LoopThread

_log = logging.getLogger(__name__)

_OPEN_S = 90.0
_CLOSE_S = 15.0

T = TypeVar("T")


class HubThread:
    """Owns the loop, the session and the hub.

    Args:
        session: Where and how to log on.
        settings: The hub's.
        clock: Market clock; by default the machine's, set by the server's.
        policy, journal, risk: As ``Brokerage`` has them.
        arming: Which accounts may be traded in; a person is asked on the thread that makes this object.
        emulator: See ``HubServer``.

    Raises:
        PortInUseError, JournalLockedError, BtIbkrError: As ``HubServer.open``; nothing is left behind then.
    """

    def __init__(
        self,
        session: SessionSettings,
        settings: HubSettings,
        *,
        clock: Clock | None = None,
        policy: QuestionPolicy | None = None,
        journal: Path | JournalInMemory | None = None,
        risk: RiskLimits | None = None,
        arming: Arming | None = None,
        emulator: str = "",
    ) -> None:
        arming = arming or Arming(accounts=settings.accounts)
        self._closed = False
        self.loop = LoopThread("ibkr-hub")
        self.brokerage = Brokerage(
            session,
            lambda: None,
            clock=clock or ServerClock(SystemClock()),
            policy=policy,
            journal=journal,
            risk=risk,
        )
        # A log-on may wait for a person.
        patience_s = _OPEN_S + getattr(session.login, "wait_s", 0.0)
        self.server = self.loop.call(self._make(settings, arming, emulator))
        try:
            self._do(self.server.log_on(), patience_s)
            standing = self.loop.call(self._standing())
            accounts = () if settings.data_only else arming.admit(*standing)
            self._do(self.server.serve(accounts), _OPEN_S)
        except (TimeoutError, concurrent.futures.TimeoutError):
            self.close("the hub could not start")
            raise RequestTimeoutError(
                f"{session.base_url} did not give the hub a session within {patience_s:g} s.",
                remedy="Look whether it answers at all: bt-ibkr doctor.",
            ) from None
        except BaseException:
            self.close("the hub could not start")
            raise

    async def _make(self, settings: HubSettings, arming: Arming, emulator: str) -> HubServer:
        return HubServer(self.brokerage, settings, arming=arming, emulator=emulator)

    async def _standing(self) -> tuple[tuple[str, ...], bool | None]:
        return self.brokerage.accounts(), self.brokerage.is_paper()

    def _do(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Wait for a step; one that is broken off (an interrupt, a timeout) has cleaned up when this returns."""
        over = self.loop.call(self._event())

        async def step() -> T:
            try:
                return await work
            finally:
                over.set()

        try:
            return self.loop.call(step(), timeout_s)
        except BaseException:
            with contextlib.suppress(TimeoutError):
                self.loop.call(over.wait(), _CLOSE_S)
            raise

    async def _event(self) -> asyncio.Event:
        return asyncio.Event()

    @property
    def endpoint(self) -> str:
        """Where strategies connect."""
        return self.server.endpoint

    def status(self) -> HubStatus:
        """See ``HubServer.status``."""
        return self.loop.call(self.server.status(), _CLOSE_S)

    def close(self, reason: str = "the hub was stopped") -> None:
        """End in order; may be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self.loop.call(self.server.close(reason), _CLOSE_S)
        finally:
            self.loop.stop()

    def __enter__(self) -> HubThread:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
