"""Starts and watches the process that has the session."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from scenario import Scenario

_HERE = Path(__file__).resolve().parent


class Owner:
    """``owner.py`` for one run; a context manager."""

    def __init__(self, kind: str, url: str, scenario: Scenario) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bt-ibkr-bench")
        self.endpoint = f"ipc://{self._folder.name}/hub"
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(_HERE / "owner.py"),
                kind,
                url,
                self.endpoint,
                msgspec.json.encode(scenario).decode(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Owner:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            msg = "The process that has the session ended at its start."
            raise RuntimeError(msg)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=20)
        self._folder.cleanup()

    def cpu_ns(self) -> int:
        """Processor time of all its threads so far, of those that ended too."""
        # Linux has a clock for each process; its number is made of the inverted process number (clock_gettime(2)).
        return time.clock_gettime_ns((~self._process.pid << 3) | 2)
