"""Modes ``paper`` and ``live`` as whole runs, against emulators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal

import pytest

from bt_ibkr.app.control import ControlClient
from bt_ibkr.app.run import RunRequest, Stopper, run_trade
from bt_ibkr.app.trade import Banner
from bt_ibkr.emulator.faults.specs import Quality
from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import AuthenticationError, NotArmedError, SessionError, UnreachableError, UsageError
from bt_ibkr.login import NoLogin, TokenLogin

Emulate = Callable[..., EmulatorThread]
FAST = ("fast=2", "slow=5")


@pytest.fixture
def emulate() -> Iterator[Emulate]:
    with ExitStack() as stack:

        def start(*accounts: str, **settings: Any) -> EmulatorThread:
            plain: dict[str, Any] = {
                "speed": "lockstep",
                "pacing": "off",
                # IBKR's five seconds between two looks at the orders take a quarter of one here.
                "pacing_speed": 20.0,
                "conflation_ms": 0,
                "synthetic_instruments": ("AAPL",),
            }
            if accounts:
                plain["accounts"] = accounts
            return stack.enter_context(EmulatorThread(EmulatorSettings(**(plain | settings))))

        yield start


def request(url: str, **changes: Any) -> RunRequest:
    plain: dict[str, Any] = {
        "strategy": "sma_cross",
        "assignments": FAST,
        "data": ("AAPL",),
        "gateway": url,
        # 2026-03-02T15:00Z: half an hour after the opening.
        "end_ns": 1_772_463_600_000_000_000,
    }
    return RunRequest(**(plain | changes))


@pytest.mark.parametrize(
    ("mode", "accounts", "account", "confirmed"),
    [("paper", ("DU1111111", "DU2222222"), "DU2222222", ""), ("live", ("U1111111",), "U1111111", "U1111111")],
)
def test_trades_in_the_account_that_was_named(
    emulate: Emulate, mode: Literal["paper", "live"], accounts: tuple[str, ...], account: str, confirmed: str
) -> None:
    emulator = emulate(*accounts)
    told: list[tuple[Banner, int]] = []

    def announce(banner: Banner) -> None:
        told.append((banner, len(emulator.call(lambda server: server.core.engine.ledger())["orders"])))

    asked = request(emulator.url, account=account, confirm_account=confirmed)
    result = run_trade(asked, mode, announce=announce)
    assert (result.mode, result.errors) == (mode, [])
    assert result.start_cash == result.start_value == 1_000_000.0
    assert result.executions
    ledger = emulator.call(lambda server: server.core.engine.ledger())
    assert {order["account"] for order in ledger["orders"]} == {account}
    # The books are the emulator's.
    assert [e.execution_id for e in result.executions] == [e["execution_id"] for e in ledger["executions"]]
    assert result.cash == pytest.approx(float(ledger["accounts"][account]["cash"]["USD"]), abs=0.005)
    ((banner, orders_before),) = told
    assert orders_before == 0
    assert (banner.mode, banner.account, banner.kind) == (mode, account, mode)
    assert banner.emulator
    assert emulator.url in banner.connection
    assert banner.data == (("AAPL", "RpB", "realtime"),)


def test_delayed_data_is_told_before(emulate: Emulate) -> None:
    emulator = emulate("U1111111")
    emulator.call(lambda server: server.core.faults.begin(Quality(code="DPB")))
    told: list[Banner] = []

    def refuse(account: str) -> str:
        return "no"

    with pytest.raises(NotArmedError):
        run_trade(request(emulator.url, account="U1111111"), "live", announce=told.append, ask=refuse)
    assert told[0].data == (("AAPL", "DPB", "delayed"),)
    assert emulator.call(lambda server: server.core.engine.ledger())["orders"] == []


@pytest.mark.parametrize("typed", ["", "yes", "u1111111", "U2222222", "U1111111x"])
def test_a_wrong_word_on_the_terminal_ends_it(emulate: Emulate, typed: str) -> None:
    emulator = emulate("U1111111", "U2222222")
    stopper = Stopper()
    with pytest.raises(NotArmedError, match="was confirmed") as caught:
        run_trade(request(emulator.url, account="U1111111"), "live", None, stopper, ask=lambda _: typed)
    assert not stopper.attached, "Ctrl-C at the question ends the program, not a run that is not there yet"
    assert caught.value.result.mode == "live"  # type: ignore[attr-defined]
    assert emulator.call(lambda server: server.core.engine.ledger())["orders"] == []


@pytest.mark.parametrize(
    ("mode", "master", "client"), [("paper", "DF1000000", "DU1000001"), ("live", "F1000000", "U1000001")]
)
def test_advisers_client_is_traded_in_its_own_account(
    emulate: Emulate, mode: Literal["paper", "live"], master: str, client: str
) -> None:
    """An adviser's login shows its master first. The account that was named is traded, and no other; the other mode
    refuses master and client alike."""
    emulator = emulate(master, client, fa_master=master, fa_groups=("Growth",))
    confirmed = client if mode == "live" else ""
    result = run_trade(request(emulator.url, account=client, confirm_account=confirmed), mode)
    assert result.executions
    ledger = emulator.call(lambda server: server.core.engine.ledger())
    assert {order["account"] for order in ledger["orders"]} == {client}
    other: Literal["paper", "live"] = "live" if mode == "paper" else "paper"
    for account in (master, client):
        asked = request(emulator.url, account=account, confirm_account=account if other == "live" else "")
        with pytest.raises(NotArmedError, match=f"account {account} is a {mode} account"):
            run_trade(asked, other)
    assert len(emulator.call(lambda server: server.core.engine.ledger())["orders"]) == len(ledger["orders"])


def test_limits_are_kept_on_the_emulators_clock(emulate: Emulate) -> None:
    """The run takes the clock of the limits from the emulator, which enforces them: one request too many is 429."""
    emulator = emulate("DU1111111", pacing="strict", pacing_speed=10.0)
    assert run_trade(request(emulator.url), "paper").executions
    with closing(ControlClient(emulator.control)) as control:
        kept = control.get("/requests")["windows"]
        assert control.get("/state")["requests_refused"] == 0
    assert any(window["window_s"] == 5.0 for window in kept)
    assert all(window["most"] <= window["count"] for window in kept)


def test_a_lockstep_market_has_one_driver(emulate: Emulate) -> None:
    """A second run is refused before it begins, and a second driver wherever it comes from; the first goes on."""
    emulator = emulate("DU1111111")
    refused: list[UsageError] = []

    def announce(banner: Banner) -> None:
        # The first run stands at its banner: it has not moved the market yet, so the step below makes it the
        # second driver.
        client = stack.enter_context(closing(ControlClient(emulator.control)))
        state = client.get("/state")
        port = str(state["connections"][0]["port"])
        client.post("/step", {"until_ns": None, "max_events": 1, "received": {port: 10**6}})
        assert client.get("/state")["driven"]
        with pytest.raises(UsageError, match="in lockstep with another run") as caught:
            run_trade(request(emulator.url), "paper")
        refused.append(caught.value)

    with ExitStack() as stack:
        with pytest.raises(SessionError, match="one driver"):
            run_trade(request(emulator.url), "paper", announce=announce)
        assert refused[0].remedy
    # Its connection was closed: the next one may.
    assert run_trade(request(emulator.url), "paper").executions


def test_by_token(emulate: Emulate, tmp_path: Path) -> None:
    emulator = emulate(
        "DU1111111", authentication=AuthenticationSettings(kind="token", key_folder=str(tmp_path))
    )
    asked = request(emulator.url, login=TokenLogin(token=str(tmp_path / "token")))
    assert run_trade(asked, "paper").executions
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(UsageError, match="is refused"):
        run_trade(asked, "paper")


def test_behind_a_proxy(emulate: Emulate) -> None:
    assert run_trade(request(emulate("DU1111111").url, login=NoLogin()), "paper").bars


def test_nobody_logged_in(emulate: Emulate) -> None:
    with pytest.raises(AuthenticationError):
        run_trade(request(emulate("DU1111111", login="logged_out").url), "paper")


def test_nobody_there() -> None:
    with pytest.raises(UnreachableError):
        run_trade(request("http://127.0.0.1:9/v1/api"), "paper")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": ()}, "--data"),
        ({"market": ("x.parquet",)}, "--market"),
        ({"start_ns": 1}, "--from"),
        ({"speed": "max"}, "--speed"),
        ({"cash": 5.0}, "--cash"),
        ({"seed": 3}, "--seed"),
    ],
)
def test_what_belongs_to_an_emulators_market_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        run_trade(request("http://127.0.0.1:9/v1/api", **changes), "paper")
