"""An endpoint for one hub alone. ZeroMQ takes a Unix socket's path over from whoever has it, without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bt_ibkr.errors import JournalLockedError, PortInUseError
from bt_ibkr.journal.lock import OwnerLock

_IPC: Final = "ipc://"


def claim(endpoint: str) -> OwnerLock | None:
    """Take the path of an ``ipc://`` endpoint, and make its folder; others are taken by binding them.

    Raises:
        PortInUseError: Another hub has it.
        JournalError: The lock's file cannot be made.
    """
    if not endpoint.startswith(_IPC):
        return None
    path = Path(endpoint[len(_IPC) :])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return OwnerLock(path.with_name(path.name + ".lock"))
    except JournalLockedError as problem:
        who = f"process {problem.pid}" if problem.pid else "another process"
        raise PortInUseError(
            f"A hub cannot listen at {endpoint}: {who} does already.",
            remedy="Look at it with bt-ibkr hub status, or give this one another endpoint.",
        ) from None
