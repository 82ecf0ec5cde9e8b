"""A strategy's process is brought up to date with a hub that is new to it, on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from bt_ibkr.errors import BtIbkrError

_log = logging.getLogger(__name__)

#: Between attempts, seconds.
_AGAIN_S: Final = 1.0


class Returning:
    """See the module.

    Args:
        work: Brings up to date; may ask the hub and wait, and is called again after a failure.
        present: Whether the joining is the present one still.
        do: Has something done on the link's thread.
        returned: Called there after each attempt: with what was wrong, empty if nothing was, or nothing new.
        wait: So many seconds, or until the link ends; whether it has.
    """

    def __init__(
        self,
        work: Callable[[], None],
        present: Callable[[str], bool],
        do: Callable[[Callable[[], Any]], None],
        returned: Callable[[str], None],
        wait: Callable[[float], bool],
    ) -> None:
        self._work = work
        self._present = present
        self._do = do
        self._returned = returned
        self._wait = wait
        self._thread: threading.Thread | None = None
        self._failure = ""

    def is_here(self) -> bool:
        """Whether this is the thread that brings up to date: what it asks goes before everything else."""
        return threading.current_thread() is self._thread

    def begin(self, join: str) -> None:
        """A hub has welcomed this process by another joining; on the link's thread."""
        self._thread = threading.Thread(target=self._run, args=(join,), name="hub-return", daemon=True)
        self._thread.start()

    def _run(self, join: str) -> None:
        while self._present(join):
            try:
                self._work()
                problem = ""
            except BtIbkrError as failure:
                problem = str(failure)
            except Exception as failure:  # noqa: BLE001 - a thread of its own: nobody else would say so
                _log.exception("hub-return-failed")
                problem = repr(failure)
            self._do(partial(self._attempted, join, problem))
            # A strategy without its streams would stand still.
            if not problem or self._wait(_AGAIN_S):
                return

    def _attempted(self, join: str, problem: str) -> None:
        if not self._present(join):
            return
        new, self._failure = problem != self._failure, problem
        if problem and new:
            _log.error("hub-return-failed problem=%s", problem)
        self._returned(problem if new else "")
