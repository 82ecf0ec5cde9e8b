"""Fault 84 for real: the client's whole process is stopped and continued, as a laptop that sleeps."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.faults.conftest import MakeBed

PATIENCE_S = 20.0
Line = dict[str, Any]


class Sleeper:
    """The client's process, and what it has said."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("sleeper.py")), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said: list[Line] = []
        self._lines: queue.Queue[Line] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(json.loads(line))

    def until(self, wanted: Callable[[], Any]) -> None:
        latest = time.monotonic() + PATIENCE_S
        while not wanted():
            try:
                self.said.append(self._lines.get(timeout=max(0.0, latest - time.monotonic())))
            except queue.Empty:
                raise AssertionError(self.said) from None

    def of(self, kind: str) -> list[Line]:
        return [line for line in self.said if line["kind"] == kind]

    def stop(self) -> None:
        """Stop it, and wait until it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """Its exit code, once it has ended in order; what it said last is in ``said``."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        while not self._lines.empty():
            self.said.append(self._lines.get())
        return code

    def kill(self) -> None:
        """Leave nothing of it."""
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def sleeper() -> Iterator[Callable[[str], Sleeper]]:
    made: list[Sleeper] = []

    def make(url: str) -> Sleeper:
        made.append(Sleeper(url))
        return made[-1]

    yield make
    for one in made:
        one.kill()


def test_84_a_process_that_slept(bed: MakeBed, sleeper: Callable[[str], Sleeper]) -> None:
    """Asleep while the order fills, the session ends and the socket breaks: noticed as an outage, the gap told, and
    the execution taken in once."""
    made = bed({"heartbeat_s": 0.1}, opened=False)
    client = sleeper(made.emulator.url)
    client.until(lambda: client.of("placed"))
    client.stop()
    made.emulator.call(lambda s: s.drive.step(until_ns=None, max_events=5, received={}))
    executed = [one.execution_id for one in made.emulator.call(lambda s: s.core.engine.executions())]
    assert executed
    made.fault("expire", told=False)
    made.fault("ws_reset")
    made.until(lambda: made.connections() == 0)
    awake_ns = time.time_ns()
    client.go_on()
    client.until(lambda: client.of("gap"))
    client.until(lambda: len(client.of("execution")) >= len(executed))
    states = [line["state"] for line in client.of("state")]
    assert states[states.index("streaming") + 1] == "disconnected"
    assert states[-1] == "streaming"
    (gap,) = client.of("gap")
    assert gap["end_ns"] > awake_ns
    assert gap["start_ns"] < gap["end_ns"]
    client.until(lambda: any(line["status"] == "FILLED" for line in client.of("order")))
    assert client.end() == 0
    assert [line["id"] for line in client.of("execution")] == executed


def test_84_asleep_while_the_socket_stands(bed: MakeBed, sleeper: Callable[[str], Sleeper]) -> None:
    """The server has kept everything that it sent: nothing was missed, and nothing is told of."""
    made = bed({"heartbeat_s": 0.1}, opened=False)
    client = sleeper(made.emulator.url)
    client.until(lambda: client.of("placed"))
    client.stop()
    made.emulator.call(lambda s: s.drive.step(until_ns=None, max_events=5, received={}))
    executed = [one.execution_id for one in made.emulator.call(lambda s: s.core.engine.executions())]
    client.go_on()
    client.until(lambda: len(client.of("execution")) >= len(executed))
    assert client.end() == 0
    assert [line["id"] for line in client.of("execution")] == executed
    assert client.of("gap") == []
