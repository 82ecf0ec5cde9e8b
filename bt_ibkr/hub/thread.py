"""A hub on a thread of its own: what the command line and tests start."""

from __future__ import annotations

import logging
from pathlib import Path

from bt_ibkr.clock import Clock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.brokerage import Brokerage, JournalInMemory
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.server import HubServer
from bt_ibkr.hub.status import HubStatus
from bt_ibkr.risk import RiskLimits
from bt_ibkr.services.questions import QuestionPolicy
from bt_ibkr.session.loop import LoopThread

_log = logging.getLogger(__name__)

_OPEN_S = 90.0
_CLOSE_S = 15.0


class HubThread:
    """Owns the loop, the session and the hub.

    Args:
        session: Where and how to log on.
        settings: The hub's.
        clock, policy, journal, risk: As ``Brokerage`` has them.

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
    ) -> None:
        self.loop = LoopThread("ibkr-hub")
        self.brokerage = Brokerage(
            session, lambda: None, clock=clock, policy=policy, journal=journal, risk=risk
        )
        try:
            self.server = self.loop.call(self._open(settings), _OPEN_S)
        except BaseException:
            self.loop.stop()
            raise

    async def _open(self, settings: HubSettings) -> HubServer:
        server = HubServer(self.brokerage, settings)
        await server.open()
        return server

    @property
    def endpoint(self) -> str:
        """Where strategies connect."""
        return self.server.endpoint

    def status(self) -> HubStatus:
        """See ``HubServer.status``."""
        return self.loop.call(self.server.status(), _CLOSE_S)

    def close(self, reason: str = "the hub was stopped") -> None:
        """End in order."""
        try:
            self.loop.call(self.server.close(reason), _CLOSE_S)
        finally:
            self.loop.stop()

    def __enter__(self) -> HubThread:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
