"""Faults 16, 17, 19 and 20: two submit at once; orders that should not be sent, and what becomes of one that is."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pytest

from bt_ibkr.connection.direct import JournalInMemory
from bt_ibkr.emulator.services.session import bodies
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.order import OrderType, TimeInForce
from bt_ibkr.risk import RiskLimits
from tests.connection.conftest import Client, intent, key_of
from tests.faults.placing import by, far
from tests.faults.scene import AAPL, Scene

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape
    from tests.faults.placing import MakeScene
    from tests.faults.scene import Script

Limit, Stop, StopLimit, StopTrail = bt.Order.Limit, bt.Order.Stop, bt.Order.StopLimit, bt.Order.StopTrail
PRICE = {"id": "o163", "text": "The price exceeds the percentage constraint of 3%."}
SIZE = {"id": "o383", "text": "The size exceeds the size limit."}


@pytest.fixture
def scene(bench: Bench, tape: type[Tape], tmp_path: Path) -> MakeScene:
    return lambda **given: Scene(bench, tape, tmp_path / "journal.sqlite", **given)


# -- 16: two at once --------------------------------------------------------------------------------


def test_fault_16_two_strategies_submit_at_once(
    scene: MakeScene, bench: Bench, scripted: type[Any], at_bar: Any
) -> None:
    """Question chains never interleave: the second order leaves once the first is acknowledged."""
    made = scene()
    made.fault("questions", chain=[[PRICE], [SIZE]], count=2)
    made.fault("slow", delay_s=0.03, path="/iserver/*")
    script = at_bar(far)
    made.run = bench.run(
        made.line, script, before=lambda cerebro: cerebro.addstrategy(scripted, script=at_bar(far))
    )
    made.agree()
    asked = [row for row in made.emulator.ledger()["requests"] if row["kind"] in ("place", "reply")]
    assert [row["kind"] for row in asked] == ["place", "reply", "reply"] * 2
    names = [row["client_ids"][0].split(".")[0] for row in made.requests("place")]
    assert sorted(names) == ["scripted", "scripted-2"]
    assert [order.status for order in made.broker.orders] == [bt.Order.Accepted] * 2


def test_fault_16_another_program_submits_at_once(scene: MakeScene) -> None:
    """Nobody keeps the two from coming in between each other: each order stands once all the same."""
    made = scene()
    other = Client(made.emulator, journal=JournalInMemory("other"))

    def script(strategy: Any) -> Script:
        made.fault("questions", chain=[[PRICE], [SIZE]], count=0)
        late = made.fault("http", action="delay", method="POST", path="/iserver/reply/*", delay_s=60, count=0)
        order = far(strategy)
        by(lambda: made.hits(late))
        theirs = {"order_type": OrderType.LIMIT, "limit_price": 90.0, "time_in_force": TimeInForce.DAY}
        other.connection.place((intent(1, other.epoch, contract_id=AAPL, **theirs),), other.mailbox)
        by(lambda: made.hits(late) == 2)
        made.clear(late)
        yield lambda: order.status == bt.Order.Accepted
        other.until(lambda: other.placed(1))

    other.open()
    try:
        other.attach()
        made.play(script)
    finally:
        other.connection.close()
    made.agree()
    assert made.emulator.ledger()["by_client_id"][key_of(1, "other")] == 1
    assert len(made.orders()) == 2


# -- 17: closed market, size below the lot, price off the tick -----------------------------------------


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"size": 0.5}, "size"),
        ({"size": 10, "exectype": Limit, "price": 90.003}, "tick"),
        ({"size": 10, "exectype": Stop, "price": 110.0001}, "tick"),
    ],
    ids=["lot", "limit off the tick", "stop off the tick"],
)
def test_fault_17_refused_before_it_is_sent(
    scene: MakeScene, monkeypatch: pytest.MonkeyPatch, order: dict[str, Any], words: str
) -> None:
    """One Rejected that says why; the journal has no order, and IBKR has seen no request."""
    # An account that takes fractions may be sent half a share; here is none.
    monkeypatch.setitem(bodies._PROPERTIES, "supportsFractions", False)
    made = scene()

    def script(strategy: Any) -> Script:
        placed = strategy.buy(**order)
        yield
        assert strategy.statuses(placed) == ["Submitted", "Rejected"]
        assert words in strategy.clones[-1].info.reason.lower()

    made.play(script, broker={"round_prices": False})
    assert made.recorded() == ({}, [])
    assert made.requests("place") == []


@pytest.mark.parametrize(
    "order",
    [{"size": 0.5}, {"size": 10, "exectype": Limit, "price": 90.003}],
    ids=["lot", "tick"],
)
def test_fault_17_refused_by_ibkr(scene: MakeScene, order: dict[str, Any]) -> None:
    """Without the check of our own: one Rejected with IBKR's words, and no second attempt."""
    made = scene(store={"risk": RiskLimits(check_tick=False, check_lot=False)})

    def script(strategy: Any) -> Script:
        placed = strategy.buy(**order)
        yield
        assert strategy.statuses(placed) == ["Submitted", "Rejected"]
        assert "does not conform to the minimum" in strategy.clones[-1].info.reason

    made.play(script, broker={"round_prices": False})
    made.agree()
    assert [one["outcome"] for one in made.requests("place")] == ["refused"]


def test_fault_17_the_market_is_open(scene: MakeScene) -> None:
    """Where only an open market is traded in, IBKR's own schedule says whether it is."""
    made = scene(store={"risk": RiskLimits(only_when_open=True)})

    def script(strategy: Any) -> Script:
        placed = strategy.buy(size=10)
        yield
        assert strategy.statuses(placed)[-1].split()[0] in ("Accepted", "Completed")

    made.play(script)


def test_fault_17_the_market_is_closed(scene: MakeScene) -> None:
    """Nothing leaves where only an open market is traded in, and it is not known to be open."""
    made = scene(store={"risk": RiskLimits(only_when_open=True)})
    made.fault("http", action="status", path="/contract/trading-schedule", count=0)

    def script(strategy: Any) -> Script:
        placed = strategy.buy(size=10)
        yield
        assert strategy.statuses(placed) == ["Submitted", "Rejected"]
        assert "hours" in strategy.clones[-1].info.reason

    made.play(script)
    assert made.recorded() == ({}, [])
    assert made.requests("place") == []


# -- 19: a halt -----------------------------------------------------------------------------------------


def test_fault_19_an_order_in_a_halted_contract(scene: MakeScene) -> None:
    """Refused by the policy, and told; traded again once the halt is over."""
    made = scene()

    def script(strategy: Any) -> Script:
        made.do("halt", conid=AAPL, on=True)
        yield 5
        refused = strategy.buy(size=10)
        yield
        assert strategy.statuses(refused) == ["Submitted", "Rejected"]
        assert "halt" in strategy.clones[-1].info.reason
        assert made.requests("place") == []
        made.do("halt", conid=AAPL, on=False)
        yield 5
        order = strategy.buy(size=10)
        yield lambda: order.status == bt.Order.Completed

    made.play(script)
    assert len(made.requests("place")) == len(made.recorded()[0]) == 1
    assert made.position == 10


def test_fault_19_parked_until_the_halt_is_over(scene: MakeScene) -> None:
    """Where it is allowed the order waits at IBKR, and executes once."""
    made = scene(store={"risk": RiskLimits(allow_halted=True)})

    def script(strategy: Any) -> Script:
        made.do("halt", conid=AAPL, on=True)
        yield 5
        order = strategy.buy(size=10)
        yield 5
        assert strategy.statuses(order) == ["Submitted", "Accepted"]
        made.do("halt", conid=AAPL, on=False)
        yield 5
        assert order.status == bt.Order.Completed

    made.play(script)
    made.agree()


# -- 20: what is no number --------------------------------------------------------------------------------

NO_SIZES = [math.nan, math.inf, -math.inf, 0, 0.0, "ten", "", None, True, [], Decimal("NaN"), 1e300]
NO_PRICES = [math.nan, math.inf, -math.inf, "100", "", True, [], Decimal("NaN")]


def test_fault_20_no_numbers(scene: MakeScene) -> None:
    """Refused where the strategy calls, before journal and wire."""
    made = scene()

    def script(strategy: Any) -> Script:
        call = {"owner": strategy, "data": strategy.data}
        for size in NO_SIZES:
            with pytest.raises(OrderRefusedError):
                made.broker.buy(**call, size=size)
        for price in NO_PRICES:
            for kind in (Limit, Stop):
                with pytest.raises(OrderRefusedError):
                    made.broker.sell(**call, size=10, exectype=kind, price=price)
            with pytest.raises(OrderRefusedError):
                made.broker.buy(**call, size=10, exectype=StopLimit, price=101.0, plimit=price)
        for price in NO_PRICES:
            with pytest.raises(OrderRefusedError):
                made.broker.sell(**call, size=10, exectype=StopTrail, price=99.0, trailamount=price)
        for price in (0, -5.0):
            with pytest.raises(OrderRefusedError):
                made.broker.buy(**call, size=10, exectype=Limit, price=price)
        yield
        assert made.broker.get_orders_open() == []

    made.play(script)
    assert made.recorded() == ({}, [])
    assert made.requests("place") == []
