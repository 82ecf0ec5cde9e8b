"""What a session counts, as one frozen picture."""

from __future__ import annotations

import msgspec

from bt_ibkr.services.lines import LinesUsed
from bt_ibkr.session.pacing import ClassWaits


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Counted since the store was opened, and the request gate as it is now. Times are wall seconds.

    Attributes:
        state: Of the session, as ``SessionChanged.state``.
        transitions: How often each change of state happened, by ``"streaming -> disconnected"``.
        reconnects: How often the stream came back.
        gaps: Interruptions that were reported.
        gap_s: Market seconds that they lasted in sum.
        frames: Frames read from the WebSocket.
        unreadable_frames: Those of them that could not be read.
        unreadable_reports: Reports of orders or executions that could not be understood.
        unknown: Topics, and fields where they are looked at, that nobody here knows.
        stream_errors: Refusals that came over the WebSocket; of equal ones only the first is told.
        mute_reports: How often the stream was found not to tell of executions.
        unread_reports: How often orders and executions were asked for and could not be read.
        ticks_conflated: Ticks merged into others, or dropped, because a feed's reader was slow.
        ticks_dropped: Those of them that were dropped; history was asked instead.
        slow_episodes: How often a feed's reader fell behind.
        budget: Requests that could leave at once.
        queued: Requests that wait, by class name.
        waited_s, longest_wait_s: How long requests have waited for their turn, in sum and at most.
        waits: The same by class name, with how many requests were let through and how many refused in a penalty.
        lines: Market-data lines, and what uses them.
        clock_offset_s: How far the server's clock is ahead of this machine's; 0 where it is not measured.
        penalty_s: Seconds left of a penalty.
        penalties: How often there was one.
    """

    state: str = "disconnected"
    transitions: dict[str, int] = {}
    reconnects: int = 0
    gaps: int = 0
    gap_s: float = 0.0
    frames: int = 0
    unreadable_frames: int = 0
    unreadable_reports: int = 0
    unknown: int = 0
    stream_errors: int = 0
    mute_reports: int = 0
    unread_reports: int = 0
    ticks_conflated: int = 0
    ticks_dropped: int = 0
    slow_episodes: int = 0
    budget: int = 0
    queued: dict[str, int] = {}
    waited_s: float = 0.0
    longest_wait_s: float = 0.0
    waits: dict[str, ClassWaits] = {}
    lines: LinesUsed = LinesUsed()
    clock_offset_s: float = 0.0
    penalty_s: float = 0.0
    penalties: int = 0
