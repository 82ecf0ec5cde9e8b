"""The process that has the session and publishes its ticks: a hub, or the least that could do its work.

::

    python benchmarks/owner.py hub|floor URL ENDPOINT SCENARIO

It prints a line when it is ready and ends with its standard input.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import zmq
from bare import Quote
from floor import Reader
from scenario import Scenario

sys.path.append(str(Path(__file__).resolve().parent.parent))


def hub(url: str, endpoint: str) -> None:
    """The product's."""
    from bt_ibkr.config import SessionSettings
    from bt_ibkr.hub.config import HubSettings
    from bt_ibkr.hub.thread import HubThread

    settings = HubSettings(endpoint=endpoint, data_only=True, queue=1_000_000, ring=1_000_000)
    with HubThread(SessionSettings(base_url=url, paced=False), settings):
        print("ready", flush=True)
        sys.stdin.read()


def floor(url: str, endpoint: str, scenario: Scenario) -> None:
    """aiohttp's WebSocket client on uvloop, a typed decode, MessagePack, a PUB socket on the same thread."""
    from bt_ibkr.model.market import DataQuality, Tick

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.SNDHWM, 1_000_000)
    # Else it hears of the first subscriber of a topic alone.
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)
    socket.bind(endpoint)
    encode = msgspec.msgpack.Encoder().encode
    topics = {conid: conid.to_bytes(8, "big") for conid in scenario.conids}
    numbers = dict.fromkeys(scenario.conids, 0)
    live = DataQuality.REALTIME

    def publish(quote: Quote) -> None:
        conid = quote.conid
        number = numbers[conid] = numbers[conid] + 1
        tick = Tick(
            quote.updated_ms * 1_000_000, conid, quote.bid, quote.ask, 1.0, 1.0, quote.last, quote.size,
            quote.size, quote.volume, live, False, 0,
        )  # fmt: skip
        socket.send_multipart((topics[conid], encode((number, tick))), zmq.NOBLOCK)

    print("ready", flush=True)
    for _ in range(scenario.strategies or len(topics)):
        # Begin once the subscribers are there.
        socket.recv()
    reader = Reader(scenario, url, publish, scenario.frames)
    reader.start()
    sys.stdin.read()
    socket.close(linger=0)
    context.term()


def main(kind: str, url: str, endpoint: str, scenario: str) -> None:
    """See the module."""
    if kind == "hub":
        hub(url, endpoint)
    else:
        floor(url, endpoint, msgspec.json.decode(scenario, type=Scenario))


if __name__ == "__main__":
    main(*sys.argv[1:])
