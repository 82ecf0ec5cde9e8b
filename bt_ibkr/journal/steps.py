"""Where a process may die: the points between two durable steps, so that tests can enumerate them.

``BT_IBKR_KILL_AT=N`` makes the process kill itself at the N-th point it reaches, counted from 1, as a power cut
would: by SIGKILL, with nothing flushed. ``BT_IBKR_STEPS_LOG=FILE`` has the name of each point reached appended to the
file. Both are read once, when this module is loaded; without them a step costs nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from bt_ibkr.errors import UsageError


class Steps:
    """Counts the points that are reached.

    Args:
        kill_at: The point to die at, from 1; 0 for none.
        log: File that gets one line per point.
    """

    def __init__(self, kill_at: int = 0, log: Path | None = None) -> None:
        self._kill_at = kill_at
        self._log = log
        self._lock = threading.Lock()
        self.reached = 0

    @property
    def armed(self) -> bool:
        """Whether anybody wants to know."""
        return bool(self._kill_at or self._log)

    def reach(self, name: str) -> None:
        """Count one point, and die if it is the one."""
        with self._lock:
            self.reached += 1
            if self._log is not None:
                with self._log.open("a", encoding="utf-8") as file:
                    file.write(f"{name}\n")
            if self.reached == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def _from_environment() -> Steps:
    text = os.environ.get("BT_IBKR_KILL_AT") or "0"
    if not text.isdecimal():
        raise UsageError(
            f"BT_IBKR_KILL_AT is {text!r}, which is no number.", remedy="It is for tests: unset it."
        )
    log = os.environ.get("BT_IBKR_STEPS_LOG")
    return Steps(int(text), Path(log) if log else None)


_steps: Steps | None = None


def arm(steps: Steps) -> None:
    """Count from now on with ``steps``."""
    global _steps
    _steps = steps if steps.armed else None


def step(name: str) -> None:
    """A durable step begins or ends here.

    Args:
        name: What was, or will be, durable: ``journal.intend.committed``, ``desk.post.before``.
    """
    if _steps is not None:
        _steps.reach(name)


arm(_from_environment())
