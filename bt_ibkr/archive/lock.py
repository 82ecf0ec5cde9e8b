"""One writer at a time, and writers wait for each other: a lock of the operating system on a file."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import TracebackType

from bt_ibkr.errors import ArchiveError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Writing takes milliseconds; who holds it longer has been stopped.
PATIENCE_S = 60.0
_STEP_S = 0.01


class WriteLock:
    """The lock of one series, for a ``with`` block. It ends with its process, however that ends.

    Args:
        path: The lock's file, which stays.
        patience_s: Seconds to wait for another process.

    Raises:
        ArchiveError: Another process holds it for longer, or the file cannot be made.
    """

    def __init__(self, path: Path, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._patience_s = patience_s
        self._file = -1

    def __enter__(self) -> WriteLock:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as problem:
            raise ArchiveError(
                f"{self._path} cannot be opened: {problem.strerror}.",
                remedy="Make the folder writable, or name another.",
            ) from None
        ends = time.monotonic() + self._patience_s
        while not self._taken():
            if time.monotonic() >= ends:
                os.close(self._file)
                raise ArchiveError(
                    f"Another process has been writing to {self._path.parent} for {self._patience_s:g} s.",
                    remedy="Look whether it has been stopped (Ctrl-Z), and end it.",
                )
            time.sleep(_STEP_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def _taken(self) -> bool:
        try:
            if sys.platform == "win32":
                msvcrt.locking(self._file, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
