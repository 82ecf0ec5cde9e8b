"""How far a server's clock is from this machine's, by the ``Date`` of its answers."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import aiohttp


class ServerDates:
    """Notes how far the ``Date`` of answers is from this machine's clock.

    Args:
        wall_s: This machine's clock, epoch seconds.
    """

    def __init__(self, wall_s: Callable[[], float]) -> None:
        self.wall_s = wall_s
        #: Server less ours, seconds, of the answer that came fastest; ``None`` before the first.
        self.skew_s: float | None = None
        self._best_s = float("inf")

    def trace(self) -> aiohttp.TraceConfig:
        config = aiohttp.TraceConfig()
        config.on_request_start.append(self._begin)
        config.on_request_end.append(self._end)
        return config

    async def _begin(
        self, client: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams
    ) -> None:
        context.began_s = self.wall_s()

    async def _end(
        self, client: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        try:
            server_s = parsedate_to_datetime(params.response.headers["Date"]).timestamp()
        except (KeyError, ValueError, TypeError):
            return
        now_s = self.wall_s()
        took_s = now_s - context.began_s
        if took_s < self._best_s:
            self._best_s = took_s
            # The header has whole seconds, cut off: half a second later on average.
            self.skew_s = server_s + 0.5 - (now_s + context.began_s) / 2
