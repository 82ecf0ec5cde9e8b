"""ibind's WebSocket client, set up to be as fast as it can be.

Output events are emitted in its runtime thread (its asynchronous sink costs another queue and drops what
exceeds 10,000 events), and its runtime looks again after 1 ms instead of 250 ms: it takes at most 1,000 frames
a cycle and would else wait with frames at hand once the stream pauses. Its router drops the frame's time, so the
count of frames stands for it.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

os.environ.setdefault("IBIND_LOG_TO_FILE", "False")
os.environ.setdefault("IBIND_LOG_TO_CONSOLE", "False")
# How long its threads may take to end, after the measurement; it uses the time up.
os.environ.setdefault("IBIND_WS_TIMEOUT", "1")

import ibind
from bare import BareStore, Quote, cerebro_with
from ibind import events
from ibind.subscriptions import MarketDataSubscription
from scenario import Outcome, Scenario

_FIELDS = ["31", "84", "86", "85", "88", "7059", "7762", "6509"]

logging.getLogger("ibind").setLevel(logging.CRITICAL)


class Sink:
    """Given every event; hands market data on and forgets the rest."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take

    def emit(self, event: Any) -> None:
        """Part of ibind's interface."""
        if type(event) is events.MarketData:
            self._take(event)


def _start(scenario: Scenario, url: str, sink: Sink) -> Any:
    client = ibind.IbkrWsClient(
        account_id="DU1234567",
        url=url.replace("http", "ws", 1) + "/ws",
        ibkr_client=ibind.IbkrClient(url=f"{url}/", account_id="DU1234567"),
        cycle_interval=0.001,
        sink=sink,
        synchronous_output_events=True,
    )
    if not client.start():
        msg = "ibind did not connect"
        raise RuntimeError(msg)
    for conid in scenario.conids:
        client.subscribe(MarketDataSubscription(conid=str(conid), fields=_FIELDS))
    return client


def _end(client: Any) -> None:
    """End it in the background: its threads sleep out their time-out before they end."""
    threading.Thread(target=client.shutdown, daemon=True).start()


def run(scenario: Scenario, url: str) -> Outcome:
    """One run: frames counted, or brought into the same bare feed as the floor's."""
    if scenario.kind == "bars":
        return _count(scenario, url)
    feeds: dict[str, deque[Quote]] = {str(conid): deque() for conid in scenario.conids}
    pictures = set(feeds)
    moments = itertools.count(scenario.base_ms)
    queues = list(feeds.values())
    store = BareStore(queues)

    def take(event: Any) -> None:
        conid = event.conid
        if conid in pictures:
            pictures.discard(conid)
            return
        data = event.data
        quote = Quote(
            topic="",
            updated_ms=next(moments),
            last=float(data["last_price"]),
            size=float(data["last_size"]),
            volume=float(data["volume_long"]),
        )
        feeds[conid].append(quote)
        store.wake()

    cerebro = cerebro_with(queues, store, scenario)
    client = _start(scenario, url, Sink(take))
    (counter,) = cerebro.run()
    _end(client)
    outcome: Outcome = counter.outcome()
    return outcome


def _count(scenario: Scenario, url: str) -> Outcome:
    wanted = scenario.frames + 2 * scenario.feeds
    done = threading.Event()
    count = 0
    ended_ns = 0

    def take(_event: Any) -> None:
        nonlocal count, ended_ns
        count += 1
        if count == wanted:
            ended_ns = time.monotonic_ns()
            done.set()

    client = _start(scenario, url, Sink(take))
    done.wait(60)
    _end(client)
    return Outcome(count=count - scenario.feeds, ended_ns=ended_ns)
