"""A look at a hub from outside: no book, no orders. What ``bt-ibkr hub status`` and ``transfer`` use."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final

from bt_ibkr.errors import SessionError
from bt_ibkr.hub.books import Transfer
from bt_ibkr.hub.config import beside
from bt_ibkr.hub.keys import read_strategy_keys
from bt_ibkr.hub.link import HubLink
from bt_ibkr.hub.protocol import Told, Welcome
from bt_ibkr.hub.status import HubStatus

#: What an observer calls itself; where the channel is encrypted its key says who it is.
_NAME: Final = "observer"
_OPEN_S: Final = 5.0
_CALL_S: Final = 10.0


class HubObserver:
    """A connection to a hub that only looks.

    Args:
        endpoint: Of the hub.
        keys: File with the keys of a strategy or of an administrator, for an encrypted hub.
        name: What it calls itself; a strategy's may look wherever that strategy may.
        patience_s: How long the hub is waited for.

    Raises:
        UsageError: The endpoint or the key file is none.
        UnreachableError: No hub answers.
        NotArmedError: The hub does not let it in.
        SessionError: It is of another version.
    """

    def __init__(
        self, endpoint: str, keys: Path | None = None, *, name: str = _NAME, patience_s: float = _OPEN_S
    ) -> None:
        beside(endpoint)
        self.endpoint = endpoint
        pair = None if keys is None else read_strategy_keys(keys)
        self._link = HubLink(endpoint, name, self, role="observer", keys=pair)
        self._link.open(patience_s)

    @property
    def welcome(self) -> Welcome:
        """What the hub said of itself."""
        welcome = self._link.welcome
        if welcome is None:
            raise SessionError("The connection to the hub is closed.", remedy="Open a new one.")
        return welcome

    def status(self) -> HubStatus:
        """See ``HubServer.status``."""
        status: HubStatus = self._link.call("status", timeout_s=_CALL_S)
        return status

    def transfer(self, wanted: Transfer) -> None:
        """Move quantity between books.

        Raises:
            NotArmedError: Who asks is no administrator.
            UsageError: It cannot be moved.
        """
        self._link.call("transfer", wanted, timeout_s=_CALL_S)

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> HubObserver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what the link tells: nothing of it concerns an observer -------------------------------------

    def told(self, message: Told) -> None:
        """See ``LinkUser``."""

    def tick(self, *parts: bytes) -> None:
        """See ``LinkUser``."""

    def heads(self, heads: dict[bytes, int], stream_ns: int = 0) -> None:
        """See ``LinkUser``."""

    def server_time(self, server_ns: int) -> None:
        """See ``LinkUser``."""

    def link_changed(self, up: bool, cause: str, next_step: str = "") -> None:
        """See ``LinkUser``."""

    def new_hub(self) -> None:
        """See ``LinkUser``."""

    def beat(self) -> tuple[dict[bytes, int], int, int, int]:
        """See ``LinkUser``."""
        return {}, 0, 0, 0
