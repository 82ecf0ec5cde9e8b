"""The floor: aiohttp's WebSocket client on uvloop in a thread, a typed decode, a deque, a bare feed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable

import aiohttp
import msgspec
import uvloop
from bare import BareStore, Quote, cerebro_with
from scenario import Outcome, Scenario

_FIELDS = '{"fields":["31","84","86","85","88","7059","7762","6509"]}'


class Reader(threading.Thread):
    """Reads and decodes frames; hands each trade on, skips the pictures.

    Args:
        scenario: The run.
        url: REST base of the server.
        take: Given every decoded trade, in this thread.
        wanted: Frames after which it ends.
    """

    def __init__(
        self, scenario: Scenario, url: str, take: Callable[[Quote], None] | None, wanted: int
    ) -> None:
        super().__init__(name="floor", daemon=True)
        self._scenario = scenario
        self._url = url
        self._take = take
        self._wanted = wanted
        self.ended_ns = 0

    def run(self) -> None:
        """The thread: one uvloop."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._read())

    async def _read(self) -> None:
        async with aiohttp.ClientSession() as client:
            ws = await client.ws_connect(f"{self._url}/ws", compress=0, max_msg_size=4_000_000)
            for _ in range(3):  # system, act, sts
                await ws.receive()
            for conid in self._scenario.conids:
                await ws.send_str(f"smd+{conid}+{_FIELDS}")
            for _ in self._scenario.conids:
                await ws.receive()
            decode = msgspec.json.Decoder(Quote, strict=False).decode
            receive = ws.receive
            if self._take is None:
                for _ in range(self._wanted):
                    decode((await receive()).data)
            else:
                take = self._take
                for _ in range(self._wanted):
                    take(decode((await receive()).data))
            self.ended_ns = time.monotonic_ns()
            await ws.close()


def run(scenario: Scenario, url: str) -> Outcome:
    """One run of the floor."""
    if scenario.kind == "bars":
        wanted = scenario.frames + scenario.feeds
        reader = Reader(scenario, url, None, wanted)
        reader.start()
        reader.join()
        return Outcome(count=wanted, ended_ns=reader.ended_ns)
    feeds: dict[int, deque[Quote]] = {conid: deque() for conid in scenario.conids}
    queues = list(feeds.values())
    store = BareStore(queues)
    wake = store.wake

    def take(quote: Quote) -> None:
        feeds[quote.conid].append(quote)
        wake()

    cerebro = cerebro_with(queues, store, scenario)
    reader = Reader(scenario, url, take, scenario.frames)
    reader.start()
    (counter,) = cerebro.run()
    reader.join()
    outcome: Outcome = counter.outcome()
    return outcome
