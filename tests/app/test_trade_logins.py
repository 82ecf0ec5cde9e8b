"""Whole runs that log on by OAuth or token, against emulators that verify every signature and keep their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import backtrader as bt
import msgspec
import pytest

from bt_ibkr.app.login_file import read_login
from bt_ibkr.app.run import RunRequest, run_trade
from bt_ibkr.app.trade import Banner
from bt_ibkr.emulator.services.oauth.settings import AuthenticationSettings
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import AuthenticationError, BtIbkrError

Kind = Literal["oauth1a", "oauth2", "token"]
KINDS: tuple[Kind, ...] = ("oauth1a", "oauth2", "token")
Emulate = Callable[..., EmulatorThread]


@pytest.fixture
def emulate() -> Iterator[Emulate]:
    """Emulators whose clients' keys are in ``folder``."""
    with ExitStack() as stack:

        def start(kind: Kind, folder: Path, **asked: Any) -> EmulatorThread:
            settings = EmulatorSettings(
                speed="lockstep",
                conflation_ms=0,
                synthetic_instruments=("AAPL",),
                accounts=("DU1111111", "DU2222222"),
                pacing="strict",
                pacing_speed=10.0,
                authentication=AuthenticationSettings(kind=kind, key_folder=str(folder), **asked),
            )
            return stack.enter_context(EmulatorThread(settings))

        yield start


def request(emulator: EmulatorThread, folder: Path) -> RunRequest:
    return RunRequest(
        strategy="sma_cross",
        assignments=("fast=2", "slow=5"),
        data=("AAPL",),
        gateway=emulator.url,
        account="DU2222222",
        login=read_login(str(folder / "login.toml")),
        # 2026-03-02T15:00Z: half an hour after the opening.
        end_ns=1_772_463_600_000_000_000,
    )


def orders(emulator: EmulatorThread) -> list[Any]:
    found: list[Any] = emulator.call(lambda server: server.core.engine.ledger())["orders"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_trades(emulate: Emulate, tmp_path: Path, kind: Kind) -> None:
    emulator = emulate(kind, tmp_path)
    told: list[Banner] = []
    result = run_trade(request(emulator, tmp_path), "paper", announce=told.append)
    assert (result.mode, result.errors) == ("paper", [])
    ledger = emulator.call(lambda server: server.core.engine.ledger())
    assert [e.execution_id for e in result.executions] == [e["execution_id"] for e in ledger["executions"]]
    assert result.executions
    assert {order["account"] for order in ledger["orders"]} == {"DU2222222"}
    assert told[0].connection == f"{emulator.url} ({kind})"
    assert emulator.call(lambda server: server.core.pacing.refused) == 0


@pytest.mark.parametrize("kind", ["oauth1a", "oauth2"])
@pytest.mark.parametrize("variant", ["institutional", "es256"])
def test_other_forms(emulate: Emulate, tmp_path: Path, kind: Kind, variant: str) -> None:
    if kind == "oauth1a":
        # The test consumer has a realm of its own.
        asked: dict[str, Any] = {"consumer_key": "TESTCONS" if variant == "es256" else "SOMEBODY9"}
    else:
        asked = {"variant": variant} if variant == "institutional" else {"algorithm": "ES256"}
    assert run_trade(request(emulate(kind, tmp_path, **asked), tmp_path), "paper").executions


class Forgotten(bt.Strategy):  # type: ignore[misc]
    """Buys and sells in turn; before its third order the server forgets every credential."""

    forget: Callable[[], None]
    told: list[tuple[int, str]]

    def __init__(self) -> None:
        self.placed: list[Any] = []

    def next(self) -> None:
        if not self.data.current or any(order.alive() for order in self.placed) or len(self.placed) == 8:
            return
        if len(self.placed) == 2:
            type(self).forget()
        self.placed.append(self.close() if self.position else self.buy(size=1))

    def notify_order(self, order: Any) -> None:
        self.told.append((order.ref, order.getstatusname()))


@pytest.mark.parametrize("kind", ["oauth1a", "oauth2"])
def test_goes_on_with_another_credential(emulate: Emulate, tmp_path: Path, kind: Kind) -> None:
    """The server forgets every credential between two orders. The order that meets it was not looked at, which is
    proven: it is sent again, with the same ``cOID`` and a new credential, and stands once."""
    emulator = emulate(kind, tmp_path)
    Forgotten.told = []
    Forgotten.forget = staticmethod(lambda: emulator.call(lambda server: server.door.expire()))
    asked = msgspec.structs.replace(
        request(emulator, tmp_path), strategy=f"{__name__}:Forgotten", assignments=()
    )
    result = run_trade(asked, "paper")
    assert result.errors == []
    first = Forgotten.told[0][0]
    done = {ref - first + 1: status for ref, status in Forgotten.told}
    assert done == dict.fromkeys(range(1, 9), "Completed")
    assert len(orders(emulator)) == 8, "none stands twice"


#: What is wrong with the client's half, by kind.
WRONG: dict[str, tuple[Kind, Callable[[Path], None]]] = {
    "access token of another": ("oauth1a", lambda folder: replace(folder / "access_token", "0" * 20)),
    "consumer that is unknown": ("oauth1a", lambda folder: edit(folder, "EMULATOR1", "EMULATOR2")),
    "client that is unknown": ("oauth2", lambda folder: edit(folder, "emulator-client", "another-client")),
    "key id that is unknown": ("oauth2", lambda folder: edit(folder, '"main"', '"second"')),
    "user of somebody else": ("oauth2", lambda folder: edit(folder, '"emulator"', '"somebody"')),
    "token of another": ("token", lambda folder: replace(folder / "token", "0" * 40)),
}


def replace(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def edit(folder: Path, before: str, after: str) -> None:
    login = folder / "login.toml"
    text = login.read_text(encoding="utf-8")
    assert before in text
    replace(login, text.replace(before, after))


@pytest.mark.parametrize("case", WRONG)
def test_refused_without_an_order(emulate: Emulate, tmp_path: Path, case: str) -> None:
    kind, spoil = WRONG[case]
    emulator = emulate(kind, tmp_path)
    spoil(tmp_path)
    with pytest.raises(AuthenticationError) as caught:
        run_trade(request(emulator, tmp_path), "paper")
    assert caught.value.remedy
    assert orders(emulator) == []


@pytest.mark.parametrize("kind", ["oauth1a", "oauth2"])
def test_key_of_somebody_else(emulate: Emulate, tmp_path: Path, kind: Kind) -> None:
    """The login of one emulator with the private keys of another: a signature that does not verify."""
    emulator = emulate(kind, tmp_path / "mine")
    emulate(kind, tmp_path / "other")
    name = "private_signature.pem" if kind == "oauth1a" else "private_client.pem"
    replace(tmp_path / "mine" / name, (tmp_path / "other" / name).read_text(encoding="utf-8"))
    with pytest.raises(BtIbkrError) as caught:
        run_trade(request(emulator, tmp_path / "mine"), "paper")
    assert isinstance(caught.value, AuthenticationError)
    assert "PRIVATE KEY" not in str(caught.value)
    assert orders(emulator) == []
