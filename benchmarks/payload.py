"""Frames of market data, encoded before they are sent."""

from __future__ import annotations

import struct

from scenario import BAR_MS, BARS, Scenario

#: Size of one write, bytes: large enough that the sender's cost per frame vanishes.
CHUNK = 64 * 1024

_PICTURE = (
    '{"6509":"RpB","conidEx":"%d","topic":"smd+%d","conid":%d,"_updated":%d,"6119":"q1","server_id":"q1",'
    '"84":"271.55","31":"271.67","86":"271.66","85":"300","88":"200","7059":"100","7762":"1000000"}'
)
_TRADE = (
    '{"server_id":"q1","conidEx":"%d","conid":%d,"_updated":%d,"6119":"q1","84":"%s","31":"%s","86":"%s",'
    '"7059":"%d","7762":"%d","topic":"smd+%d"}'
)
_START_VOLUME = 1_000_000


def framed(text: str) -> bytes:
    """``text`` as one unmasked WebSocket text frame."""
    data = text.encode()
    if len(data) < 126:
        return bytes((0x81, len(data))) + data
    return b"\x81\x7e" + struct.pack(">H", len(data)) + data


def picture(scenario: Scenario, conid: int) -> bytes:
    """The frame that answers a subscription: no trade, the base of the later ones."""
    return framed(_PICTURE % (conid, conid, conid, scenario.base_ms))


def size_of(sequence: int) -> int:
    """Quantity that trade ``sequence`` of an instrument adds to the day's volume."""
    return sequence % 9 + 1


def expected_checksum(scenario: Scenario) -> int:
    """Sum of all sizes that a run delivers."""
    return sum(size_of(sequence) for sequence in range(scenario.frames))


def trades(scenario: Scenario) -> list[bytes]:
    """The frames of a run, round-robin over the instruments; each one is a trade that changes the quote.

    ``bars`` ends with one frame for each instrument in the minute after the last bar, which closes it.
    """
    conids = scenario.conids
    volumes = dict.fromkeys(conids, _START_VOLUME)
    frames = []
    closing = len(conids) if scenario.kind == "bars" else 0
    for sequence in range(scenario.frames + closing):
        conid = conids[sequence % len(conids)]
        if sequence < scenario.frames:
            moment = scenario.time_ms(sequence)
        else:
            moment = scenario.base_ms + BARS * BAR_MS
        volumes[conid] += size_of(sequence)
        cents = 27_000 + sequence // len(conids) * 7 % 601
        bid, last, ask = (f"{(cents + step) / 100:.2f}" for step in (-1, 0, 1))
        text = _TRADE % (conid, conid, moment, bid, last, ask, size_of(sequence), volumes[conid], conid)
        frames.append(framed(text))
    return frames


def chunks(frames: list[bytes]) -> list[bytes]:
    """``frames`` joined into large writes."""
    joined = []
    pending: list[bytes] = []
    length = 0
    for frame in frames:
        pending.append(frame)
        length += len(frame)
        if length >= CHUNK:
            joined.append(b"".join(pending))
            pending, length = [], 0
    if pending:
        joined.append(b"".join(pending))
    return joined
