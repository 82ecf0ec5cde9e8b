"""Whether this process is the only one of ours on this machine that uses a login of IBKR's.

Each holds a shared lock of the operating system on a file of the state directory, for as long as it lives, however it
ends. Who can make it exclusive is alone. Other programs, and other machines, are not seen.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_log = logging.getLogger(__name__)


class Presence:
    """This process as a user of one login.

    Args:
        folder: Where the lock's file lies; made if it is not there.
        names: What tells the login from others: the server's address, the accounts.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        self._file = -1
        #: On Windows, where a lock cannot be shared: whether this process came first.
        self._first = False
        path = folder / f"{digest}.lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as problem:
            _log.warning("presence-unknown path=%s problem=%s", path, problem)

    def alone(self) -> bool:
        """Whether nobody else is there; from now on others see this process. False where it cannot be told."""
        if self._file < 0:
            return False
        if sys.platform == "win32":
            try:
                msvcrt.locking(self._file, msvcrt.LK_NBLCK, 1)
            except OSError:
                return False
            # Who comes later cannot be seen: the question is answered once.
            first, self._first = not self._first, True
            return first
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:
            alone = False
        fcntl.flock(self._file, fcntl.LOCK_SH)
        return alone

    def leave(self) -> None:
        """Not there any longer; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
