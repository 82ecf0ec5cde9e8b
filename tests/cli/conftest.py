"""The command in processes of its own; nothing may be left running after one."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import bt_ibkr
from bt_ibkr.cli.main import main

_TAG = "BT_IBKR_TEST_RUN"
#: Where this process has the package from; its children shall have it from there too.
ROOT = Path(bt_ibkr.__file__).resolve().parents[1]


class Ended:
    """A command that has ended."""

    def __init__(self, code: int, out: str, err: str, left: list[str]) -> None:
        self.code = code
        self.out = out
        self.err = err
        #: Processes it left running.
        self.left = left


def family(tag: str) -> list[psutil.Process]:
    """Every process that was started, directly or not, under this tag."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_TAG) == tag and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


class Started:
    """A command that runs."""

    def __init__(self, *words: str, cwd: Path) -> None:
        self.tag = uuid.uuid4().hex
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "COLUMNS": "300", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", _TAG: self.tag,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bt_ibkr.cli.main", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment,
        )

    def family(self) -> list[psutil.Process]:
        return family(self.tag)

    def until(self, text: str) -> list[str]:
        """Read lines of standard output until one contains the text."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if text in line:
                return lines
        raise AssertionError(f"{text!r} was not said: {lines} {self.process.communicate()[1]}")

    def end(self, timeout_s: float = 60.0) -> Ended:
        out, err = self.process.communicate(timeout=timeout_s)
        left = [" ".join(p.cmdline()) for p in self.family()]
        return Ended(self.process.returncode, out, err, left)


@pytest.fixture(scope="session")
def started_type() -> type[Started]:
    return Started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts commands; what still runs after the test is killed, by its id."""
    started: list[Started] = []

    def run(*words: str) -> Started:
        started.append(Started(*words, cwd=tmp_path))
        return started[-1]

    yield run
    for one in started:
        for process in one.family():
            process.kill()
        one.process.communicate()


@pytest.fixture
def command(start: Any) -> Callable[..., Ended]:
    """Runs a command to its end."""
    return lambda *words: start(*words).end()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Any, capfd: Any) -> Callable[..., Ended]:
    """Runs a command in this process, in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["bt-ibkr", *words])
        before = {p.pid for p in psutil.Process().children(recursive=True)}
        with pytest.raises(SystemExit) as ended:
            main()
        left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
        captured = capfd.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err, [str(p) for p in left])

    return run
