"""Turns that all processes of this machine share: requests of which IBKR allows one in so many seconds.

IBKR counts for each user, whatever the process. A command beside a strategy, or a strategy that is started again at
once, would ask what has just been asked, and earn fifteen minutes in the penalty box for both. When a request of a
rare kind may be made next is therefore written into a small file, one for each kind, under a lock of the operating
system. Other machines, and other programs, are not seen.

The time in the file is that of the machine's clock; one further ahead than could have been written is of a clock that
was set, and counts for nothing. Where a file cannot be used each process keeps the limit by itself, and the log says
so.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from bt_ibkr.login import GatewayLogin, Login, NoLogin

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_log = logging.getLogger(__name__)

#: A request is taken to be on its way for so long, seconds, if its process does not say when it ended.
_ON_ITS_WAY_S: Final = 2.0
#: Enough for a number.
_MOST_BYTES: Final = 64


def turn_place(folder: Path, base_url: str, login: Login, path: str, method: str) -> Path:
    """The file of one kind of request of one login at one server."""
    # A login holds the places of its secrets, not these.
    who = "" if isinstance(login, (GatewayLogin, NoLogin)) else msgspec.json.encode(login).decode()
    words = "\n".join((base_url.rstrip("/"), who, method, path))
    return folder / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.turn"


class SharedTurn:
    """When the next request of one kind may be made.

    Args:
        place: The file; made, with its folder, at the first request.
        span_s: Between the end of one and the beginning of the next, seconds.
        now: The time of day, seconds.
    """

    def __init__(self, place: Path, span_s: float, *, now: Callable[[], float] = time.time) -> None:
        self._place = place
        self._span_s = span_s
        self._now = now
        self._told = False

    def wait_s(self) -> float:
        """Seconds until the next one may be made, by what the file says now."""
        try:
            return self._left(self._place.read_bytes()[:_MOST_BYTES])
        except FileNotFoundError:
            return 0.0
        except OSError as problem:
            self._tell(problem)
            return 0.0

    def take(self) -> float:
        """Take the turn; 0 if it was taken, else the seconds to wait."""
        try:
            with self._locked() as file:
                left = self._left(os.read(file, _MOST_BYTES))
                if not left:
                    self._write(file, self._span_s + _ON_ITS_WAY_S)
                return left
        except OSError as problem:
            self._tell(problem)
            return 0.0

    def ended(self) -> None:
        """The request that was made has ended."""
        try:
            with self._locked() as file:
                self._write(file, self._span_s)
        except OSError as problem:
            self._tell(problem)

    def _left(self, text: bytes) -> float:
        try:
            left = float(text or b"0") - self._now()
        except ValueError:
            # Torn by a full disk.
            return 0.0
        return left if 0 < left <= self._span_s + _ON_ITS_WAY_S else 0.0

    def _write(self, file: int, seconds: float) -> None:
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, f"{self._now() + seconds:.6f}".encode().ljust(_MOST_BYTES))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        try:
            file = os.open(self._place, flags, 0o600)
        except FileNotFoundError:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._place, flags, 0o600)
        try:
            # Held for some microseconds by whoever has it; given back when the file is closed.
            if sys.platform == "win32":
                msvcrt.locking(file, msvcrt.LK_LOCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _tell(self, problem: OSError) -> None:
        if not self._told:
            self._told = True
            _log.warning("shared-turn-unknown path=%s problem=%s", self._place, problem)
