"""One strategy's process of several at one hub, or of several SUB sockets at one PUB socket.

::

    python benchmarks/member.py

Runs on standard input, outcomes on standard output, JSON lines.
"""

from __future__ import annotations

import time
import urllib.request

import backtrader as bt
import msgspec
import payload
from bare import BareFeed, new_cerebro
from hub_floor import Listener
from scenario import Outcome, Scenario
from worker import serve

_DAY_MS = 86_400_000
_EPOCH_ORDINAL = 719_163


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """What one of them is to do.

    Attributes:
        kind: ``hub`` or ``floor``: what the process with the session is.
        endpoint: Of that process.
        number: Of this strategy, from 0.
        scenario: The run.
        base: Of the server, to say there that the strategy is there.
    """

    kind: str
    endpoint: str
    number: int
    scenario: Scenario
    base: str


class Follower(bt.Strategy):  # type: ignore[misc]
    """Says that it is there, and notes each tick: when it came and what it was."""

    params = (("seat", None),)

    def __init__(self) -> None:
        self.arrivals: list[int] = []
        self.seen: list[tuple[float, float]] = []
        self._wanted = len(self.p.seat.scenario.sequences(self.p.seat.number))

    def start(self) -> None:
        """Feeds were started before: it is subscribed."""
        with urllib.request.urlopen(f"{self.p.seat.base}/bench/join", data=b"", timeout=30):
            pass

    def next(self) -> None:
        """Part of backtrader's strategy interface."""
        self.arrivals.append(time.monotonic_ns())
        self.seen.append((self.data.datetime[0], self.data.volume[0]))
        if len(self.arrivals) == self._wanted:
            self.env.runstop()

    def outcome(self) -> Outcome:
        """What came, if it is all that was sent, in order and once.

        Raises:
            SystemExit: It is not.
        """
        scenario, number = self.p.seat.scenario, self.p.seat.number
        wanted = [(scenario.time_ms(one), payload.size_of(one)) for one in scenario.sequences(number)]
        seen = [(round((moment - _EPOCH_ORDINAL) * _DAY_MS), size) for moment, size in self.seen]
        if seen != wanted:
            # What is too few or too many shows at the end of the shorter one.
            pairs = enumerate(zip(seen, wanted, strict=False))
            first = next((at for at, (one, other) in pairs if one != other), min(len(seen), len(wanted)))
            told = f"{seen[first : first + 1]}, not {wanted[first : first + 1]}"
            msg = f"Strategy {number} at the {self.p.seat.kind}: tick {first} of {len(wanted)}: {told}."
            raise SystemExit(msg)
        return Outcome(count=len(seen), ended_ns=self.arrivals[-1], arrivals_ns=self.arrivals)


def at_floor(seat: Seat) -> Outcome:
    """A SUB socket and a bare feed."""
    conid = seat.scenario.conids[seat.number % seat.scenario.feeds]
    listener = Listener(seat.endpoint, (conid,), len(seat.scenario.sequences(seat.number)))
    cerebro = new_cerebro()
    cerebro.addstore(listener.store)
    cerebro.adddata(BareFeed(ticks=listener.queues[0], timeframe=bt.TimeFrame.Ticks))
    cerebro.addstrategy(Follower, seat=seat)
    listener.start()
    (follower,) = cerebro.run()
    listener.join()
    outcome: Outcome = follower.outcome()
    return outcome


def at_hub(seat: Seat) -> Outcome:
    """The product's store and feed."""
    from bt_ibkr.config import SessionSettings
    from bt_ibkr.store import IBKRStore

    cerebro = new_cerebro()
    settings = SessionSettings(tick_backlog=1_000_000)
    with IBKRStore(hub=seat.endpoint, name=f"bench{seat.number}", settings=settings) as store:
        dataname = f"B{seat.number % seat.scenario.feeds}-STK-SMART-USD"
        cerebro.adddata(store.getdata(dataname=dataname, timeframe=bt.TimeFrame.Ticks, backfill_start=False))
        cerebro.addstrategy(Follower, seat=seat)
        (follower,) = cerebro.run()
    outcome: Outcome = follower.outcome()
    return outcome


def run(line: bytes) -> Outcome:
    """One run."""
    seat = msgspec.json.decode(line, type=Seat)
    return at_hub(seat) if seat.kind == "hub" else at_floor(seat)


if __name__ == "__main__":
    serve(run)
