"""Faults 56 to 62: the gateway, and whose session it is."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.connection.interface import OrderChanged, OrderFailed
from bt_ibkr.errors import CompetingError, OrderRefusedError
from tests.connection.conftest import key_of

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape
    from tests.faults.conftest import MakeBed


def test_56_gateway_restart(bed: MakeBed) -> None:
    """Told, orders refused meanwhile as not sent, then all is subscribed and read again."""
    made = bed()
    made.attach()
    contract = made.stream()
    since = made.asked()
    made.fault("restart", down_s=0.4)
    told = made.until_state("disconnected")
    assert not told.connected
    assert told.next_step
    made.buy(contract, 1)
    made.until(lambda: made.of(OrderFailed))
    refused = made.of(OrderFailed)[0].error
    assert isinstance(refused, OrderRefusedError)
    assert "was not sent" in refused.message
    gap = made.back()
    assert {"smd+265598", "sor", "str"} <= set(gap.topics)
    assert gap.start_ns < gap.end_ns
    made.until(lambda: made.count("/iserver/account/orders", since) >= 1)
    assert made.count("/iserver/accounts", since) == 1
    made.moves()
    made.buy(contract, 2)
    made.until(lambda: any(e.key == key_of(2) for e in made.of(OrderChanged)))
    assert made.emulator.call(lambda s: [o.spec.client_order_id for o in s.core.engine.orders()]) == [
        key_of(2)
    ]


def test_56_gateway_restart_seen_by_a_strategy(bench: Bench, tape: type[Tape]) -> None:
    """A feed says CONNBROKEN and LIVE, the store says `disconnected`, `streaming` and `gap`."""
    line = bench.line(market=bench.market(AAPL=tape().every_second(600, lambda s: 100.0)))

    def script(strategy: Any) -> None:
        if len(strategy) == 3:
            line.control.post("/fault", {"kind": "restart", "down_s": 0.2})

    def told(strategy: Any, message: str, args: tuple[Any, ...]) -> None:
        if message == "gap" and args and not strategy.orders:
            strategy.orders.append(strategy.buy(size=10))

    run = bench.run(line, script, on_store=told)
    assert "CONNBROKEN" in run.strategy.told("AAPL")
    told_ = [entry[1] for entry in run.strategy.log if entry[0] == "store"]
    assert told_.index("disconnected") < told_.index("gap")
    assert run.strategy.orders[0].status == bt.Order.Completed
    run.agree()


def test_57_competing_session_takes_over(bed: MakeBed) -> None:
    """Taken back once; then the rival keeps it: no war of log-ins, and the state says so."""
    made = bed(competing="take_over_once")
    rival = made.fault("compete", rematches=5, delay_s=0.0)
    told = made.until_state("competing")
    assert "Another login" in told.cause
    assert not told.connected
    since = made.asked()
    made.until(lambda: made.count("/tickle", since) >= 3)
    assert made.count("/iserver/auth/ssodh/init", since) == 0
    assert made.hits(rival) == 2
    made.clear()
    made.back()


def test_57_yielding_never_takes_it(bed: MakeBed) -> None:
    made = bed(competing="yield")
    rival = made.fault("compete", rematches=5, delay_s=0.0)
    made.until_state("competing")
    since = made.asked()
    made.until(lambda: made.count("/tickle", since) >= 3)
    assert made.count("/iserver/auth/ssodh/init") == 0
    assert made.hits(rival) == 1
    made.clear()
    gap = made.back()
    assert made.states().count("competing") == 1
    assert gap.cause


def test_57_asking_waits_for_the_word(bed: MakeBed) -> None:
    made = bed(competing="ask")
    made.fault("compete", rematches=0)
    made.until_state("competing")
    made.connection.take_over()
    made.back()
    assert made.count("/iserver/auth/ssodh/init") == 1


def test_58_force_compete(bed: MakeBed) -> None:
    """The server's words are shown, and it is asked once, not in a loop."""
    made = bed({"login": "no_bridge"}, opened=False, competing="yield")
    made.fault("force_compete")
    with pytest.raises(CompetingError, match="Force compete capability must be used"):
        made.open()
    assert made.count("/iserver/auth/ssodh/init") == 1


def test_58_force_compete_after_a_break(bed: MakeBed) -> None:
    made = bed(competing="yield")
    made.fault("force_compete")
    made.fault("expire")
    told = made.until_state("competing")
    assert "Force compete capability" in told.cause
    since = made.asked()
    made.until(lambda: made.count("/tickle", since) >= 4)
    # One question an attempt; with the settings of users there is one attempt a minute.
    assert made.count("/iserver/auth/ssodh/init", since) <= made.count("/tickle", since)
    made.clear()
    made.back()


def test_59_connected_but_never_authenticated(bed: MakeBed) -> None:
    """Somebody is told; the brokerage session is asked for, and after many tries the outer one is ended once."""
    made = bed()
    made.fault("init_fails", count=0)
    made.fault("expire")
    told = made.until_state("needs a person")
    assert "log in" in told.next_step
    made.until(lambda: made.count("/logout") == 1)
    since = made.asked()
    made.until(lambda: made.count("/tickle", since) >= 5)
    assert made.count("/logout") == 1
    assert made.states().count("needs a person") == 1
    made.clear()
    made.control.post("/session", {"state": "no_bridge"})
    made.back()


def test_59_pauses_grow_to_a_minute(bed: MakeBed, caplog: pytest.LogCaptureFixture) -> None:
    """With the ceiling that users have, whoever waits for a person looks about once a minute."""
    caplog.set_level(logging.INFO, "bt_ibkr.session.session")
    made = bed(reconnect_first_s=0.01, reconnect_longest_s=30.0)
    made.fault("init_fails", count=0)
    made.fault("expire")
    made.until_state("needs a person")

    def pauses() -> list[float]:
        said = [record.getMessage() for record in caplog.records]
        return [float(text.rpartition("in_s=")[2]) for text in said if text.startswith("session-retry")]

    made.until(lambda: len(pauses()) == 2)
    assert pauses()[1] >= 45.0


def test_60_one_refusal_while_others_work(bed: MakeBed) -> None:
    """Five callers are refused at once: one repair serves them all, and the stream goes on."""
    made = bed()
    made.stream()
    made.forget()
    since = made.asked()
    made.fault("http", action="status", status=401, path="/trsrv/stocks", count=5)
    # The repair lasts until all of them were refused, also on a busy machine.
    made.fault("slow", delay_s=0.5, path="/tickle")

    async def five() -> list[Any]:
        http = made.session.http
        return list(await asyncio.gather(*(http.get("/trsrv/stocks", {"symbols": "AAPL"}) for _ in range(5))))

    assert all("AAPL" in answer for answer in made.on_loop(five))
    assert made.count("/tickle", since) == 1
    assert made.changes() == []
    made.moves()


def test_61_session_id_changes(bed: MakeBed) -> None:
    """A tickle tells another id: primed anew, suppressed anew, and a socket with the new cookie."""
    made = bed(tickle_interval_s=0.05, suppress=("o163",))
    made.stream()
    since, before = made.asked(), made.session._session_seen
    port = made.connection.progress().port
    made.fault("session_id")
    gap = made.back()
    assert gap.topics == ("smd+265598",)
    assert made.session._session_seen not in (None, before)
    assert made.connection.progress().port != port
    for path in ("/iserver/accounts", "/portfolio/accounts", "/iserver/questions/suppress"):
        assert made.count(path, since) == 1, path
    made.moves()


#: Saturday, 2026-03-07, 20:00 in New York; and the Monday after, at noon.
SATURDAY = int(datetime(2026, 3, 8, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
MIDNIGHT = int(datetime(2026, 3, 10, 4, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
NOON = int(datetime(2026, 3, 9, 16, tzinfo=UTC).timestamp()) * 1_000_000_000


def test_62_saturday_is_announced_and_outlived(bed: MakeBed) -> None:
    """In the window an outage wakes nobody up, and the session comes back by itself."""
    made = bed(clock=ManualClock(SATURDAY))
    made.fault("maintenance")
    made.control.post("/fault", {"kind": "ws_reset"})
    told = made.until_state("maintenance")
    assert "weekly maintenance" in told.cause
    since = made.asked()
    made.until(lambda: made.asked() - since >= 4)
    assert made.states().count("maintenance") == 1
    assert "needs a person" not in made.states()
    made.clear()
    made.back()


def test_62_nightly_reset(bed: MakeBed) -> None:
    """Subscriptions end without a word while heartbeats go on: found by the next tickle."""
    made = bed(clock=ManualClock(MIDNIGHT), tickle_interval_s=0.05, suppress=("o163",))
    made.stream()
    since = made.asked()
    made.fault("nightly_reset", then="no_bridge")
    told = made.until_state("maintenance")
    assert "nightly reset" in told.cause
    made.back()
    assert made.count("/iserver/auth/ssodh/init", since) == 1
    assert made.count("/iserver/questions/suppress", since) == 1
    assert "needs a person" not in made.states()
    made.moves()


def test_62_a_break_right_after_a_reset_that_nobody_saw(bed: MakeBed) -> None:
    """The reset ends subscriptions in silence; a socket that breaks before the next tickle does not hide that."""
    clock = ManualClock(MIDNIGHT - 900 * NS_PER_S)
    made = bed(clock=clock)
    made.stream()
    made.fault("nightly_reset", then="no_bridge")
    clock.set_ns(MIDNIGHT)
    made.fault("ws_reset")
    gap = made.back()
    assert gap.start_ns == MIDNIGHT - 900 * NS_PER_S
    assert gap.end_ns >= MIDNIGHT


def test_62_a_break_at_noon_begins_where_it_broke(bed: MakeBed) -> None:
    clock = ManualClock(NOON - 900 * NS_PER_S)
    made = bed(clock=clock)
    made.stream()
    clock.set_ns(NOON)
    made.fault("ws_reset")
    assert made.back().start_ns == NOON


def test_62_after_a_reset_that_wants_a_person(bed: MakeBed) -> None:
    """Outside of the windows a lost login is for a person, and is said to be."""
    made = bed(clock=ManualClock(NOON), tickle_interval_s=0.05)
    made.fault("nightly_reset", then="logged_out")
    told = made.until_state("needs a person")
    assert "browser" in told.next_step
    made.control.post("/session", {"state": "ready"})
    made.back()
