"""Instruments beyond the market-data lines: read by snapshots in turn, a few at a time.

A snapshot takes a line as a stream does, until the server is told that it is not wanted any longer. So a few lines
are kept for snapshots: each group is opened, read when its values have come, and closed, then comes the next one.
Where all of them fit they stay open and are only read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

import msgspec

from bt_ibkr.errors import BtIbkrError, ResponseError
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import tags

_log = logging.getLogger(__name__)

#: Values come half a second to a second after the first call (wire facts, 5.1).
_PAUSE_S: Final = 0.7
#: Calls for one group, the opening one included.
_TRIES: Final = 4
#: After an error, seconds.
_REST_S: Final = 5.0


class Polled(Protocol):
    """What is read in turn."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Tags that are wanted."""

    def take_row(self, row: bytes) -> None:
        """Take in a row of a snapshot, as JSON."""


async def close_line(http: HttpClient, conid: int) -> None:
    """Give back the line that a snapshot of ``conid`` took; streams of it end, too.

    Raises:
        SessionError: As ``HttpClient.post``, but for the answer that nothing was open.
    """
    try:
        await http.post("/iserver/marketdata/unsubscribe", {"conid": conid})
    except ResponseError as refusal:
        if refusal.status != 500:
            raise


class SnapshotRound:
    """Reads instruments in turn.

    Args:
        http: The way to IBKR; what waits there for its turn lets orders pass.
        size: So many lines may be used at a time.
        told: Called after each group was taken in.
        pause: Waits; passed in.
    """

    def __init__(
        self,
        http: HttpClient,
        size: int,
        told: Callable[[], None],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = http
        self._size = min(size, tags.MAX_CONIDS)
        self._told = told
        self._pause = pause
        #: By what the wire calls the instrument; in the order of their turns.
        self._members: dict[str, Polled] = {}
        #: Open at the server.
        self._open: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, target: str) -> bool:
        return target in self._members

    @property
    def oldest(self) -> str | None:
        """Who waits for a line longest."""
        return next(iter(self._members), None)

    def add(self, target: str, member: Polled) -> None:
        """Read ``target``, too."""
        self._members[target] = member
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="snapshot-round")
            self._task.add_done_callback(_ended)

    async def remove(self, target: str) -> None:
        """Read it no more."""
        self._members.pop(target, None)
        with contextlib.suppress(BtIbkrError):
            await self._close([target])

    async def stop(self) -> None:
        """End; lines that are still open are the caller's to end."""
        self._members.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        position = 0
        while self._members:
            targets = list(self._members)
            position %= len(targets)
            group = targets[position : position + self._size]
            position += self._size
            try:
                await self._read(group)
                if len(self._members) > self._size:
                    await self._close(group)
                # Those that left while they were being read.
                await self._close(self._open - self._members.keys())
            except BtIbkrError as problem:
                _log.warning("snapshots-failed targets=%s problem=%s", ",".join(group), problem)
                await self._pause(_REST_S)
            else:
                await self._pause(_PAUSE_S)

    async def _read(self, group: list[str]) -> None:
        members = {target: self._members[target] for target in group if target in self._members}
        wanted = sorted({tag for member in members.values() for tag in member.fields}, key=int)
        query = {"conids": ",".join(members), "fields": ",".join(wanted[: tags.MAX_FIELDS])}
        waiting = dict(members)
        for attempt in range(_TRIES):
            if attempt:
                await self._pause(_PAUSE_S)
            rows = await self._http.get("/iserver/marketdata/snapshot", query)
            self._open |= members.keys()
            for row in rows if isinstance(rows, list) else ():
                target = _target(row)
                # The answer to the call that opens a line holds nothing but names.
                if target in waiting and row.keys() & set(wanted):
                    waiting.pop(target)
                    if target in self._members:
                        members[target].take_row(msgspec.json.encode(row))
            self._told()
            if not waiting:
                return

    async def _close(self, group: Iterable[str]) -> None:
        for target in list(group):
            if target in self._open:
                self._open.discard(target)
                await close_line(self._http, int(target.partition("@")[0]))


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (problem := task.exception()) is not None:
        # Begun anew with the next instrument that is added.
        _log.error("snapshots-ended problem=%r", problem, exc_info=problem)


def _target(row: Any) -> str:
    return str(row.get("conidEx") or row.get("conid") or "") if isinstance(row, dict) else ""
