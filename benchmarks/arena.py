"""Processes of a benchmark: the server and one worker for each contender."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import IO, TypeVar

import msgspec
from scenario import BAR_MS, Outcome, Scenario, Sent
from worker import Order

_T = TypeVar("_T")
#: A run that takes longer hangs.
_LONGEST_S = 60
_HERE = Path(__file__).resolve().parent


class Arena:
    """Starts what is needed and runs scenarios; a context manager."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._base = ""

    def __enter__(self) -> Arena:
        server = self.start("server", "market.py")
        self._base = f"http://127.0.0.1:{int(_pipe(server.stdout).readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A process of Python, by its file and arguments."""
        process = subprocess.Popen(
            [sys.executable, str(_HERE / arguments[0]), *arguments[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._processes[name] = process
        return process

    def run(self, contender: str, scenario: Scenario) -> tuple[Outcome, Sent | None]:
        """One run; ``Sent`` is ``None`` where no server takes part.

        Raises:
            RuntimeError: The contender's process ended; its traceback is on standard error.
        """
        alone = contender == "bare"
        scenario = _dated(scenario) if alone else self.prepare(scenario)
        if contender not in self._processes:
            self.start(contender, "worker.py", contender)
        self.order(contender, Order(scenario=scenario, url=self.url))
        outcome = self.outcome(contender)
        return outcome, None if alone else self.sent()

    @property
    def base(self) -> str:
        """Where the server answers the benchmark itself."""
        return self._base

    @property
    def url(self) -> str:
        """Where it answers clients."""
        return f"{self._base}/v1/api"

    def prepare(self, scenario: Scenario) -> Scenario:
        """Tell the server; the scenario with its market time."""
        scenario = _dated(scenario)
        data = msgspec.json.encode(scenario)
        with urllib.request.urlopen(f"{self._base}/bench/prepare", data=data, timeout=30):
            pass
        return scenario

    def standing(self) -> None:
        """Wait until all strategies are there.

        Raises:
            RuntimeError: Some did not come.
        """
        if not self._get("/bench/standing", bool):
            msg = "Not all strategies joined."
            raise RuntimeError(msg)

    def sent(self) -> Sent:
        """What the server did, once it has done it."""
        return self._get("/bench/sent", Sent)

    def _get(self, path: str, kind: type[_T]) -> _T:
        with urllib.request.urlopen(self._base + path, timeout=2 * _LONGEST_S) as reply:
            return msgspec.json.decode(reply.read(), type=kind)

    def order(self, name: str, order: object) -> None:
        """One line to a process."""
        inlet = _pipe(self._processes[name].stdin)
        inlet.write(msgspec.json.encode(order) + b"\n")
        inlet.flush()

    def outcome(self, name: str) -> Outcome:
        """What it answers.

        Raises:
            RuntimeError: The process ended; its traceback is on standard error.
        """
        process = self._processes[name]
        watchdog = threading.Timer(_LONGEST_S, process.kill)
        watchdog.start()
        line = _pipe(process.stdout).readline()
        watchdog.cancel()
        if not line:
            msg = f"The process of {name!r} ended during its run, or hung for {_LONGEST_S} s."
            raise RuntimeError(msg)
        return msgspec.json.decode(line, type=Outcome)


def _dated(scenario: Scenario) -> Scenario:
    """With bars that begin in the future: the clock of the machine closes none of them."""
    base_ms = (int(time.time() * 1000) // BAR_MS + 2) * BAR_MS
    return msgspec.structs.replace(scenario, base_ms=base_ms)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
