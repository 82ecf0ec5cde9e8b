"""The same strategy, direct and through the hub, in lockstep on the same market: the same executions.

Also where the network between strategy and hub loses messages on both channels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
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
from tests.hub.losing import Losing

#: Share of the messages that are lost, each way.
LOST = 0.1
HubLine = Callable[..., Line]


@pytest.fixture
def hub_line(tmp_path: Path) -> Iterator[HubLine]:
    """As ``Bench.line``, with the session in a hub; ``losing`` gets what stands between, if a seed is given."""
    with contextlib.ExitStack() as stack:

        def make(seed: int | None = None, losing: list[Losing] | None = None, **settings: Any) -> Line:
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
                # A lost message is missed by the beats after it.
                HubSettings(
                    endpoint=f"ipc://{tmp_path}/hub", beat_s=0.2 if seed is None else 0.02, dead_s=10.0
                ),
                clock=clock,
                journal=JournalInMemory("tests"),
            )
            stack.enter_context(hub)
            endpoint = hub.endpoint
            if seed is not None:
                ends = (f"ipc://{tmp_path}/losing", hub.endpoint, hub.server.ticks)
                between = stack.enter_context(Losing(*ends, seed=seed, share=LOST))
                endpoint = between.endpoint
                if losing is not None:
                    losing.append(between)
            store = IBKRStore(
                hub=HubAddress(endpoint=endpoint, name="scripted"), clock=clock, bar_grace_s=0.0
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


def market_of(bench: Bench, tape: type[Tape], seconds: int = 900) -> tuple[str, ...]:
    return bench.market(AAPL=tape().every_second(seconds, lambda second: 100 + ((second * 7) % 23) / 100))


def the_same(through: Run, direct: Run) -> None:
    """Bars, executions, notifications, position and cash."""
    assert executions(through) == executions(direct)
    assert len(executions(direct)) > 5
    # An order that was placed twice would have been counted twice.
    assert sorted(through.ledger["by_client_id"].values()) == sorted(direct.ledger["by_client_id"].values())
    assert len(direct.strategy.frame("AAPL")) > 5
    assert through.strategy.frame("AAPL").equals(direct.strategy.frame("AAPL"))
    assert [through.strategy.statuses(one) for one in through.strategy.orders] == [
        direct.strategy.statuses(one) for one in direct.strategy.orders
    ]
    assert (
        through.broker.getposition(through.cerebro.datas[0]).size
        == direct.broker.getposition(direct.cerebro.datas[0]).size
    )
    assert through.broker.getcash() == pytest.approx(direct.broker.getcash(), abs=0.005)


def test_the_same_executions(bench: Bench, hub_line: HubLine, tape: type[Tape]) -> None:
    market = market_of(bench, tape)
    direct = bench.run(bench.line(market=market), trade)
    through = bench.run(hub_line(market=market), trade)
    the_same(through, direct)
    direct.agree()


def whole_though_messages_were_lost(
    bench: Bench, hub_line: HubLine, market: tuple[str, ...], seed: int
) -> Run:
    """A run of which one message in ten was lost each way, ticks too, and which missed nothing."""
    losing: list[Losing] = []
    through = bench.run(hub_line(seed, losing, market=market), trade)
    assert set(losing[0].lost) == {"up", "down", "ticks"}
    assert losing[0].lost["ticks"] > 40
    told = {message for message, _, _ in through.strategy.messages}
    # They were had again; the feed did not have to begin anew.
    assert "filled" in told
    assert "gap" not in told
    assert not through.broker.problems
    return through


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_though_messages_are_lost(
    bench: Bench, hub_line: HubLine, tape: type[Tape], seed: int
) -> None:
    market = market_of(bench, tape, 450)
    through = whole_though_messages_were_lost(bench, hub_line, market, seed)
    the_same(through, bench.run(bench.line(market=market), trade))


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(100, 130))
def test_the_same_though_messages_are_lost_by_seed(
    bench: Bench, hub_line: HubLine, tape: type[Tape], seed: int
) -> None:
    market = market_of(bench, tape)
    through = whole_though_messages_were_lost(bench, hub_line, market, seed)
    the_same(through, bench.run(bench.line(market=market), trade))
