"""The floor of a hub: raw pyzmq PUB/SUB between two processes, with the payload of the hub, and a bare feed."""

from __future__ import annotations

import threading
from collections import deque

import msgspec
import zmq
from bare import BareStore, Quote, cerebro_with
from owned import Owner
from scenario import Outcome, Scenario


def run(scenario: Scenario, url: str) -> Outcome:
    """One run."""
    from bt_ibkr.model.market import Tick

    decode = msgspec.msgpack.Decoder(tuple[int, Tick]).decode
    feeds: dict[int, deque[Quote]] = {conid: deque() for conid in scenario.conids}
    queues = list(feeds.values())
    store = BareStore(queues)
    wake = store.wake
    with Owner("floor", url, scenario) as owner:
        began_ns = owner.cpu_ns()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, 1_000_000)
        socket.connect(owner.endpoint)
        for conid in feeds:
            socket.setsockopt(zmq.SUBSCRIBE, conid.to_bytes(8, "big"))

        def read() -> None:
            for _ in range(scenario.frames):
                _, payload = socket.recv_multipart()
                _, tick = decode(payload)
                last = tick.last or 0.0
                quote = Quote("", tick.conid, tick.time_ns // 1_000_000, last, size=tick.traded)
                feeds[tick.conid].append(quote)
                wake()

        reader = threading.Thread(target=read, daemon=True)
        cerebro = cerebro_with(queues, store, scenario)
        reader.start()
        (counter,) = cerebro.run()
        reader.join()
        spent_ns = owner.cpu_ns() - began_ns
        socket.close(linger=0)
        context.term()
    outcome: Outcome = counter.outcome()
    return msgspec.structs.replace(outcome, owner_cpu_ns=spent_ns)
