"""The emulator as a process: its one line, its end, its errors, TLS; and its settings."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bt_ibkr.emulator.main import run
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import PortInUseError, UsageError

SMALL: dict[str, Any] = {
    "port": 0,
    "synthetic_instruments": ("AAPL",),
    "history_days": 0,
    "speed": "lockstep",
}
PROGRAM = """
import sys, msgspec
from bt_ibkr.emulator.main import run
from bt_ibkr.emulator.settings import EmulatorSettings
sys.exit(run(msgspec.json.decode(sys.argv[1], type=EmulatorSettings)))
"""


@contextmanager
def process(**changes: Any) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    settings = msgspec.json.encode(SMALL | changes).decode()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, settings], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            yield child, json.loads(child.stdout.readline())
        finally:
            child.kill()


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_line_and_a_clean_end(number: signal.Signals) -> None:
    with process() as (child, line):
        assert line["pid"] == child.pid
        assert set(line) == {"url", "ws", "control", "pid"}
        assert ask(line["url"] + "/tickle")["session"]
        assert ask(line["control"] + "/state")["speed"] == "lockstep"
        began = time.monotonic()
        child.send_signal(number)
        assert child.wait(10) == 0
        assert time.monotonic() - began < 2


def test_end_with_the_parent() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent,
        process(parent_pid=parent.pid) as (child, line),
    ):
        assert ask(line["control"] + "/state")["done"] is False
        parent.kill()
        parent.wait()
        assert child.wait(10) == 0


def test_end_with_the_real_parent() -> None:
    middle = f"""
import os, subprocess, sys
settings = sys.argv[1].replace("PARENT", str(os.getpid()))
child = subprocess.Popen([sys.executable, "-c", {PROGRAM!r}, settings], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), flush=True)
"""
    settings = msgspec.json.encode(SMALL | {"parent_pid": 1}).decode()
    settings = settings.replace('"parent_pid":1', '"parent_pid":PARENT')
    done = subprocess.run(
        [sys.executable, "-c", middle, settings], stdout=subprocess.PIPE, text=True, timeout=30, check=True
    )
    pid = json.loads(done.stdout)["pid"]
    until = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < until


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        return stat.rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortInUseError, match="in use") as refused:
            run(EmulatorSettings(**(SMALL | {"port": taken.getsockname()[1]})))
    assert "another port" in refused.value.remedy


def test_tls() -> None:
    with EmulatorThread(EmulatorSettings(**(SMALL | {"tls": True}))) as emulator:
        assert emulator.url.startswith("https://")
        assert emulator.ws.startswith("wss://")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with urllib.request.urlopen(emulator.url + "/tickle", timeout=10, context=context) as answer:
            assert json.load(answer)["session"]


def test_call_in_the_emulators_thread() -> None:
    with EmulatorThread(EmulatorSettings(**SMALL)) as emulator:
        assert emulator.call(lambda server: server.core.engine.advance(max_events=5)).events == 5
        with pytest.raises(ZeroDivisionError):
            emulator.call(lambda server: 1 // 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70000},
        {"speed": 0.0},
        {"speed": "quick"},
        {"accounts": ()},
        {"accounts": ("A", "A")},
        {"cash": -1.0},
        {"heartbeat_s": 0.0},
        {"smd_lifetime_s": -1.0},
        {"synthetic_instruments": ()},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        EmulatorSettings(**wrong)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"sped":1}', type=EmulatorSettings)


@pytest.mark.parametrize("wrong", [{"synthetic_instruments": ("NOSUCH",)}, {"synthetic_day": "someday"}])
def test_market_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        run(EmulatorSettings(**(SMALL | wrong)))
