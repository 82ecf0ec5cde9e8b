"""One owner at a time: a lock of the operating system, which frees it however the owner ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bt_ibkr.errors import JournalError, JournalLockedError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Windows locks bytes, not files, and nobody else can read them: it is one far behind the text.
_FAR = 1 << 30


class OwnerLock:
    """The lock on a journal. The file beside it says which process holds it, and stays when the lock is free:
    removing it would let two owners hold two files of one name.

    Args:
        path: The lock's file.

    Raises:
        JournalLockedError: Another process holds it, or this one a second time.
        JournalError: The file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as problem:
            raise JournalError(
                f"The journal's lock {path} cannot be opened: {problem.strerror}.",
                remedy="Make the folder writable, or name another with BT_IBKR_HOME.",
            ) from None
        try:
            _take(self._file)
        except OSError:
            pid = _holder(self._file)
            os.close(self._file)
            who = f"process {pid}" if pid else "another process"
            raise JournalLockedError(
                f"The journal {path.with_suffix('')} is kept by {who}.",
                pid=pid,
                remedy="Stop that process first, or give this one a journal of its own with BT_IBKR_HOME.",
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0) if sys.platform != "win32" else os.write(
            self._file, str(os.getpid()).encode()
        )

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = -1


def _take(file: int) -> None:
    if sys.platform == "win32":
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(file: int) -> int | None:
    """The process that wrote itself into the file."""
    try:
        os.lseek(file, 0, os.SEEK_SET)
        return int(os.read(file, 32) or 0) or None
    except (OSError, ValueError):
        return None
