"""Topic ``smh``: one answer with bars whose fields follow ``format``; ``umh`` closes it by its server id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bt_ibkr.emulator.services.history import bars, handlers
from bt_ibkr.emulator.stream.connection import Connection

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: Most open requests of one connection; a further one displaces the oldest in silence.
MAX_OPEN = 5
DEFAULT_FORMAT = "%o/%c/%h/%l"
#: Arguments the server reads; others are ignored.
_KEYS = ("period", "bar", "source", "exchange", "startTime", "direction")


class HistoryStreams:
    """Open history requests by connection."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._open: dict[Connection, list[str]] = {}

    def subscribe(self, connection: Connection, target: str, arguments: dict[str, Any]) -> None:
        """Answer with bars.

        Raises:
            ApiError: A period or bar size that the server does not know.
        """
        conid = target.partition("@")[0]
        known = conid.isascii() and conid.isdigit() and len(conid) <= 18
        instrument = self._core.instrument(int(conid)) if known else None
        if instrument is None:
            return
        query = {key: str(arguments[key]) for key in _KEYS if key in arguments}
        outside_hours = arguments.get("outsideRth") is True
        asked = handlers.request(self._core, instrument, query, outside_hours=outside_hours)
        body = handlers.body(self._core, asked, bars.read(self._core, asked))
        wanted = [part[1:] for part in str(arguments.get("format") or DEFAULT_FORMAT).split("/")]
        rows = body["data"]
        if isinstance(rows, list):
            body["data"] = [{key: row[key] for key in wanted if key in row} for row in rows]
        opened = self._open.setdefault(connection, [])
        opened.append(str(body["serverId"]))
        del opened[:-MAX_OPEN]
        connection.send(body | {"topic": f"smh+{target}"})

    def unsubscribe(self, connection: Connection, server_id: str) -> None:
        """Close it; the answer is what clients in the field expect."""
        opened = self._open.get(connection, [])
        if server_id in opened:
            opened.remove(server_id)
            connection.send({"message": f"Unsubscribed {server_id}"})

    def drop_connection(self, connection: Connection) -> None:
        self._open.pop(connection, None)
