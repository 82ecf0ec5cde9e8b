"""``bt-ibkr hub`` and the commands below it, as typed on a command line."""

from __future__ import annotations

import io
import json
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.brokerage import JournalInMemory
from bt_ibkr.connection.interface import ExecutionReported
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.config import HubSettings, beside
from bt_ibkr.hub.keys import make_keys, read_keys, write_keys
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.order import Side
from tests.hub.conftest import ACCOUNT, FAST, LOOSE, PLAIN, Strategy, move

Emulate = Callable[..., EmulatorThread]
StartHub = Callable[..., HubThread]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: Any) -> Path:
    """State of these tests; the path of a socket below it is short."""
    monkeypatch.setenv("BT_IBKR_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def emulate() -> Iterator[Emulate]:
    with ExitStack() as stack:

        def start(*accounts: str, **settings: Any) -> EmulatorThread:
            given = {"accounts": accounts} if accounts else {}
            return stack.enter_context(
                EmulatorThread(EmulatorSettings(**(PLAIN | {"pacing": "off"} | given | settings)))
            )

        yield start


@pytest.fixture
def hub(home: Path) -> Iterator[StartHub]:
    """Hubs in this process, that commands look at."""
    hubs: list[HubThread] = []

    def start(emulator: EmulatorThread, journal: Path | None = None, **settings: Any) -> HubThread:
        chosen: dict[str, Any] = {"endpoint": f"ipc://{home}/hub", "beat_s": 0.2, "dead_s": 2.0} | settings
        made = HubThread(
            SessionSettings(base_url=emulator.url, **FAST),
            HubSettings(**chosen),
            journal=journal or JournalInMemory("tests"),
            risk=LOOSE,
        )
        hubs.append(made)
        return made

    yield start
    for one in hubs:
        one.close()


# -- serving -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_serves_until_a_signal(emulate: Emulate, start: Any, here: Any, home: Path, monkeypatch: Any) -> None:
    """And tells systemd, where it was started by it."""
    emulator = emulate()
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(f"{home}/notify")
    notified.settimeout(30)
    monkeypatch.setenv("NOTIFY_SOCKET", f"{home}/notify")
    running = start("hub", "--gateway", emulator.url, "--health", "127.0.0.1:0", "--json")
    told = json.loads(running.until("endpoint")[-1])
    assert (told["accounts"], told["mode"], told["pid"]) == ([ACCOUNT], "paper", running.process.pid)
    assert told["ticks"] == beside(told["endpoint"])
    assert told["health"].startswith("http://127.0.0.1:")
    assert notified.recv(100) == b"READY=1"
    looked = here("hub", "status", "--json")
    assert looked.code == 0, looked.err
    assert json.loads(looked.out)["pid"] == running.process.pid
    running.process.send_signal(signal.SIGTERM)
    ended = running.end()
    assert (ended.code, ended.left) == (0, [])
    assert notified.recv(100) == b"STOPPING=1"
    notified.close()
    assert "Hub, mode paper" in ended.err
    assert "hub-joined name=observer" in ended.err
    gone = here("hub", "status", "--json")
    assert gone.code == 6
    assert "No hub answers" in json.loads(gone.out)["errors"][0]


def test_a_signal_while_it_logs_on(emulate: Emulate, start: Any, home: Path) -> None:
    emulator = emulate(login="logged_out")
    (home / "hub.toml").write_text('[login]\nprovider = "gateway"\nwait_s = 50\npoll_s = 0.05\n')
    (home / "hub.toml").chmod(0o600)
    running = start("hub", "--gateway", emulator.url, "--config", str(home / "hub.toml"))
    assert running.process.stderr is not None
    for line in running.process.stderr:
        if "open=" in line:
            break
    running.process.send_signal(signal.SIGINT)
    ended = running.end()
    assert (ended.code, ended.left) == (130, [])
    assert "Traceback" not in ended.err


SECOND = ("path", "port", "journal", "health")


@pytest.mark.parametrize("shared", SECOND)
def test_a_second_hub_does_not_start(
    emulate: Emulate, hub: StartHub, here: Any, home: Path, shared: str
) -> None:
    emulator = emulate()
    first = hub(emulator, home / "journal.sqlite", endpoint="tcp://127.0.0.1:0", health="127.0.0.1:0")
    assert first.server.health is not None
    words = {
        "path": ("--endpoint", f"ipc://{home}/own"),
        "port": ("--endpoint", first.endpoint),
        "journal": ("--journal", str(home / "journal.sqlite")),
        "health": ("--health", first.server.health.url.removeprefix("http://")),
    }[shared]
    if shared == "path":
        hub(emulator, endpoint=f"ipc://{home}/own")
    refused = here("hub", "--gateway", emulator.url, *words)
    assert refused.code == (11 if shared == "journal" else 6), refused.err
    assert ("kept by process" if shared == "journal" else "does already") in refused.err
    assert "remedy:" in refused.err
    assert first.status().connected


REFUSED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "paper on a live account": ("U1111111", (), "is a live account"),
    "live without an account": ("U1111111", ("--mode", "live"), "no account was named"),
    "live without a terminal": ("U1111111", ("--mode", "live", "--account", "U1111111"), "nobody confirmed"),
    "live on a paper account": ("DU1111111", ("--mode", "live", "--yes-live", "DU1111111"), "paper account"),
    "another confirmation": (
        "U1111111", ("--mode", "live", "--account", "U1111111", "--yes-live", "U2222222"), "U2222222 was confirmed",
    ),
    "an account of others": ("DU1111111", ("--account", "DU9999999"), "not one of this login's"),
    "tcp for everybody": ("DU1111111", ("--endpoint", "tcp://0.0.0.0:5560"), "anybody could trade"),
    "a mode that is none": ("DU1111111", ("--mode", "sim"), "'sim' is no mode"),
    "no policy": ("DU1111111", ("--competing", "fight"), "'fight' is no policy"),
    "no file": ("DU1111111", ("--config", "none.toml"), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(emulate: Emulate, here: Any, monkeypatch: Any, case: str) -> None:
    account, words, says = REFUSED[case]
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    ended = here("hub", "--gateway", emulate(account).url, *words)
    assert ended.code == 2, ended.err
    assert says in ended.err
    assert "remedy:" in ended.err
    assert not ended.left


def test_live_is_armed_at_the_hub_and_by_each_strategy(emulate: Emulate, start: Any, here: Any) -> None:
    emulator = emulate("U1111111")
    running = start("hub", "--gateway", emulator.url, "--mode", "live", "--yes-live", "U1111111")
    said = "".join(running.until("ready"))
    assert "real money" in said
    words = ("run", "sma_cross", "--hub", "default", "--data", "AAPL")
    for further, says in (
        (("--mode", "paper"), "is a live account"),
        (("--mode", "live", "--account", "U1111111"), "nobody confirmed"),
        (("--mode", "live", "--yes-live", "U2222222"), "not one of this login's"),
    ):
        refused = here(*words, *further)
        assert refused.code == 2, refused.err
        assert says in refused.err
    assert emulator.ledger()["orders"] == []
    running.process.send_signal(signal.SIGINT)
    assert running.end().code == 0


def test_options_before_a_command_are_refused(here: Any) -> None:
    refused = here("hub", "--json", "status")
    assert refused.code == 2
    assert "--json before 'status' means nothing" in refused.err


# -- looking -------------------------------------------------------------------------------------------


def test_status_shows_everything(emulate: Emulate, hub: StartHub, here: Any) -> None:
    emulator = emulate()
    served = hub(emulator)
    alpha, beta = (Strategy(served.endpoint, name).open() for name in ("alpha", "beta"))
    try:
        for one, side in ((alpha, Side.BUY), (beta, Side.SELL)):
            one.attach()
            one.follow()
            key = one.place(side, 5)
            one.until(lambda one=one, key=key: one.placed(key))  # type: ignore[misc]
        move(emulator, 300)
        for one in (alpha, beta):
            one.until(lambda one=one: one.of(ExecutionReported))  # type: ignore[misc]
        shown = here("hub", "status")
        assert shown.code == 0, shown.err
        for word in (
            f"Hub {served.server.hub}", "streams (streaming)", ACCOUNT, "1 of 100", "alpha", "beta", "live",
            "AAPL", "Netting", "Books", "alpha, beta",
        ):  # fmt: skip
            assert word in shown.out, shown.out
        told = json.loads(here("hub", "status", served.endpoint, "--json").out)
        assert {peer["name"] for peer in told["peers"] if peer["role"] == "strategy"} == {"alpha", "beta"}
        assert {book["name"]: [one["quantity"] for one in book["holdings"]] for book in told["books"]}[
            "beta"
        ] == ["-5"]
        _transfers(here, served)
    finally:
        for one in (alpha, beta):
            one.connection.close()


def _transfers(here: Any, served: HubThread) -> None:
    """From books that hold 5 and -5."""
    for words, says in (
        (("alpha", "beta", "6", "AAPL"), "cannot be moved"),
        (("alpha", "beta", "5", "MSFT"), "nothing that the book has"),
        (("gamma", "beta", "5", "AAPL"), "no book 'gamma'"),
        (("alpha", "alpha", "5", "AAPL"), "moves nothing"),
        (("alpha", "be ta", "5", "AAPL"), "'be ta' is no name for a strategy"),
        (("alpha", "flatten", "5", "AAPL"), "the hub's own book"),
        (("alpha", "beta", "none", "AAPL"), "'none' is no quantity"),
        (("alpha", "beta", "1", "AAPL", "--account", "DU9"), "'DU9' is not one of the hub's"),
    ):
        refused = here("hub", "transfer", *words)
        assert refused.code == 2, (words, refused.err)
        assert says in refused.err
    moved = here("hub", "transfer", "alpha", "gamma", "2", "aapl")
    assert moved.code == 0, moved.err
    assert "Now alpha has 3, gamma has 2." in moved.out
    short = here("hub", "transfer", "beta", "gamma", "all", "conid:265598", "--json")
    assert json.loads(short.out)["books"] == {"beta": 0.0, "gamma": -3.0}
    held = {
        book.name: sum((one.quantity for one in book.holdings), Decimal(0)) for book in served.status().books
    }
    assert sum(held.values()) == 0


def test_watch_ends_with_a_signal(emulate: Emulate, hub: StartHub, start: Any) -> None:
    hub(emulate())
    running = start("hub", "status", "--watch", "--json")
    for _ in range(2):
        assert json.loads(running.until('"hub"')[-1])["connected"] is True
    running.process.send_signal(signal.SIGINT)
    assert running.end().code == 0


def test_nobody_answers(here: Any, home: Path) -> None:
    refused = here("hub", "status", f"ipc://{home}/none")
    assert refused.code == 6
    assert f"No hub answers at ipc://{home}/none" in refused.err
    assert here("hub", "status", "none").code == 2


# -- keys ----------------------------------------------------------------------------------------------


def test_keys_are_made_and_shown(here: Any, home: Path) -> None:
    assert "no keys" in here("hub", "keys").out
    early = here("hub", "keys", "alpha")
    assert early.code == 2
    assert "the hub's public key is not known" in early.err
    made = here("hub", "keys", "--hub")
    assert made.code == 0, made.err
    assert "[hub]" in made.out
    own = read_keys(home / "keys" / "hub.key")
    told = json.loads(here("hub", "keys", "alpha", "--json").out)
    alpha = read_keys(home / "keys" / "alpha.key")
    assert (told["public"], alpha.server) == (alpha.public, own.public)
    assert told["toml"] == ["[strategies.alpha]", f'key = "{alpha.public}"']
    far = here("hub", "keys", "alpha", "--server", own.public, "--dir", str(home / "far"))
    assert far.code == 0, far.err
    assert read_keys(home / "far" / "alpha.key").server == own.public
    shown = here("hub", "keys").out
    assert own.public in shown
    assert alpha.public in shown
    again = here("hub", "keys", "alpha")
    assert again.code == 2
    assert "exists already" in again.err
    for ended in (made, far, again):
        assert not [secret for secret in (own.secret, alpha.secret) if secret in ended.out + ended.err]
    assert alpha.secret not in shown
    for words in (("--hub", "alpha"), ("a b",), ("hub",), ("beta", "--server", "short")):
        assert here("hub", "keys", *words).code == 2


def test_an_encrypted_hub_is_looked_at_with_a_key(
    emulate: Emulate, hub: StartHub, here: Any, home: Path
) -> None:
    server = make_keys()
    keys = {name: make_keys(server.public) for name in ("alpha", "boss", "stranger")}
    for name, pair in keys.items():
        write_keys(home / f"{name}.key", pair)
    hub(
        emulate(),
        secret_key=server.secret,
        strategies={
            "alpha": Grant(key=keys["alpha"].public),
            "boss": Grant(key=keys["boss"].public, admin=True),
        },
    )
    assert here("hub", "status", "--hub-keys", str(home / "alpha.key")).code == 0
    assert here("hub", "status", "--hub-keys", str(home / "stranger.key")).code == 6
    move_it = ("hub", "transfer", "alpha", "boss", "1", "AAPL", "--hub-keys")
    refused = here(*move_it, str(home / "alpha.key"))
    assert refused.code == 2
