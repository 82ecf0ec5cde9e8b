"""Processes of a test that speak in lines of JSON: started, asked, stopped and continued, and left nothing of."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Process:
    """A script beside this file.

    Args:
        script: Its name.
        arguments: Its arguments.
        within: A command that starts it, as ``ip netns exec NAME``.
        patience_s: How long anything is waited for.
    """

    def __init__(
        self, script: str, *arguments: str, within: Sequence[str] = (), patience_s: float = 30.0
    ) -> None:
        self.patience_s = patience_s
        self.process = subprocess.Popen(
            [*within, sys.executable, str(Path(__file__).with_name(script)), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self.said: list[Line] = []
        self._lines: queue.Queue[Line] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(json.loads(line))

    def until(self, wanted: Callable[[], Any], patience_s: float = 0.0) -> None:
        """Take in what it says until ``wanted()`` is true."""
        latest = time.monotonic() + (patience_s or self.patience_s)
        while not wanted():
            try:
                self.said.append(self._lines.get(timeout=max(0.0, latest - time.monotonic())))
            except queue.Empty:
                raise AssertionError(self.said[-20:]) from None

    def hear(self, patience_s: float) -> None:
        """Take in the next line, if one comes in this time."""
        with contextlib.suppress(queue.Empty):
            self.said.append(self._lines.get(timeout=patience_s))

    def of(self, kind: str) -> list[Line]:
        while not self._lines.empty():
            self.said.append(self._lines.get())
        return [line for line in self.said if line["kind"] == kind]

    def send(self, do: str, **values: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do} | values) + "\n")
        self.process.stdin.flush()

    def ask(self, do: str, kind: str, **values: Any) -> Line:
        """Ask for something and wait for the line that answers."""
        before = len(self.of(kind))
        self.send(do, **values)
        self.until(lambda: len(self.of(kind)) > before)
        return self.of(kind)[before]

    def stop(self) -> None:
        """Stop it, and wait until it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """Its exit code, once it has ended in order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(self.patience_s)
        self._reader.join(self.patience_s)
        return code

    def kill(self) -> None:
        """Leave nothing of it."""
        self.process.kill()
        self.process.wait(self.patience_s)
        self._reader.join(self.patience_s)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
