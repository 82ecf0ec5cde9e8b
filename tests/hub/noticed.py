"""What a hub of this process notices, it logs: whoever waits for it looks then, and not again and again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

_LOGGER = logging.getLogger("bt_ibkr.hub")


class Noticed(logging.Handler):
    """Wakes who waits, whenever the hub logs something; a context manager."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._news = threading.Event()
        self._level = _LOGGER.level

    def emit(self, record: logging.LogRecord) -> None:
        self._news.set()

    def until(self, wanted: Callable[[], Any], what: object = "", patience_s: float = 60.0) -> None:
        """Wait until it is so; what a log entry precedes by a moment is looked for once more a little later."""
        latest = time.monotonic() + patience_s
        while not wanted():
            left = latest - time.monotonic()
            assert left > 0, what() if callable(what) else what
            self._news.wait(min(left, 0.05))
            self._news.clear()

    def __enter__(self) -> Noticed:
        _LOGGER.setLevel(logging.DEBUG)
        _LOGGER.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        _LOGGER.removeHandler(self)
        _LOGGER.setLevel(self._level)


def until(wanted: Callable[[], Any], what: object = "", patience_s: float = 15.0) -> None:
    """``Noticed.until`` of what a hub of this process, or a link to one, notices from now on."""
    with Noticed() as noticed:
        noticed.until(wanted, what, patience_s)
