"""``/livez`` and ``/readyz``, over HTTP."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from typing import Any

import pytest

from bt_ibkr.connection.interface import OrderFailed, SessionChanged
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import NotArmedError, PortInUseError
from bt_ibkr.hub.thread import HubThread
from tests.hub.conftest import ACCOUNT, Join, StartHub, Strategy


def ask(hub: HubThread, path: str) -> tuple[int, dict[str, Any]]:
    assert hub.server.health is not None
    try:
        with urllib.request.urlopen(hub.server.health.url + path, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            text = refused.read()
            return refused.code, json.loads(text) if text.startswith(b"{") else {}


def test_alive_and_ready(start_hub: StartHub) -> None:
    hub = start_hub(health="127.0.0.1:0")
    code, told = ask(hub, "/livez")
    assert (code, told) == (200, {"ok": True, "hub": hub.server.hub, "checks": {"beats": True}})
    code, told = ask(hub, "/readyz")
    assert (code, told["ok"]) == (200, True)
    assert told["checks"] == dict.fromkeys(
        ("listening", "session streams", "accounts attached", "may trade"), True
    )
    assert ask(hub, "/")[0] == 404
    assert hub.status().health == hub.server.health.url  # type: ignore[union-attr]


def test_alive_but_not_ready_while_the_session_is_broken(
    emulator: EmulatorThread, start_hub: StartHub
) -> None:
    hub = start_hub(health="127.0.0.1:0", endpoint="tcp://127.0.0.1:0", dead_s=60.0, beat_s=0.1)
    alpha = Strategy(hub.endpoint, "alpha").open()
    try:
        alpha.until(lambda: True in alpha.states())
        emulator.do("session", state="logged_out")
        alpha.until(lambda: alpha.states()[-1:] == [False])
        assert ask(hub, "/livez")[0] == 200
        code, told = ask(hub, "/readyz")
        assert (code, told["ok"], told["checks"]["session streams"]) == (503, False, False)
    finally:
        alpha.connection.close()


def test_another_hubs_address(start_hub: StartHub, tmp_path: Any) -> None:
    first = start_hub(health="127.0.0.1:0")
    assert first.server.health is not None
    address = first.server.health.url.removeprefix("http://")
    with pytest.raises(PortInUseError, match="somebody does already"):
        start_hub(endpoint=f"ipc://{tmp_path}/other", health=address)
    # What the second one had taken before is free again.
    assert start_hub(endpoint=f"ipc://{tmp_path}/other").endpoint


def test_free_again_after_the_end(start_hub: StartHub) -> None:
    hub = start_hub(health="127.0.0.1:0")
    assert hub.server.health is not None
    port = int(hub.server.health.url.rpartition(":")[2])
    hub.close()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


def test_a_login_of_another_account_ends_trading(hub: HubThread, join: Join, monkeypatch: Any) -> None:
    """The session is back with an account that was not admitted: no order is taken any more."""
    alpha = join("alpha")
    alpha.attach()
    monkeypatch.setattr(hub.brokerage, "accounts", lambda: ("U7654321",))

    async def again() -> None:
        hub.server.connected = False
        hub.server.append(SessionChanged("streaming", "back", "", True))

    hub.loop.call(again())
    assert isinstance(hub.server.failure, NotArmedError)
    key = alpha.place()
    alpha.until(lambda: alpha.of(OrderFailed, key))
    assert f"instead of {ACCOUNT}" in str(alpha.of(OrderFailed, key)[0].error)
    assert not hub.server.ready()["may trade"]
