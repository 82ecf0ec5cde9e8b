"""The same strategy, direct and through the hub, in lockstep on the same market: the same executions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.app.control import ControlClient
from bt_ibkr.clock import ManualClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.brokerage import JournalInMemory
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.joining import HubAddress
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.store import IBKRStore
from tests.conftest import Bench, Line, Run, Tape

HubLine = Callable[..., Line]


@pytest.fixture
def hub_line(tmp_path: Path) -> Iterator[HubLine]:
    """As ``Bench.line``, with the session in a hub."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> Line:
            chosen: dict[str, Any] = {
                "speed": "lockstep",
                "conflation_ms": 0,
                "autostart": False,
                "pacing": "off",
            } | settings
            emulator = stack.enter_context(EmulatorThread(EmulatorSettings(**chosen)))
            control = stack.enter_context(contextlib.closing(ControlClient(emulator.control)))
            clock = ManualClock(int(control.get("/state")["now_ns"]))
            hub = HubThread(
                SessionSettings(base_url=emulator.url, paced=False, reconnect_first_s=0.01),
                HubSettings(endpoint=f"ipc://{tmp_path}/hub", beat_s=0.2, dead_s=5.0),
                clock=clock,
                journal=JournalInMemory("tests"),
            )
            stack.enter_context(hub)
            store = IBKRStore(
                hub=HubAddress(endpoint=hub.endpoint, name="scripted"), clock=clock, bar_grace_s=0.0
            )
            stack.enter_context(store)
            return Line(emulator, control, clock, store)

        yield make


def trade(strategy: Any) -> None:
    """In and out: at the market, by a bracket, at a limit that a change makes good."""
    turn, strategy.turns = strategy.turns, strategy.turns + 1
    price = strategy.data.close[0]
    if turn % 5 == 0:
        strategy.orders.extend(
            strategy.buy_bracket(
                size=10, exectype=0, limitprice=round(price + 0.05, 2), stopprice=round(price - 0.05, 2)
            )
        )
    elif turn % 5 == 2:
        strategy.orders.append(strategy.sell(size=3))
    elif turn % 5 == 3:
        strategy.orders.append(strategy.buy(size=3, exectype=2, price=round(price - 0.02, 2)))


def executions(run: Run) -> list[tuple[Any, ...]]:
    return [
        (one["time_ns"], one["side"], one["quantity"], one["price"], one["commission"])
        for one in run.ledger["executions"]
    ]


def test_the_same_executions(
    bench: Bench, hub_line: HubLine, tape: type[Tape], path: Callable[[Mapping[int, float]], Any]
) -> None:
    made = tape().every_second(900, lambda second: 100 + ((second * 7) % 23) / 100)
    market = bench.market(AAPL=made)
    direct = bench.run(bench.line(market=market), trade)
    through = bench.run(hub_line(market=market), trade)
    assert executions(through) == executions(direct)
    assert len(executions(direct)) > 10
    assert through.strategy.frame("AAPL").equals(direct.strategy.frame("AAPL"))
    assert [through.strategy.statuses(one) for one in through.strategy.orders] == [
        direct.strategy.statuses(one) for one in direct.strategy.orders
    ]
    direct.agree()
    assert (
        through.broker.getposition(through.cerebro.datas[0]).size
        == direct.broker.getposition(direct.cerebro.datas[0]).size
    )
    assert through.broker.getcash() == pytest.approx(direct.broker.getcash(), abs=0.005)
