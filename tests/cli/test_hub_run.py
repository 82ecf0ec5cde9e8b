"""``bt-ibkr run --hub`` and ``bt-ibkr hub run``, as typed on a command line."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.app.hub import HubRequest, serve_hub
from bt_ibkr.app.request import Stopper
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.config import HubSettings, default_endpoint
from bt_ibkr.hub.thread import HubThread

#: Half an hour after the opening.
SHORT = ("--data", "AAPL", "--set", "fast=2", "--set", "slow=5", "--to", "2026-03-02T15:00")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.setenv("BT_IBKR_HOME", str(tmp_path))
    return tmp_path


class Served:
    """A hub as the command serves it, on a thread of this process."""

    def __init__(self, request: HubRequest) -> None:
        self._stopper = Stopper()
        self._ready: queue.Queue[HubThread | BaseException] = queue.Queue()
        self._thread = threading.Thread(target=self._serve, args=(request,), daemon=True)
        self._thread.start()
        told = self._ready.get(timeout=60)
        if isinstance(told, BaseException):
            raise told
        self.hub = told

    def _serve(self, request: HubRequest) -> None:
        try:
            serve_hub(request, self._stopper, ready=self._ready.put)
        except BaseException as problem:  # noqa: BLE001 - handed to the test's thread
            self._ready.put(problem)

    def end(self) -> None:
        self._stopper()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def serve(home: Path) -> Iterator[Callable[..., tuple[EmulatorThread, Served]]]:
    """An emulator, and a hub on it at the default endpoint."""
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> tuple[EmulatorThread, Served]:
            plain: dict[str, Any] = {
                "speed": "lockstep", "pacing": "off", "pacing_speed": 20.0, "conflation_ms": 0,
                "synthetic_instruments": ("AAPL",),
            }  # fmt: skip
            emulator = stack.enter_context(EmulatorThread(EmulatorSettings(**(plain | settings))))
            served = Served(
                HubRequest(settings=HubSettings(endpoint=default_endpoint()), gateway=emulator.url)
            )
            stack.callback(served.end)
            return emulator, served

        yield start


# -- run --hub -----------------------------------------------------------------------------------------


def test_a_strategy_trades_through_the_hub_as_directly(serve: Any, here: Any) -> None:
    """In lockstep: the same executions, to the time and the price."""
    _, served = serve()
    through = here("run", "sma_cross", "--mode", "paper", "--hub", "default", *SHORT, "--json")
    assert through.code == 0, through.err
    assert f"the hub at {served.hub.endpoint}" in through.err
    with EmulatorThread(
        EmulatorSettings(
            speed="lockstep",
            pacing="off",
            pacing_speed=20.0,
            conflation_ms=0,
            synthetic_instruments=("AAPL",),
        )
    ) as other:
        words = ("--gateway", other.url, "--journal", "direct.sqlite", "--json")
        direct = here("run", "sma_cross", "--mode", "paper", *words, *SHORT)
    assert direct.code == 0, direct.err
    ours, theirs = json.loads(through.out), json.loads(direct.out)
    kept = ("time", "side", "size", "price", "commission")
    executions = [[{name: one[name] for name in kept} for one in run["executions"]] for run in (ours, theirs)]
    assert executions[0] == executions[1]
    assert executions[0]
    assert {one["order_ref"].split(".")[0] for one in ours["executions"]} == {"sma_cross"}
    assert ours["position"] == theirs["position"]
    assert "books" not in ours
    books = {book.name for book in served.hub.status().books if book.holdings}
    assert books == {"sma_cross"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--mode", "sim", "--hub", "default"), "mean nothing in --mode sim"),
        (("--mode", "paper", "--hub-keys", "a.key"), "without --hub"),
        (("--mode", "paper", "--hub", "here"), "'here' is no endpoint"),
        (
            ("--mode", "paper", "--hub", "default", "--gateway", "http://127.0.0.1:1"),
            "--gateway was given beside",
        ),
        (("--mode", "paper", "--hub", "default", "--journal", "a"), "--journal was given beside"),
        (("--mode", "paper", "--hub", "default", "--read-only"), "--read-only was given beside"),
        (("--mode", "paper", "--hub", "default", "--name", "a-2"), "'a-2' is no name"),
        (("--mode", "paper", "--hub", "default", "--hub-keys", "none.key"), "none.key cannot be read"),
    ],
)
def test_words_that_do_not_go_together(here: Any, words: tuple[str, ...], says: str) -> None:
    refused = here("run", "sma_cross", "--data", "AAPL", *words)
    assert refused.code == 2, refused.err
    assert says in refused.err
    assert "remedy:" in refused.err


def test_a_real_market_is_not_traded_by_accident(serve: Any, here: Any) -> None:
    _, served = serve()
    refused = here(
        "run", "sma_cross", "--mode", "live", "--yes-live", "DU1234567", "--hub", "default", *SHORT
    )
    assert refused.code == 2
    assert "is a paper account" in refused.err
    assert not [peer for peer in served.hub.status().peers if peer.orders]


# -- hub run -------------------------------------------------------------------------------------------


def write_plan(home: Path, text: str) -> str:
    (home / "strategies.toml").write_text(text)
    return str(home / "strategies.toml")


def table(name: str, code: str, words: str = "") -> str:
    """A strategy that is a few lines of Python."""
    command = json.dumps([sys.executable, "-u", "-c", code])
    return f"[strategies.{name}]\ncommand = {command}\n{words}\n"


def test_each_by_its_policy(here: Any, home: Path) -> None:
    again = (
        "import os, sys\nprint(os.environ['BT_IBKR_NAME'], os.environ['BT_IBKR_HUB'])\n"
        "here = 'count'\nn = int(open(here).read()) if os.path.exists(here) else 0\n"
        "open(here, 'w').write(str(n + 1))\nsys.exit(0 if n == 2 else 1)\n"
    )
    plan = (
        table("again", again, "backoff_s = 0.01")
        + table("once", "import sys; print('only once'); sys.exit(3)", 'restart = "never"')
        + table("ever", "import sys; sys.exit(5)", "backoff_s = 0.01\nmost_restarts = 2")
        + table("well", "print('well')")
        + '[strategies.none]\ncommand = ["/no/such/program"]\nrestart = "never"\n'
    )
    ended = here("hub", "run", write_plan(home, plan), "--hub", "ipc:///tmp/none", "--json")
    assert ended.code == 10, ended.err
    told = json.loads(ended.out)
    outcomes = {one["name"]: (one["state"], one["code"], one["restarts"]) for one in told["strategies"]}
    assert outcomes == {
        "again": ("ended", 0, 2),
        "once": ("failed", 3, 0),
        "ever": ("failed", 5, 2),
        "well": ("ended", 0, 0),
        "none": ("failed", 127, 0),
    }
    assert [error.split()[0] for error in told["errors"]] == ["once", "ever", "none"]
    log = (home / "logs" / "again.log").read_text()
    assert log.count("again ipc:///tmp/none\n") == 3
    assert log.count("started, process") == 3
    assert "only once" in (home / "logs" / "once.log").read_text()
    assert not ended.left


def test_a_signal_ends_all_in_order(start: Any, home: Path) -> None:
    """The last one first; one that does not listen is killed."""
    waits = (
        "import signal, sys, time\n"
        "def end(*_):\n    print('ended in order'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('waits')\n"
        "while True: time.sleep(0.05)\n"
    )
    deaf = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\ntime.sleep(600)\n"
    )
    plan = table("one", waits) + table("two", waits) + table("deaf", deaf, "stop_s = 1")
    running = start("hub", "run", write_plan(home, plan), "--json")
    for name, word in (("one", "waits"), ("two", "waits"), ("deaf", "deaf")):
        await_line(home / "logs" / f"{name}.log", f"\n{word}\n")
    running.process.send_signal(signal.SIGINT)
    ended = running.end()
    told = {one["name"]: (one["state"], one["code"]) for one in json.loads(ended.out)["strategies"]}
    assert told == {"one": ("stopped", 143), "two": ("stopped", 143), "deaf": ("killed", -9)}
    assert ended.code == 10
    assert "ended in order" in (home / "logs" / "one.log").read_text()
    assert not ended.left


def test_a_second_one_is_refused_and_a_second_signal_kills(start: Any, here: Any, home: Path) -> None:
    deaf = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\ntime.sleep(600)\n"
    )
    path = write_plan(home, table("deaf", deaf, "stop_s = 500"))
    running = start("hub", "run", path)
    await_line(home / "logs" / "deaf.log", "\ndeaf\n")
    refused = here("hub", "run", path)
    assert refused.code == 2
    assert f"run by process {running.process.pid} already" in refused.err
    running.process.send_signal(signal.SIGTERM)
    # Another one: two of a kind that are not handled yet are one.
    running.process.send_signal(signal.SIGINT)
    time_s = time.monotonic()
    ended = running.end()
    assert ended.code == 10
    assert time.monotonic() - time_s < 60
    assert "is killed" in ended.out
    assert not ended.left


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
def test_strategies_at_a_hub_are_watched(serve: Any, start: Any, home: Path) -> None:
    """Two real ones: each its book; one that is killed is back."""
    _, served = serve(speed=60.0)
    (home / "buys.py").write_text(
        "import backtrader as bt\n"
        "class Buys(bt.Strategy):\n"
        "    params = dict(size=1)\n"
        "    def next(self):\n"
        "        if self.data.current and not self.position and not getattr(self, 'bought', None):\n"
        "            self.bought = self.buy(size=self.p.size)\n"
    )
    plan = (
        '[defaults]\nstable_s = 1\nbackoff_s = 0.1\ndata = ["AAPL"]\nbar = "5s"\n'
        '[strategies.alpha]\nstrategy = "buys.py"\nset = { size = 3 }\n'
        '[strategies.beta]\nstrategy = "buys.py"\nset = { size = 4 }\n'
    )
    running = start("hub", "run", write_plan(home, plan), "--json")
    held = await_books(served, {"alpha": 3, "beta": 4})
    first = {peer.name: peer.pid for peer in served.hub.status().peers if peer.role == "strategy"}
    os.kill(first["alpha"], signal.SIGKILL)
    await_peer(served, "alpha", first["alpha"])
    running.process.send_signal(signal.SIGTERM)
    ended = running.end()
    told = {one["name"]: (one["state"], one["restarts"]) for one in json.loads(ended.out)["strategies"]}
    assert told == {"alpha": ("stopped", 1), "beta": ("stopped", 0)}, ended.err
    assert ended.code == 0
    assert not ended.left
    assert held == {"alpha": 3, "beta": 4}


def await_line(path: Path, text: str, patience_s: float = 60.0) -> None:
    """Another process writes it."""
    latest = time.monotonic() + patience_s
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < latest, path.read_text() if path.exists() else "nothing was written"
        time.sleep(0.02)


def await_books(served: Served, wanted: dict[str, int], patience_s: float = 90.0) -> dict[str, int]:
    """What the books hold, once it is as wanted."""
    latest = time.monotonic() + patience_s
    while True:
        books = served.hub.status().books
        held = {book.name: int(sum(one.quantity for one in book.holdings)) for book in books if book.holdings}
        if held == wanted:
            return held
        assert time.monotonic() < latest, held
        time.sleep(0.05)


def await_peer(served: Served, name: str, other_than: int, patience_s: float = 90.0) -> None:
    """Another process of the name is there, and has taken its account over."""
    latest = time.monotonic() + patience_s
    while not any(
        peer.name == name
        and peer.role == "strategy"
        and peer.pid != other_than
        and peer.state == "live"
        and peer.topics
        for peer in served.hub.status().peers
    ):
        assert time.monotonic() < latest, served.hub.status().peers
        time.sleep(0.05)
