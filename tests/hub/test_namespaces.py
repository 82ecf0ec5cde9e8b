"""Hub and strategy on two hosts (network namespaces), over tcp with CURVE; the link between them is cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.keys import KeyPair, make_keys, write_keys
from tests.hub.processes import Process

#: Addresses that exist inside the two namespaces alone.
HUB_IP, STRATEGY_IP = "10.231.77.1", "10.231.77.2"
PATIENCE_S = 60.0


class Hosts(NamedTuple):
    """Two namespaces and the cable between them."""

    hub: str
    strategy: str
    hub_end: str

    def cut(self) -> None:
        ip("-n", self.hub, "link", "set", self.hub_end, "down")

    def restore(self) -> None:
        ip("-n", self.hub, "link", "set", self.hub_end, "up")


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("there is no ip command (iproute2) to make network namespaces with")
    mark = f"{os.getpid() % 100000}"
    made = Hosts(f"bthub{mark}", f"btstrat{mark}", f"bth{mark}")
    far = f"bts{mark}"
    try:
        for name in (made.hub, made.strategy):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip(
            "-n",
            made.hub,
            "link",
            "add",
            made.hub_end,
            "type",
            "veth",
            "peer",
            "name",
            far,
            "netns",
            made.strategy,
        )
        ip("-n", made.hub, "addr", "add", f"{HUB_IP}/30", "dev", made.hub_end)
        ip("-n", made.strategy, "addr", "add", f"{STRATEGY_IP}/30", "dev", far)
        made.restore()
        ip("-n", made.strategy, "link", "set", far, "up")
    except OSError as problem:
        remove(made)
        pytest.skip(f"network namespaces cannot be made here: {problem}")
    yield made
    remove(made)


def remove(hosts: Hosts) -> None:
    for name in (hosts.hub, hosts.strategy):
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Bed(NamedTuple):
    hosts: Hosts
    hub: Process
    start: Callable[..., Process]


@pytest.fixture
def bed(hosts: Hosts, tmp_path: Path) -> Iterator[Bed]:
    hub_keys = make_keys()
    own = make_keys(hub_keys.public)
    wrong = make_keys(hub_keys.public)
    settings = HubSettings(
        endpoint=f"tcp://{HUB_IP}:5560",
        secret_key=hub_keys.secret,
        # It is not given up while its link is cut.
        strategies={"far": Grant(key=own.public, instruments=("AAPL",), vanish_s=300.0)},
        beat_s=0.2,
        dead_s=1.0,
        stale_s=1.5,
        ring=100_000,
    )
    made: list[Process] = []

    def host(name: str, script: str, *arguments: str) -> Process:
        made.append(Process(script, *arguments, within=("ip", "netns", "exec", name), patience_s=PATIENCE_S))
        return made[-1]

    def start(*instruments: str, keys: KeyPair | None = None) -> Process:
        chosen = {"own": own, "wrong": wrong}["own" if keys is None else "wrong"]
        path = tmp_path / f"{len(made)}.key"
        write_keys(path, chosen)
        return host(
            hosts.strategy, "follower.py", hub.of("ready")[0]["endpoint"], "far", str(path), *instruments
        )

    hub = host(hosts.hub, "hubhost.py", msgspec.json.encode(settings).decode())
    hub.until(lambda: hub.of("ready"))
    yield Bed(hosts, hub, start)
    for process in reversed(made):
        process.kill()


def reach(far: Process, ticks: int) -> dict[str, Any]:
    """What it has of the ticks, once it has so many or knows them gone."""
    found: dict[str, Any] = far.ask("reach", "reached", ticks={"AAPL": ticks})["ticks"]["AAPL"]
    return found


def run(bed: Bed, cut_s: float) -> None:
    hub = bed.hub
    far = bed.start("AAPL")
    far.until(lambda: far.of("joined") or far.of("refused"))
    assert far.of("joined"), far.said
    moved = hub.ask("move", "moved", events=200)["ticks"]
    assert moved > 0
    reach(far, moved)
    first = far.ask("place", "asked", of="AAPL", side="BUY", quantity=1)["key"]
    far.until(lambda: any(line["key"] == first for line in far.of("placed")))
    bed.hosts.cut()
    far.until(lambda: [line["connected"] for line in far.of("state")][-1:] == [False])
    hub.ask("await", "so", peers={"far": "lost"})
    meanwhile = far.ask("place", "asked", of="AAPL", side="BUY", quantity=2)["key"]
    # The order is as old as this at the least when the link is back.
    began_s = time.monotonic()
    moved = hub.ask("move", "moved", events=400)["ticks"]
    while (left := began_s + cut_s - time.monotonic()) > 0:
        # Nothing is heard of it: that is what passes the time.
        far.hear(min(left, 0.1))
        moved = hub.ask("move", "moved", events=10)["ticks"]
    bed.hosts.restore()
    far.until(lambda: [line["connected"] for line in far.of("state")][-1:] == [True])
    far.until(lambda: any(line["cause"] == "the hub was away" for line in far.of("gap")))
    far.until(lambda: any(line["key"] == meanwhile for line in (*far.of("placed"), *far.of("failed"))))
    told = reach(far, moved)
    assert told["count"] == moved
    assert (told["gone"], told["disorder"]) == (0, 0)
    # Too old by then: refused by rule, and not placed behind anybody's back.
    (refused,) = far.of("failed")
    assert refused["key"] == meanwhile
    assert "was not sent" in refused["problem"]
    last = far.ask("place", "asked", of="AAPL", side="BUY", quantity=3)["key"]
    far.until(lambda: any(line["key"] == last for line in far.of("placed")))
    assert sorted(hub.ask("created", "created")["keys"]) == sorted([first, last])
    assert far.end() == 0
    hub.ask("await", "so", peers={"far": "left"})


def test_a_link_that_is_cut_for_seconds(bed: Bed) -> None:
    run(bed, 2.5)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_link_that_is_cut_for_a_minute(bed: Bed) -> None:
    run(bed, 60.0)


def test_who_may_not(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instrument that it may not use, and a key that the hub does not know."""
    narrow = bed.start("AAPL", "MSFT")
    narrow.until(lambda: narrow.of("refused"))
    assert "may not use MSFT" in narrow.of("refused")[0]["problem"]
    narrow.kill()
    # Nobody will answer, however long it waits.
    monkeypatch.setenv("FOLLOWER_OPEN_S", "3")
    stranger = bed.start("AAPL", keys=make_keys())
    stranger.until(lambda: stranger.of("refused"))
    assert "No hub answers" in stranger.of("refused")[0]["problem"]
