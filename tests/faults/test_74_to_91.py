"""Faults 74 to 84 and 91: the stream, what it carries, the way there, and clocks."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil
import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock, ScaledClock, ServerClock, SystemClock
from bt_ibkr.config import SessionSettings, Trust
from bt_ibkr.connection.interface import ExecutionReported, OrderChanged, OrderPlaced, SessionNotice
from bt_ibkr.errors import ResponseError, TrustError
from bt_ibkr.services.datanames import ContractQuery

if TYPE_CHECKING:
    from bt_ibkr.emulator.server import EmulatorServer
    from tests.faults.conftest import Bed, MakeBed

#: 2026-03-02, 15:00 UTC.
START_NS = 1_772_463_600_000_000_000
HOUR_NS = 3_600_000_000_000


def test_74_half_open(bed: MakeBed) -> None:
    """Nothing is closed, nothing is said: found by the missing heartbeats, opened anew, told."""
    made = bed({"heartbeat_s": 0.1}, silence_s=0.4)
    made.stream()
    made.fault("ws_stall")
    began = time.monotonic()
    told = made.until_state("disconnected")
    assert time.monotonic() - began < 3.0
    gap = made.back()
    # The gap begins with the silence, not where it was noticed.
    assert gap.start_ns < gap.end_ns - 400_000_000
    assert told.next_step
    made.moves()


def test_74_within_twenty_seconds() -> None:
    """With the settings of users: silence, the step of the watch, and the polite close of a dead socket."""
    settings = SessionSettings()
    assert settings.silence_s + min(1.0, settings.tic_interval_s, settings.silence_s / 2) + 1.0 <= 20.0


def test_75_mute_topic_is_asked_for_again(bed: MakeBed) -> None:
    """Heartbeats go on, one subscription ended without a word: asked for again, and it speaks; nothing breaks."""
    made = bed({"heartbeat_s": 0.1}, mute_s=0.5)
    made.stream()
    made.emulator.call(lambda server: server.core.hub.end_subscriptions())
    made.moves()
    assert "disconnected" not in made.states()


def test_75_mute_topic_that_does_not_answer(bed: MakeBed) -> None:
    """The server has stopped the topic on this socket, pings are fine: the socket is opened anew."""
    made = bed({"heartbeat_s": 0.1}, mute_s=0.5)
    made.stream()
    port = made.connection.progress().port
    made.fault("silence", topic="smd", port=port)
    gap = made.back()
    # It reaches back to the topic's last frame.
    assert gap.end_ns - gap.start_ns >= 500_000_000
    assert made.connection.progress().port != port
    made.moves()


def test_75_mute_reports(bed: MakeBed) -> None:
    """Orders and executions are not told any more: asking finds them, once each, and the stream is repaired."""
    made = bed({"heartbeat_s": 0.1}, mute_s=0.5)
    made.attach()
    contract = made.stream()
    port = made.connection.progress().port
    for topic in ("sor", "str"):
        made.fault("silence", topic=topic, port=port)

    def mute() -> int:
        return sum(one.kind == "mute" for one in made.notices())

    for ref in (1, 2):
        made.buy(contract, ref)
        made.until(lambda: len(made.of(OrderPlaced)) > len(made.of(ExecutionReported)))
        told = mute()
        _step(made)
        made.until(lambda: len(made.of(OrderPlaced)) == len(made.of(ExecutionReported)))
        made.until(partial(_grown, mute, told))
    made.back()
    made.buy(contract, 3)
    made.until(lambda: len(made.of(OrderPlaced)) == 3)
    _step(made)
    made.until(lambda: len(made.of(ExecutionReported)) == 3)
    ids = [event.execution.execution_id for event in made.of(ExecutionReported)]
    assert len(set(ids)) == 3


def _grown(count: Callable[[], int], before: int) -> bool:
    return count() > before


def test_76_renewed_before_it_ends(bed: MakeBed) -> None:
    """A stream that lives for 15 market minutes is asked for every 9: an hour later it still runs."""
    clock = ScaledClock(START_NS, 1200.0)
    made = bed({"speed": 1200.0, "smd_lifetime_s": 900.0, "conflation_ms": 500}, clock=clock)
    contract = made.connection.resolve(_query())
    clock.restart()
    made.connection.subscribe_ticks(contract, made.ticks)
    made.until(lambda: made.ticks and made.ticks[-1].time_ns - made.ticks[0].time_ns >= HOUR_NS)
    times = [tick.time_ns for tick in made.ticks]
    longest = max(later - earlier for earlier, later in itertools.pairwise(times))
    assert longest < 5 * 60 * 10**9
    assert "disconnected" not in made.states()


def _query() -> ContractQuery:
    return ContractQuery(text="AAPL", symbol="AAPL")


def test_77_reconnect_storm(bed: MakeBed) -> None:
    """Dropped again and again: ever longer pauses, and nothing piles up."""
    made = bed(reconnect_first_s=0.02, reconnect_longest_s=0.6)
    made.stream()
    process = psutil.Process()
    threads, files = threading.active_count(), process.num_fds()
    since = made.asked()
    made.fault("ws_storm", every_s=0.02, for_s=3.0)
    began = time.monotonic()
    made.until(lambda: made.states().count("disconnected") >= 6)
    made.until(lambda: time.monotonic() - began > 3.2)
    made.until(lambda: made.changes()[-1].state == "streaming")
    # A storm drops 150 times; who comes back at once would have come back as often.
    assert made.count("/ws", since) <= 30
    # One gap for each stream that was lost; an attempt that failed on its way up lost none.
    made.until(lambda: len(made.gaps()) == made.states().count("streaming") - 1)
    made.moves()
    made.until(lambda: made.connections() == 1)
    # What was closed last may take a moment to be gone.
    made.until(lambda: threading.active_count() <= threads + 1)
    made.until(lambda: process.num_fds() <= files + 4)


def test_78_truncated_frames(bed: MakeBed) -> None:
    _damaged(bed(), "truncate")


@pytest.mark.parametrize("how", ["utf8", "binary"])
def test_79_not_utf8(bed: MakeBed, how: str) -> None:
    _damaged(bed(), how)


def test_80_deep_nesting(bed: MakeBed) -> None:
    """A hundred thousand levels."""
    _damaged(bed(), "deep")


def _damaged(made: Bed, how: str) -> None:
    """Such frames are counted and dropped, and the stream goes on."""
    made.stream()
    made.fault("frames", action="corrupt", corrupt=how, topic="smd", count=0)

    def counted() -> bool:
        # A wrong byte within a field that nobody reads does no harm, and is not counted.
        _step(made)
        return made.session.socket.unreadable >= 3

    made.until(counted)
    made.clear()
    made.moves()
    assert "disconnected" not in made.states()


def _step(made: Bed) -> None:
    made.emulator.call(lambda s: s.drive.step(until_ns=None, max_events=2, received={}))


def test_78_a_report_that_cannot_be_read_is_told(bed: MakeBed) -> None:
    """Of an order nothing is guessed: the strategy hears that a report was unreadable."""
    made = bed()
    made.attach()
    contract = made.stream()
    made.control.post("/notice", {"text": "x"})
    made.until(lambda: made.notices())
    made.emulator.call(partial(_say, text='{"topic":"sor","args":[{"orderId":{}}]}'))
    made.until(lambda: any(one.kind == "unreadable" for one in made.notices()))
    made.buy(contract)
    made.until(lambda: made.of(OrderPlaced))


def test_80_giant_frame(bed: MakeBed) -> None:
    """Fifty megabytes are refused before they are in memory; the socket is opened anew and the gap told."""
    made = bed()
    made.stream()
    before = psutil.Process().memory_info().rss
    made.fault("frames", action="corrupt", corrupt="giant", topic="smd", size=50_000_000)
    _step(made)
    made.back()
    assert made.connection.metrics().unreadable_frames == 1
    # The emulator, in this process too, makes the frame: one copy or two are its own.
    assert psutil.Process().memory_info().rss - before < 250_000_000
    made.moves()


def test_81_unknown_things(bed: MakeBed, caplog: pytest.LogCaptureFixture) -> None:
    """Unknown topic, new field, missing field, null, a number as text: tolerated, and logged once by name."""
    made = bed()
    made.stream()
    before = len(made.ticks)
    # New fields are looked for where a subscription is answered, as it is at every renewal.
    made.fault("frames", action="drop", topic="smd", count=2)
    made.on_loop(lambda: made.session.socket.ask_again("smd+265598"))
    for _ in range(3):
        for text in (
            '{"topic":"xyz","args":{"a":1}}',
            '{"topic":"smd+265598","conid":265598,"31":"101.5","new":[{"x":null}],"_updated":1772463600000}',
            '{"topic":"smd+265598","conid":265598,"84":null,"86":101.75,"_updated":1772463600001}',
            '{"topic":"smd+265598"}',
            '{"args":[]}',
        ):
            made.emulator.call(partial(_say, text=text))
    made.until(lambda: len(made.ticks) >= before + 2 and made.connection.metrics().unknown >= 7)
    made.clear()
    made.moves()
    assert "disconnected" not in made.states()
    logged = [one.getMessage() for one in caplog.records if one.getMessage().startswith("unknown-")]
    assert sorted(one.split(" passed")[0] for one in logged) == [
        "unknown-field name='new'",
        "unknown-frame name='without a topic'",
        "unknown-topic name='xyz'",
    ]
    assert made.connection.metrics().unknown == 3 + 3 + 1


def _say(server: EmulatorServer, text: str) -> None:
    for connection in server.core.hub.connections:
        connection.send_bytes(text.encode())


def test_82_html_instead_of_json(bed: MakeBed) -> None:
    """A page of a proxy: an outage, told as one; its text is not parsed, and nothing is concluded from it."""
    made = bed()
    made.attach()
    made.fault("http", action="html", count=0)
    with pytest.raises(ResponseError, match="HTTP 503: an HTML page"):
        made.connection.positions("DU1234567")
    made.fault("ws_reset")
    told = made.until_state("disconnected")
    assert not told.connected
    since = made.asked()
    made.until(lambda: made.asked() - since >= 4)
    assert "needs a person" not in made.states()
    made.clear()
    made.back()
    assert made.connection.positions("DU1234567") == ()


@pytest.mark.parametrize("certificate", ["new", "expired"])
def test_83_certificate_changed(bed: MakeBed, tmp_path: Path, certificate: str) -> None:
    """Another certificate than the one that was trusted: said, and never gone around."""
    made = bed({"tls": True}, opened=False)
    pinned = tmp_path / "gateway.pem"
    host, port = "127.0.0.1", int(made.emulator.url.rsplit(":", 1)[1].split("/")[0])
    pinned.write_text(ssl.get_server_certificate((host, port)))
    other = bed({"tls": True}, opened=False, trust=Trust(ca_file=str(pinned)))
    with pytest.raises(TrustError):
        other.open()
    made.connection = type(made.connection)(
        SessionSettings(base_url=made.emulator.url, trust=Trust(ca_file=str(pinned)), **_FAST), made.wake
    )
    made.open()
    try:
        made.until_state("streaming")
        since = made.asked()
        made.fault("restart", down_s=0.1, certificate=certificate)
        told = made.until_state("needs a person")
        assert "certificate" in told.cause
        assert "--ca-file" in told.next_step
        made.until(lambda: made.session._backoff.attempts >= 3)
        assert made.requests(since) == []
    finally:
        made.connection.close()


_FAST: dict[str, Any] = {"paced": False, "reconnect_first_s": 0.01, "reconnect_longest_s": 0.05}


def test_84_name_resolution_fails(bed: MakeBed, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name server after a break: an outage; when it answers again, so does the session."""
    made = bed()
    made.stream()
    real = aiohttp.TCPConnector._resolve_host
    failed: list[str] = []

    async def fails(self: Any, host: str, port: int, traces: Any = None) -> Any:
        failed.append(host)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(aiohttp.TCPConnector, "_resolve_host", fails)
    made.fault("restart", down_s=0.0)
    made.until_state("disconnected")
    made.until(lambda: len(failed) >= 3)
    assert "needs a person" not in made.states()
    monkeypatch.setattr(aiohttp.TCPConnector, "_resolve_host", real)
    made.back()
    made.moves()


def test_84_laptop_sleeps_for_eight_hours(bed: MakeBed) -> None:
    """The clock jumps and the socket is dead: an outage with a gap of eight hours, then all is read again."""
    clock = ManualClock(START_NS)
    made = bed({"heartbeat_s": 0.1}, silence_s=0.4, clock=clock)
    made.attach()
    contract = made.stream()
    made.buy(contract)
    made.until(lambda: made.of(OrderPlaced))
    since = made.asked()
    made.fault("ws_stall")
    made.fault("expire", told=False)
    clock.set_ns(START_NS + 8 * HOUR_NS)
    gap = made.back()
    assert gap.start_ns <= START_NS + 1_000_000_000
    assert gap.end_ns == START_NS + 8 * HOUR_NS
    made.until(lambda: made.count("/iserver/account/orders", since) >= 1)
    made.until(lambda: made.of(OrderChanged))
    made.moves()


@pytest.mark.parametrize("offset_s", [30.0, -30.0])
def test_91_clock_skew(bed: MakeBed, offset_s: float) -> None:
    """The server's clock is half a minute off: heartbeats are counted, not compared with this clock."""
    made = bed({"heartbeat_s": 0.05}, silence_s=0.4)
    made.stream()
    made.fault("skew", offset_s=offset_s)
    received = made.connection.progress().frames
    made.until(lambda: made.connection.progress().frames >= received + 30)
    made.moves()
    assert made.states()[-1] == "streaming"
    assert made.gaps() == []


@pytest.mark.parametrize("offset_s", [150.0, -150.0])
def test_91_time_goes_by_the_server(bed: MakeBed, offset_s: float) -> None:
    """Heartbeats show how far the server's clock is from the machine's, also when that changes during a run."""
    clock = ServerClock(SystemClock())
    made = bed({"heartbeat_s": 0.02}, clock=clock)
    made.stream()
    made.fault("skew", offset_s=offset_s)
    made.until(lambda: abs(clock.offset_ns / NS_PER_S - offset_s) < 0.5)
    assert made.connection.metrics().clock_offset_s == pytest.approx(offset_s, abs=0.5)
    (told,) = [
        event for event in made.store if isinstance(event, SessionNotice) and event.kind == "clock-differs"
    ]
    assert any(word in told.text for word in ("149.", "150."))


class SteppingClock(SystemClock):
    """The machine's clock, set back at will."""

    def __init__(self) -> None:
        self.offset_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.offset_ns


def test_91_clock_steps_back(bed: MakeBed) -> None:
    """Heartbeats are timed by a clock that never steps back, and subscriptions are renewed in good time."""
    clock = SteppingClock()
    made = bed({"heartbeat_s": 0.05}, silence_s=0.4, clock=clock)
    made.stream()
    sent = made.session.socket._sent_at_ns["smd+265598"]
    clock.offset_ns = -HOUR_NS
    received = made.connection.progress().frames
    made.until(lambda: made.connection.progress().frames >= received + 20)
    made.until(lambda: made.session.socket._sent_at_ns["smd+265598"] < sent)
    assert made.states()[-1] == "streaming"
    assert made.gaps() == []
    made.moves()
