"""What is measured: one description of a run, shared by the server, the clients and the report."""

from __future__ import annotations

import msgspec

#: Length of the bars in the scenario ``bars``.
BAR_MS = 60_000
#: Bars into which the frames of one run of ``bars`` are spread.
BARS = 10
#: conid of the first instrument; the others follow it.
FIRST_CONID = 265_598


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        kind: ``latency``, ``ticks`` or ``bars``; ``drain`` for the server alone.
        feeds: Instruments, one feed each.
        frames: Frames of market data that are sent after the pictures, over all instruments.
        rate: Frames a second; 0 for as fast as the client takes them.
        base_ms: Market time of the first frame, ms; a bar's edge.
        strategies: Processes that take part, each with the ticks of one instrument; the first frame waits until all
            have said that they are there. 0: it waits for the subscriptions alone.
    """

    kind: str
    feeds: int
    frames: int
    rate: int = 0
    base_ms: int = 0
    strategies: int = 0

    @property
    def conids(self) -> tuple[int, ...]:
        """The instruments."""
        return tuple(FIRST_CONID + index for index in range(self.feeds))

    def sequences(self, seat: int) -> range:
        """Numbers of the frames that strategy ``seat`` gets: its instrument's, of those that take turns."""
        return range(seat % self.feeds, self.frames, self.feeds)

    def time_ms(self, sequence: int) -> int:
        """Market time of frame ``sequence``: ticks 1 ms apart, or evenly spread over the bars."""
        if self.kind == "bars":
            return self.base_ms + sequence * BAR_MS * BARS // self.frames
        return self.base_ms + 1 + sequence


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one client measured.

    Attributes:
        count: Ticks, bars or frames that arrived; must be what was sent.
        ended_ns: ``CLOCK_MONOTONIC`` when the last one arrived.
        started_ns: The client's own start, where no server is involved; else 0.
        arrivals_ns: ``CLOCK_MONOTONIC`` of each ``next()``; only for ``latency``.
        checksum: Sum of the delivered sizes: what was lost or doubled shows in it.
        owner_cpu_ns: Processor time of the process that had the session, from the first tick to the last; 0 where
            there was none beside.
    """

    count: int
    ended_ns: int
    started_ns: int = 0
    arrivals_ns: list[int] = []
    checksum: float = 0.0
    owner_cpu_ns: int = 0


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What the server did.

    Attributes:
        started_ns: ``CLOCK_MONOTONIC`` just before the first frame was written.
        written_ns: … after the last one was handed to the kernel.
        cpu_ns: Processor time of the sending thread.
        sent_ns: When each frame was written; only for paced runs.
    """

    started_ns: int
    written_ns: int
    cpu_ns: int
    sent_ns: list[int] = []
