"""The hub's accounts: whose limits, whose position, whose cash; transfers and the kill switch."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.connection.interface import (
    CommissionReported,
    ExecutionReported,
    LedgerChanged,
    OrderFailed,
    OrderPlaced,
)
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import NotArmedError, UsageError
from bt_ibkr.hub.access import Grant
from bt_ibkr.hub.books import Transfer
from bt_ibkr.hub.requests import Halt
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.order import OrderTicket, OrderType, Side
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.risk import RiskLimits
from tests.hub.conftest import ACCOUNT, APPLE, Join, StartHub, Strategy, move

PLAIN: dict[str, Any] = {"allow_no_data": True, "duplicate_window_s": None}


def books(hub: HubThread) -> dict[str, Decimal]:
    """What each book holds of Apple; only what is not 0."""

    async def look() -> Any:
        return hub.server.desk.books()

    found = {}
    for view in hub.loop.call(look()):
        for held in view.holdings:
            if held.conid == APPLE and held.quantity:
                found[view.name] = held.quantity
    return found


def account_holds(emulator: EmulatorThread) -> Decimal:
    positions = emulator.ledger()["accounts"][ACCOUNT]["positions"]
    return Decimal(str(positions.get(str(APPLE), {}).get("quantity", 0)))


def trade(emulator: EmulatorThread, strategy: Strategy, side: Side, quantity: int) -> str:
    """An order that has executed."""
    key = strategy.place(side, quantity)
    strategy.until(lambda: strategy.placed(key) or strategy.of(OrderFailed, key))
    assert not strategy.of(OrderFailed, key), strategy.of(OrderFailed, key)
    move(emulator, 200)
    strategy.until(lambda: sum(e.execution.quantity for e in strategy.of(ExecutionReported, key)) == quantity)
    return key


def refusal(strategy: Strategy, side: Side, quantity: int, **changes: Any) -> str:
    key = strategy.place(side, quantity, **changes)
    strategy.until(lambda: strategy.of(OrderFailed, key) or strategy.placed(key))
    return str(strategy.of(OrderFailed, key)[0].error) if strategy.of(OrderFailed, key) else ""


def mode(hub: HubThread) -> Trading:
    desk = hub.brokerage.desk
    assert desk is not None
    return desk.trading.mode


def two(join: Join) -> tuple[Strategy, Strategy]:
    first, second = join("alpha"), join("beta")
    for one in (first, second):
        one.attach()
        one.follow()
    return first, second


class Limited:
    """A hub with limits: its strategies are closed with it."""

    def __init__(self, start_hub: StartHub, **limits: Any) -> None:
        self.hub = start_hub(risk=RiskLimits(**(PLAIN | limits)))
        self.joined: list[Strategy] = []

    def join(self, name: str) -> Strategy:
        one = Strategy(self.hub.endpoint, name).open()
        self.joined.append(one)
        return one


@pytest.fixture
def limited(start_hub: StartHub) -> Any:
    made: list[Limited] = []

    def make(**limits: Any) -> Limited:
        made.append(Limited(start_hub, **limits))
        return made[-1]

    yield make
    for one in made:
        for strategy in one.joined:
            strategy.connection.close()


def test_a_strategys_limit_is_of_its_book(limited: Any, emulator: EmulatorThread) -> None:
    """What others hold makes its room neither smaller nor larger."""
    one = limited(strategies={"alpha": {"max_position_size": 10}})
    alpha, beta = two(one.join)
    trade(emulator, beta, Side.BUY, 30)
    trade(emulator, alpha, Side.BUY, 10)
    assert "of alpha could become 11 long" in refusal(alpha, Side.BUY, 1)
    trade(emulator, beta, Side.SELL, 60)
    assert account_holds(emulator) == -20
    assert "of alpha could become 11 long" in refusal(alpha, Side.BUY, 1)
    assert books(one.hub) == {"alpha": Decimal(10), "beta": Decimal(-30)}


def test_the_accounts_limit_is_of_all_together(limited: Any, emulator: EmulatorThread) -> None:
    one = limited(max_position_size=20, strategies={"alpha": {"max_position_size": 15}})
    alpha, beta = two(one.join)
    trade(emulator, alpha, Side.BUY, 15)
    text = refusal(beta, Side.BUY, 6)
    assert "could become 21 long" in text
    assert "of beta" not in text
    trade(emulator, beta, Side.BUY, 5)


def test_whoever_holds_something_can_get_rid_of_it(limited: Any, emulator: EmulatorThread) -> None:
    """Only its own position tells what reduces: another's must neither lock it in nor let it out further."""
    one = limited(max_position_size=40)
    alpha, beta = two(one.join)
    trade(emulator, alpha, Side.BUY, 10)
    trade(emulator, beta, Side.SELL, 40)
    state = TradingState(mode=Trading.REDUCING, reason="a test", by="operator", since_ns=1)
    alpha.connection.halt(state, cancel_open=False, flatten=False)
    alpha.until(lambda: mode(one.hub) is Trading.REDUCING)
    # It would bring the account nearer to 0, and opens a position all the same.
    assert "REDUCING" in refusal(alpha, Side.BUY, 5).upper()
    trade(emulator, alpha, Side.SELL, 10)
    assert books(one.hub) == {"beta": Decimal(-40)}


def test_a_transfer_is_told_and_done_once(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    alpha, beta = two(join)
    trade(emulator, alpha, Side.BUY, 10)
    wanted = Transfer(
        account=ACCOUNT, conid=APPLE, source="alpha", target="beta", quantity=Decimal(4), price=50.0
    )
    for _ in range(2):
        alpha.connection._link.call("transfer", wanted, timeout_s=15.0)
    assert books(hub) == {"alpha": Decimal(6), "beta": Decimal(4)}
    beta.until(lambda: beta.of(ExecutionReported))
    (told,) = [event.execution for event in beta.of(ExecutionReported)]
    assert (told.side, told.quantity, told.price) == (Side.BUY, Decimal(4), 50.0)
    alpha.until(lambda: [e for e in alpha.of(ExecutionReported) if e.key is None])
    with pytest.raises(UsageError, match="cannot be moved"):
        alpha.connection._link.call(
            "transfer",
            Transfer(account=ACCOUNT, conid=APPLE, source="alpha", target="beta", quantity=Decimal(7)),
            timeout_s=15.0,
        )


def test_only_an_administrator_moves_positions(start_hub: StartHub) -> None:
    hub = start_hub(strategies={"alpha": Grant()})
    alpha = Strategy(hub.endpoint, "alpha").open()
    wanted = Transfer(account=ACCOUNT, conid=APPLE, source="alpha", target="beta", quantity=Decimal(1))
    with pytest.raises(NotArmedError, match="move positions"):
        alpha.connection._link.call("transfer", wanted, timeout_s=15.0)
    alpha.connection.close()


@pytest.mark.parametrize("sold", [4, 10, 15])
def test_the_kill_switch_closes_every_book(
    hub: HubThread, emulator: EmulatorThread, join: Join, sold: int
) -> None:
    """The account is closed by one order of the difference, each book by its part of it."""
    alpha, beta = two(join)
    trade(emulator, alpha, Side.BUY, 10)
    trade(emulator, beta, Side.SELL, sold)
    state = TradingState(mode=Trading.HALTED, reason="a test", by="operator", since_ns=1)
    alpha.connection.halt(state, cancel_open=True, flatten=True)
    alpha.until(lambda: move(emulator, 20) or account_holds(emulator) == 0)  # type: ignore[func-returns-value]
    alpha.until(lambda: books(hub) == {})
    # Both were told.
    for one, quantity in ((alpha, 10), (beta, -sold)):
        one.until(
            lambda one=one, quantity=quantity: (  # type: ignore[misc]
                quantity
                == -sum(
                    e.execution.quantity * e.execution.side.sign
                    for e in one.of(ExecutionReported)
                    if e.key is None
                )
            )
        )


def test_a_share_of_the_cash(start_hub: StartHub, emulator: EmulatorThread) -> None:
    hub = start_hub(strategies={"alpha": Grant(cash=5000.0), "beta": Grant()})
    alpha, beta = (Strategy(hub.endpoint, name).open() for name in ("alpha", "beta"))
    shown = alpha.attach().ledger
    assert {line.cash for line in shown.values() if line.exchange_rate == 1.0} == {5000.0}
    beta.attach()
    for one in (alpha, beta):
        one.follow()
    trade(emulator, beta, Side.BUY, 7)
    trade(emulator, alpha, Side.BUY, 10)
    alpha.until(lambda: alpha.of(CommissionReported) or alpha.of(ExecutionReported)[-1].execution.commission)
    told = {e.execution.execution_id: e.execution for e in alpha.of(ExecutionReported)}
    told |= {e.execution.execution_id: e.execution for e in alpha.of(CommissionReported)}
    paid = sum(float(e.quantity) * e.price + (e.commission or 0.0) for e in told.values())

    def cash() -> float:
        lines = [line for event in alpha.of(LedgerChanged) for line in event.lines]
        return next((line.cash for line in reversed(lines) if line.exchange_rate == 1.0), 0.0)

    alpha.until(lambda: cash() == pytest.approx(5000.0 - paid))
    for one in (alpha, beta):
        one.connection.close()


def test_attached_twice(emulator: EmulatorThread, join: Join) -> None:
    """The second answer is as the first, and nothing is told twice."""
    alpha = join("alpha")
    first = alpha.attach()
    alpha.follow()
    key = trade(emulator, alpha, Side.BUY, 10)
    second = alpha.attach()
    assert first.epoch == second.epoch
    assert [one.quantity for one in second.positions] == [10]
    waiting = alpha.place(Side.BUY, 1, order_type=OrderType.LIMIT, limit_price=1.0)
    alpha.until(lambda: alpha.placed(waiting))
    assert len(alpha.of(OrderPlaced, waiting)) == 1
    ids = [event.execution.execution_id for event in alpha.of(ExecutionReported, key)]
    assert len(ids) == len(set(ids))


def test_who_may_not_use_an_account_gets_no_preview_in_it(start_hub: StartHub) -> None:
    """A preview tells equity and margin."""
    hub = start_hub(strategies={"alpha": Grant(accounts=("DU7654321",))})
    alpha = Strategy(hub.endpoint, "alpha").open()
    try:
        with pytest.raises(NotArmedError, match="may not use account"):
            alpha.connection.what_if(alpha_ticket())
    finally:
        alpha.connection.close()


def alpha_ticket() -> OrderTicket:
    return OrderTicket(
        account=ACCOUNT,
        contract_id=APPLE,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        quantity=Decimal(1),
        client_order_id="preview",
    )


def test_only_an_administrator_eases_a_halt(start_hub: StartHub) -> None:
    hub = start_hub(strategies={"alpha": Grant()})
    alpha = Strategy(hub.endpoint, "alpha").open()
    link = alpha.connection._link
    try:
        alpha.attach()
        for mode in (Trading.REDUCING, Trading.HALTED):
            wanted = Halt(state=TradingState(mode=mode), cancel_open=False, flatten=False)
            link.call("halt", wanted, timeout_s=15.0)
        eased = Halt(state=TradingState(mode=Trading.REDUCING), cancel_open=False, flatten=False)
        with pytest.raises(NotArmedError, match="may not resume"):
            link.call("halt", eased, timeout_s=15.0)
    finally:
        alpha.connection.close()


def test_a_hub_that_died_before_it_shared_what_the_switch_closed(
    start_hub: StartHub, emulator: EmulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one closes the books: a strategy must not sell once more what was sold."""
    hub = start_hub(tmp_path / "journal")
    alpha = Strategy(hub.endpoint, "alpha").open()
    alpha.attach()
    alpha.follow()
    trade(emulator, alpha, Side.BUY, 10)
    monkeypatch.setattr(hub.server.desk.sharing, "share", lambda *what: None)
    halted = TradingState(mode=Trading.HALTED)
    alpha.connection.halt(halted, cancel_open=True, flatten=True)
    alpha.until(lambda: move(emulator, 20) or books(hub).get("flatten"))  # type: ignore[func-returns-value]
    assert books(hub) == {"alpha": Decimal(10), "flatten": Decimal(-10)}
    alpha.connection.close()
    hub.close()
    assert books(start_hub(tmp_path / "journal")) == {}
