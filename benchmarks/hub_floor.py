"""The floor of a hub: raw pyzmq PUB/SUB between two processes, with the payload of the hub, and a bare feed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

import msgspec
import zmq
from bare import BareStore, Quote, cerebro_with
from owned import Owner
from scenario import Outcome, Scenario


class Listener(threading.Thread):
    """A SUB socket that fills the deques of bare feeds.

    Args:
        endpoint: Of the PUB socket.
        conids: Instruments.
        wanted: Ticks after which it ends.

    Attributes:
        queues: The deques, in the order of ``conids``.
        store: Waits for them.
    """

    def __init__(self, endpoint: str, conids: Iterable[int], wanted: int) -> None:
        super().__init__(name="listener", daemon=True)
        self._endpoint = endpoint
        self._wanted = wanted
        self._feeds: dict[int, deque[Quote]] = {conid: deque() for conid in conids}
        self.queues = list(self._feeds.values())
        self.store = BareStore(self.queues)

    def run(self) -> None:
        """The thread."""
        from bt_ibkr.model.market import Tick

        decode = msgspec.msgpack.Decoder(tuple[int, Tick]).decode
        feeds, wake = self._feeds, self.store.wake
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.RCVHWM, 1_000_000)
            socket.connect(self._endpoint)
            for conid in feeds:
                socket.setsockopt(zmq.SUBSCRIBE, conid.to_bytes(8, "big"))
            for _ in range(self._wanted):
                _, payload = socket.recv_multipart()
                _, tick = decode(payload)
                last = tick.last or 0.0
                quote = Quote("", tick.conid, tick.time_ns // 1_000_000, last, size=tick.traded)
                feeds[tick.conid].append(quote)
                wake()


def run(scenario: Scenario, url: str) -> Outcome:
    """One run."""
    with Owner("floor", url, scenario) as owner:
        began_ns = owner.cpu_ns()
        listener = Listener(owner.endpoint, scenario.conids, scenario.frames)
        cerebro = cerebro_with(listener.queues, listener.store, scenario)
        listener.start()
        (counter,) = cerebro.run()
        listener.join()
        spent_ns = owner.cpu_ns() - began_ns
    outcome: Outcome = counter.outcome()
    return msgspec.structs.replace(outcome, owner_cpu_ns=spent_ns)
