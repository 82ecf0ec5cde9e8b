"""Processes of a benchmark: the server and one worker for each contender."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import IO

import msgspec
from scenario import BAR_MS, Outcome, Scenario, Sent
from worker import Order

#: A run that takes longer hangs.
_LONGEST_S = 60
_HERE = Path(__file__).resolve().parent


class Arena:
    """Starts what is needed and runs scenarios; a context manager."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._base = ""

    def __enter__(self) -> Arena:
        server = self._start("server", "market.py")
        self._base = f"http://127.0.0.1:{int(_pipe(server.stdout).readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
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
        # Bars that begin in the future: the clock of the machine closes none of them.
        base_ms = (int(time.time() * 1000) // BAR_MS + 2) * BAR_MS
        scenario = msgspec.structs.replace(scenario, base_ms=base_ms)
        alone = contender == "bare"
        if not alone:
            self._post("/bench/prepare", scenario)
        worker = self._processes.get(contender) or self._start(contender, "worker.py", contender)
        order = Order(scenario=scenario, url=f"{self._base}/v1/api")
        inlet = _pipe(worker.stdin)
        inlet.write(msgspec.json.encode(order) + b"\n")
        inlet.flush()
        watchdog = threading.Timer(_LONGEST_S, worker.kill)
        watchdog.start()
        line = _pipe(worker.stdout).readline()
        watchdog.cancel()
        if not line:
            msg = f"The process of {contender!r} ended during {scenario.kind!r}, or hung for {_LONGEST_S} s."
            raise RuntimeError(msg)
        outcome = msgspec.json.decode(line, type=Outcome)
        return outcome, None if alone else self._sent()

    def _post(self, path: str, body: object) -> None:
        data = msgspec.json.encode(body)
        with urllib.request.urlopen(self._base + path, data=data, timeout=30):
            pass

    def _sent(self) -> Sent:
        with urllib.request.urlopen(f"{self._base}/bench/sent", timeout=30) as reply:
            return msgspec.json.decode(reply.read(), type=Sent)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
