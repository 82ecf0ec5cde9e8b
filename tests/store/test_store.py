"""The store: one session, one place to wait, and the order in which things are told."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import SessionError, UsageError
from bt_ibkr.store import IBKRStore

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape


def market(bench: Bench, tape: type[Tape], seconds: int = 240) -> Any:
    return bench.market(AAPL=tape().every_second(seconds, lambda s: 100.0))


def test_stores_are_no_singletons(bench: Bench, tape: type[Tape]) -> None:
    files = market(bench, tape)
    first, second = bench.line(market=files), bench.line(market=files)
    assert first.store is not second.store
    # Two runs in one process, one after the other, each with a store of its own.
    for line in (first, second):
        assert len(bench.run(line).strategy.rows["AAPL"]) == 4


def test_account_is_the_logins_or_the_one_asked_for(bench: Bench, tape: type[Tape]) -> None:
    files = market(bench, tape)
    line = bench.line(market=files, accounts=("DU1", "DU2"), store={"account": "DU2"})
    with pytest.raises(SessionError, match="not been started"):
        _ = line.store.account
    line.store.start()
    assert line.store.account == "DU2"
    wrong = bench.line(market=files, accounts=("DU1", "DU2"), store={"account": "DU3"})
    with pytest.raises(UsageError, match="'DU3' is not one of this login's: DU1, DU2"):
        wrong.store.start()


def test_orders_go_to_the_account_asked_for(bench: Bench, tape: type[Tape], at_bar: Any) -> None:
    line = bench.line(market=market(bench, tape), accounts=("DU1234567", "DU2"), store={"account": "DU2"})
    run = bench.run(line, at_bar(lambda s: s.buy(size=10)))
    (order,) = run.line.emulator.call(lambda server: server.core.engine.orders())
    assert order.spec.account == "DU2"
    assert run.strategy.orders[0].status == bt.Order.Completed
    assert run.broker.getcash() == pytest.approx(
        float(run.ledger["accounts"]["DU2"]["cash"]["USD"]), abs=0.005
    )


def test_closed_store_is_not_opened_again(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=market(bench, tape))
    with line.store:
        line.store.start()
    line.store.close()
    with pytest.raises(SessionError, match="connection is closed"):
        line.store.connection.accounts()
    unused = bench.line(market=market(bench, tape)).store
    unused.close()
    with pytest.raises(SessionError, match="was closed"):
        unused.start()


def test_the_servers_address_alone_is_completed(bench: Bench, tape: type[Tape]) -> None:
    """As a browser's page of the gateway shows it; what is another path is refused, not tried."""
    server = bench.line(market=market(bench, tape)).emulator.url.removesuffix("/v1/api")
    for address in (server, f"{server}/", f"{server}/v1/api/"):
        with IBKRStore(gateway=address) as store:
            store.start()
            assert store.account
    with pytest.raises(UsageError, match="does not end in /v1/api"):
        IBKRStore(gateway=f"{server}/v1/portal")


def test_settings_and_their_shorthand_do_not_mix() -> None:
    with pytest.raises(UsageError, match="beside"):
        IBKRStore(insecure=True, settings=SessionSettings())


def test_exception_in_the_strategy_leaves_a_store_that_closes(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=market(bench, tape))

    def fail(strategy: Any) -> None:
        raise RuntimeError("the strategy's own")

    with pytest.raises(RuntimeError, match="the strategy's own"):
        bench.run(line, fail)
    assert line.emulator.call(lambda server: len(server.core.hub.connections)) <= 1
    assert not [t.name for t in threading.enumerate() if t.name == "ibkr-session"]


def test_interrupt_ends_the_wait_from_another_thread(bench: Bench, tape: type[Tape]) -> None:
    """Nothing moves the market: the run waits, and an interrupt ends it in order."""
    line = bench.line(market=market(bench, tape))
    took: list[float] = []

    def arm(cerebro: Any) -> None:
        waiting = threading.Event()

        def idle(horizon_ns: int) -> bool:
            waiting.set()
            return False

        line.store.set_idle_hook(idle)

        def stop() -> None:
            assert waiting.wait(10)
            took.append(time.monotonic())
            cerebro.runstop()
            line.store.interrupt()

        threading.Thread(target=stop).start()

    run = bench.run(line, before=arm, drive=False)
    assert run.strategy.rows["AAPL"] == []
    assert time.monotonic() - took[0] < 2.0


def test_session_changes_are_told(bench: Bench, tape: type[Tape]) -> None:
    line = bench.line(market=market(bench, tape))

    def notice(strategy: Any) -> None:
        if len(strategy) == 2:
            line.control.post("/notice", {"text": "The system restarts tonight."})

    run = bench.run(line, notice)
    told = [
        (message, getattr(args[0], "text", "") or args[0].cause)
        for message, args, _ in run.strategy.messages
        if args
    ]
    assert "streaming" in [message for message, _ in told]
    (text,) = [cause for message, cause in told if message == "notice"]
    assert "The system restarts tonight." in text


def test_orders_fill_at_once_when_the_market_is_silent(bench: Bench, tape: type[Tape]) -> None:
    """A fill is told when it happens, not at the next bar."""
    prices = tape().every_second(61, lambda s: 100.0).trade(600, 100.0)
    line = bench.line(market=bench.market(AAPL=prices))
    told_at: list[int] = []

    def buy(strategy: Any) -> None:
        if not strategy.orders:
            strategy.orders.append(strategy.buy(size=10))

    def note(strategy: Any, order: Any) -> None:
        if order.status == bt.Order.Completed:
            told_at.append(line.clock.now_ns())

    bench.run(line, buy, on_order=note)
    assert told_at == [int(bench.opening(60).timestamp()) * 1_000_000_000]


def test_one_wait_a_cycle_however_many_feeds_are_silent(bench: Bench, tape: type[Tape]) -> None:
    """Three feeds, one of which trades: the number of cycles is that of its bars, not of waits."""
    quiet = tape().quote(0, 49.0, 50.0).trade(1, 50.0)
    lively = tape().every_second(600, lambda s: 100.0)
    line = bench.line(market=bench.market(AAPL=lively, IBM=quiet, SPY=quiet))
    cycles: list[int] = []
    real = line.store.get_notifications

    def counted() -> Any:
        cycles.append(1)
        return real()

    line.store.get_notifications = counted  # type: ignore[method-assign]
    feeds = [{"dataname": name} for name in ("AAPL", "IBM", "SPY")]
    run = bench.run(line, feeds=feeds)
    assert len(run.strategy.rows["AAPL"]) == 10
    assert len(cycles) < 10 + 2 + 12
