"""After a restart: orders of earlier runs go on as orders of this one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import backtrader as bt
import pytest

from bt_ibkr.brokers import ExecType
from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.interface import Difference, OrderChanged, OrderFailed, OrderPlaced, StandingOrder
from bt_ibkr.errors import OrderRefusedError, UsageError
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.order import OrderReport, OrderStatus, OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.model.trading import Trading, TradingState

Limit, Stop = bt.Order.Limit, bt.Order.Stop
CASH = 100_000.0
CANCELLED, SUBMITTED = OrderStatus.CANCELLED, OrderStatus.SUBMITTED
Stages = Callable[..., Any]


def key(number: int, name: str = "p") -> str:
    return f"{name}.00000.{number}"


def standing(number: int, *, side: Side = Side.SELL, kind: OrderType = OrderType.LIMIT, quantity: str = "10",
             executions: Any = (), is_open: bool = True, known: bool = True, status: Any = SUBMITTED,
             name: str = "p", ticket: dict[str, Any] | None = None, **intent: Any) -> StandingOrder:  # fmt: skip
    prices = {
        OrderType.LIMIT: {"limit_price": 105.0},
        OrderType.STOP: {"stop_price": 95.0},
        OrderType.MARKET: {},
    }
    made = OrderTicket(
        **{
            "account": "DU1",
            "contract_id": 1,
            "side": side,
            "order_type": kind,
            "quantity": Decimal(quantity),
            "client_order_id": None if "parent_key" in intent else key(number, name),
            "parent": intent.get("parent_key"),
            **prices.get(kind, {}),
            **(ticket or {}),
        }
    )
    return StandingOrder(
        intent=OrderIntent(key=key(number, name), strategy=name, ticket=made, dataname="X", **intent),
        order_id=str(899 + number) if known else None,
        status=status if known else None,
        executions=tuple(executions),
        open=is_open,
        known=known,
    )


@pytest.fixture
def again(stage: Stages, held: Any) -> Callable[..., Any]:
    """A run that finds standing orders, and a position of 10."""

    def begin(*orders: StandingOrder, position: str = "10", found: Any = None, **given: Any) -> Any:
        scene = stage(**given)
        scene.connection.found = {
            "standing": orders,
            "positions": (held(position),) if Decimal(position) else (),
            "sequences": {"p": 50},
        } | (found or {})
        return scene

    return begin


@pytest.fixture
def hooked(scripted: type[Any]) -> Any:
    """A strategy that is told where it stands."""

    class Hooked(scripted):  # type: ignore[misc]
        def notify_resume(self, resumed: Any) -> None:
            assert not len(self.data)
            assert not hasattr(self, "resumed")
            self.resumed = resumed

    return Hooked


def test_open_order_is_the_strategys_again(again: Any, hooked: Any, says: Any) -> None:
    one = standing(7, info={"why": "target"})
    scene = again(one, strategy=hooked)

    def look(strategy: Any) -> None:
        (order,) = scene.broker.get_orders_open()
        assert strategy.resumed.orders == (order,)
        assert order.owner is strategy
        assert order.data is strategy.data
        assert (order.isbuy(), order.size, order.price, order.exectype) == (False, -10, 105.0, Limit)
        assert order.info["why"] == "target"
        assert order.status == bt.Order.Accepted
        assert order.executed.remsize == -10
        assert scene.broker.client_order_id(order) == key(7)
        assert scene.broker.order_id(order) == "906"
        assert scene.broker.orderstatus(order) == order.brokerstatus() == bt.Order.Accepted
        assert strategy.resumed.positions[strategy.data].size == 10
        scene.connection.later([says.fill(1, "10", 105.0, of=7, side=Side.SELL, order_id="906")])

    strategy = scene.play([look])
    (order,) = strategy.resumed.orders
    # Nothing is told of it before something happens.
    assert strategy.statuses(order) == ["Completed -10"]
    assert scene.position.size == 0
    # The position of before is one trade, and is closed by the order of before.
    assert [(status, size) for status, size, *_ in strategy.trades] == [
        (bt.Trade.Open, 10),
        (bt.Trade.Closed, 0),
    ]
    assert scene.connection.submissions == []
    assert scene.connection.cancels == []


def test_numbers_go_on(again: Any, says: Any) -> None:
    scene = again(standing(7), on_resume="keep")

    def trade(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=1))
        scene.connection.later([OrderPlaced(key(50), "950")])

    scene.play([trade])
    assert scene.connection.submissions[0][0].key == key(50)


def test_executed_part_makes_no_new_trade(again: Any, hooked: Any, says: Any, make_execution: Any) -> None:
    before = make_execution(5, "4", 105.0, side=Side.SELL, order_id="900")
    scene = again(
        standing(1, executions=[before]), strategy=hooked, position="6", found={"executions": (before,)}
    )

    def look(strategy: Any) -> None:
        (order,) = strategy.resumed.orders
        assert order.status == bt.Order.Partial
        assert (order.executed.size, order.executed.price, order.executed.remsize) == (-4, 105.0, -6)
        assert order.executed.comm == 1.0
        assert scene.position.size == 6
        # Replayed by the stream: it is in the position already.
        scene.connection.later(
            [says.fill(5, "4", 105.0, side=Side.SELL)], [says.fill(6, "6", 106.0, side=Side.SELL)]
        )

    strategy = scene.play([look])
    (order,) = strategy.resumed.orders
    assert strategy.statuses(order) == ["Completed -6"]
    assert scene.position.size == 0
    assert order.executed.price == pytest.approx((4 * 105.0 + 6 * 106.0) / 10)
    assert [e.execution_id for _, e in scene.broker.executions] == ["e6"]
    assert [e.execution_id for e in strategy.resumed.executions] == ["e5"]


@pytest.mark.parametrize(
    ("kind", "ticket", "exectype", "shown"),
    [
        (OrderType.MARKET, {}, bt.Order.Market, {}),
        (OrderType.STOP, {}, Stop, {"price": 95.0}),
        (OrderType.STOP_LIMIT, {"stop_price": 95.0, "limit_price": 94.0}, bt.Order.StopLimit,
         {"price": 95.0, "pricelimit": 94.0}),
        (OrderType.TRAIL, {"stop_price": 95.0, "trail_amount": 2.0}, bt.Order.StopTrail,
         {"price": 95.0, "trailamount": 2.0}),
        (OrderType.TRAIL_LIMIT, {"stop_price": 95.0, "limit_price": 94.0, "trail_percent": 1.5},
         bt.Order.StopTrailLimit, {"price": 95.0, "pricelimit": 94.0, "trailpercent": 0.015}),
        (OrderType.MARKET_ON_CLOSE, {"time_in_force": TimeInForce.DAY}, bt.Order.Close, {}),
        (OrderType.MARKET_IF_TOUCHED, {"stop_price": 95.0}, ExecType.MIT, {"price": 95.0}),
        (OrderType.RELATIVE, {"offset": 0.05}, ExecType.REL, {}),
    ],
)  # fmt: skip
def test_every_type_comes_back(
    again: Any, hooked: Any, kind: OrderType, ticket: dict[str, Any], exectype: Any, shown: dict[str, Any]
) -> None:
    scene = again(standing(1, kind=kind, ticket=ticket, trade_id=3), strategy=hooked)
    strategy = scene.play([])
    (order,) = strategy.resumed.orders
    assert order.exectype == exectype
    assert type(order.exectype) is type(exectype)
    assert order.tradeid == 3
    for name, value in shown.items():
        assert getattr(order, name) == getattr(order.created, name) == value
    assert order.clone().alive()


def test_order_that_ended_meanwhile_is_told_but_not_open(
    again: Any, hooked: Any, make_execution: Any
) -> None:
    filled = make_execution(1, "10", 105.0, side=Side.SELL)
    scene = again(
        standing(1, is_open=False, status=OrderStatus.FILLED, executions=[filled]),
        standing(2, is_open=False, status=CANCELLED, kind=OrderType.STOP),
        standing(3, is_open=False, status=OrderStatus.FAILED),
        strategy=hooked,
        position="0",
    )
    strategy = scene.play([])
    assert strategy.resumed.orders == ()
    assert [o.getstatusname() for o in strategy.resumed.ended] == ["Completed", "Canceled", "Rejected"]
    assert strategy.resumed.ended[0].executed.size == -10
    assert not scene.broker.get_orders_open()
    assert not strategy.clones


def test_order_of_unknown_outcome_stays_submitted_until_it_is_known(
    again: Any, hooked: Any, says: Any
) -> None:
    scene = again(standing(1, known=False), standing(2, known=False), strategy=hooked)

    def look(strategy: Any) -> None:
        first, second = strategy.resumed.orders
        assert strategy.resumed.unknown == (first, second)
        assert first.status == second.status == bt.Order.Submitted
        assert len(scene.broker.problems) == 2
        scene.connection.later(
            [OrderPlaced(key(1), "900")], [OrderFailed(key(2), OrderRefusedError("proven not to stand"))]
        )

    strategy = scene.play([look])
    first, second = strategy.resumed.orders
    assert strategy.statuses(first) == ["Accepted"]
    assert strategy.statuses(second) == ["Rejected"]
    assert scene.broker.problems == []
    assert scene.connection.submissions == []


def test_order_that_never_left_is_rejected_and_not_sent(again: Any, hooked: Any, says: Any) -> None:
    scene = again(standing(1, is_open=False, known=False), strategy=hooked)

    def appear(strategy: Any) -> None:
        (order,) = strategy.resumed.ended
        assert (order.getstatusname(), scene.broker.problems) == ("Rejected", [])
        assert "never reached" in order.info["reason"]
        assert scene.connection.submissions == []
        # It stands after all, and nobody of this run placed it.
        scene.connection.later([OrderPlaced(key(1), "900")])

    scene.play([appear])
    assert scene.connection.cancels == [key(1)]


# -- what happens without the hook -----------------------------------------------------------------


def test_by_default_entries_are_cancelled_and_what_protects_is_kept(again: Any, says: Any) -> None:
    scene = again(
        standing(1, side=Side.BUY, ticket={"limit_price": 90.0}),
        standing(2, kind=OrderType.STOP),
        standing(3, kind=OrderType.STOP, quantity="11"),
    )

    def look(strategy: Any) -> None:
        assert scene.connection.cancels == [key(1), key(3)]
        assert [m for m, *_ in strategy.messages] == ["order-cancelled-on-resume"] * 2
        assert len(scene.broker.get_orders_open()) == 3
        scene.connection.later(
            [says.status(CANCELLED, "0", of=1)], [says.status(CANCELLED, "0", of=3, order_id="902")]
        )

    strategy = scene.play([look])
    (kept,) = scene.broker.get_orders_open()
    assert scene.broker.client_order_id(kept) == key(2)
    assert [clone.getstatusname() for clone in strategy.clones if not clone.p.simulated] == ["Canceled"] * 2


def test_orders_that_only_together_would_turn_the_position_are_not_all_kept(again: Any) -> None:
    scene = again(standing(1, quantity="6"), standing(2, quantity="6"), standing(3, quantity="4"))
    scene.play([])
    # 6 and 4 close the 10; another 6 would sell short.
    assert scene.connection.cancels == [key(2)]


def test_members_of_a_group_count_once(again: Any) -> None:
    scene = again(standing(1), standing(2, kind=OrderType.STOP, group=key(1)))
    scene.play([])
    assert scene.connection.cancels == []


def test_unfilled_bracket_goes_with_its_parent_alone(again: Any) -> None:
    scene = again(
        standing(1, side=Side.BUY, ticket={"limit_price": 90.0}),
        standing(2, kind=OrderType.STOP, parent_key=key(1)),
        standing(3, parent_key=key(1)),
        position="0",
    )
    strategy = scene.play([])
    # IBKR takes the children along.
    assert scene.connection.cancels == [key(1)]
    parent, stop, target = scene.broker.get_orders_open()
    assert stop.p.parent is parent
    assert target.parent is parent
    assert [args[0].ref for m, args, _ in strategy.messages if m == "order-cancelled-on-resume"] == [
        parent.ref, stop.ref, target.ref,
    ]  # fmt: skip


def test_children_of_a_filled_bracket_are_kept(again: Any, make_execution: Any) -> None:
    entry = make_execution(1, "10", 100.0)
    scene = again(
        standing(1, side=Side.BUY, is_open=False, status=OrderStatus.FILLED, executions=[entry]),
        standing(2, kind=OrderType.STOP, parent_key=key(1)),
        standing(3, parent_key=key(1)),
    )
    scene.play([])
    assert scene.connection.cancels == []
    assert len(scene.broker.get_orders_open()) == 2


@pytest.mark.parametrize(("policy", "cancels"), [("keep", []), ("cancel", [key(1), key(2)])])
def test_policies(again: Any, hooked: Any, policy: str, cancels: list[str]) -> None:
    for strategy in (None, hooked):
        given = {} if strategy is None else {"strategy": strategy}
        scene = again(standing(1, side=Side.BUY), standing(2, kind=OrderType.STOP), on_resume=policy, **given)
        run = scene.play([])
        assert scene.connection.cancels == cancels
        if strategy is not None:
            assert [scene.broker.client_order_id(o) for o in run.resumed.cancelled] == cancels


def test_unknown_policy_is_refused(stage: Stages) -> None:
    with pytest.raises(UsageError, match="on_resume='hope'"):
        stage(on_resume="hope")


# -- expiry and groups ---------------------------------------------------------------------------------


def test_expiry_goes_on(again: Any, hooked: Any, says: Any) -> None:
    from tests.brokers.conftest import START_NS

    late, soon = START_NS + 500 * NS_PER_S, START_NS - NS_PER_S
    scene = again(standing(1, expires_ns=late), standing(2, expires_ns=soon), strategy=hooked)

    def look(strategy: Any) -> None:
        # Its time passed while nobody watched.
        assert scene.connection.cancels == [key(2)]
        scene.connection.later([says.status(CANCELLED, "0", of=2, order_id="901")])
        scene.connection.tick(400, 100.0)

    def wait(strategy: Any) -> None:
        assert scene.connection.cancels == [key(2)]
        scene.connection.tick(501, 100.0)

    def expired(strategy: Any) -> None:
        assert scene.connection.cancels == [key(2), key(1)]
        scene.connection.later([says.status(CANCELLED, "0", of=1)])

    strategy = scene.play([look, wait, expired])
    assert [o.getstatusname() for o in strategy.resumed.orders] == ["Expired", "Expired"]


def test_group_goes_on(again: Any, hooked: Any, says: Any) -> None:
    # The first does not know of the group that is named after it.
    scene = again(standing(1), standing(2, kind=OrderType.STOP, group=key(1)), strategy=hooked)

    def fill(strategy: Any) -> None:
        assert scene.connection.cancels == []
        scene.connection.later([says.fill(1, "10", 105.0, side=Side.SELL)])

    scene.play([fill])
    assert scene.connection.cancels == [key(2)]


@pytest.mark.parametrize("how", ["ended", "executed in part", "gone"])
def test_member_that_was_executed_while_nobody_watched_cancels_the_others(
    again: Any, hooked: Any, make_execution: Any, how: str
) -> None:
    some = make_execution(1, "4", 105.0, side=Side.SELL)
    first = {
        "ended": [standing(1, is_open=False, status=CANCELLED)],
        "executed in part": [standing(1, executions=[some])],
        "gone": [],
    }[how]
    scene = again(*first, standing(2, kind=OrderType.STOP, group=key(1)), strategy=hooked)
    scene.play([])
    assert scene.connection.cancels == [key(2)]


def test_new_order_can_join_a_group_of_before(again: Any, hooked: Any, says: Any) -> None:
    scene = again(standing(1), strategy=hooked)

    def join(strategy: Any) -> None:
        (first,) = strategy.resumed.orders
        strategy.orders.append(strategy.sell(size=10, exectype=Stop, price=95.0, oco=first))
        scene.connection.later([OrderPlaced(key(50), "950")], [says.fill(1, "10", 105.0, side=Side.SELL)])

    scene.play([join])
    assert scene.connection.cancels == [key(50)]


def test_order_of_before_can_be_changed_and_cancelled(again: Any, hooked: Any) -> None:
    scene = again(standing(1), strategy=hooked)

    def act(strategy: Any) -> None:
        (order,) = strategy.resumed.orders
        strategy.broker.modify(order, price=104.0, valid=timedelta(hours=1))
        ((name, ticket),) = scene.connection.changes
        assert (name, ticket.limit_price, ticket.client_order_id) == (key(1), 104.0, key(1))
        strategy.cancel(order)

    scene.play([act])
    assert scene.connection.cancels == [key(1)]


# -- orders that nobody takes over ---------------------------------------------------------------------


def test_orders_of_other_strategies_are_left_alone_but_for_their_expiry_and_groups(
    again: Any, hooked: Any, says: Any
) -> None:
    from tests.brokers.conftest import START_NS

    scene = again(
        standing(1, name="other", expires_ns=START_NS + 300 * NS_PER_S),
        standing(2, name="other"),
        standing(3, name="other", kind=OrderType.STOP, group=key(2, "other")),
        strategy=hooked,
        on_resume="cancel",
    )

    def look(strategy: Any) -> None:
        assert strategy.resumed.orders == strategy.resumed.unfollowed == ()
        assert scene.broker.get_orders_open() == []
        assert scene.connection.cancels == []
        scene.connection.tick(300, 100.0)

    def fill(strategy: Any) -> None:
        assert scene.connection.cancels == [key(1, "other")]
        execution = says.fill(1, "10", 105.0, side=Side.SELL).execution
        scene.connection.later([type(says.fill(1, "1"))(execution, key(2, "other"))])

    def end(strategy: Any) -> None:
        assert scene.connection.cancels == [key(1, "other"), key(3, "other")]
        report = OrderReport(order_id="901", account="DU1", status=OrderStatus.FILLED)
        scene.connection.later([OrderChanged(report, key(2, "other"))])

    strategy = scene.play([look, fill, end])
    assert scene.position.size == 0
    assert [m for m, *_ in strategy.messages] == ["external-execution"]


def test_order_in_an_instrument_without_a_feed(again: Any, hooked: Any, scripted: Any, held: Any) -> None:
    elsewhere = standing(1, side=Side.BUY, ticket={"contract_id": 77})
    protects = standing(2, kind=OrderType.STOP, ticket={"contract_id": 78})
    positions = {"positions": (held("10", conid=78),)}
    scene = again(elsewhere, protects, strategy=hooked, found=positions)
    strategy = scene.play([])
    assert [s.intent.key for s in strategy.resumed.unfollowed] == [key(1), key(2)]
    assert scene.connection.cancels == []
    # Without the hook the same rule holds for it: an entry goes, a stop stays.
    scene = again(elsewhere, protects, found=positions)
    scene.play([])
    assert scene.connection.cancels == [key(1)]


def test_differences_and_the_trading_state_are_told(again: Any, hooked: Any) -> None:
    difference = Difference(
        kind="position", subject="X", recorded="5", reported="10", text="The record had 5, IBKR has 10."
    )
    halted = TradingState(mode=Trading.HALTED, reason="loss", by="command line", since_ns=1)
    scene = again(strategy=hooked, found={"differences": (difference,), "trading": halted})
    strategy = scene.play([])
    assert strategy.resumed.differences == (difference,)
    assert scene.broker.trading_state == halted
    assert [(m, args[0]) for m, args, _ in strategy.messages] == [
        ("trading-changed", halted), ("position-difference", difference),
    ]  # fmt: skip
    # Not traded away.
    assert scene.connection.submissions == []


def test_without_anything_before_the_hook_is_called_all_the_same(again: Any, hooked: Any) -> None:
    scene = again(strategy=hooked, position="0")
    strategy = scene.play([])
    resumed = strategy.resumed
    assert (resumed.orders, resumed.ended, resumed.executions, resumed.differences) == ((), (), (), ())
    assert resumed.positions[strategy.data].size == 0


def test_two_strategies_of_a_class_get_their_own_orders(again: Any, hooked: Any) -> None:
    scene = again(standing(1, name="hooked"), standing(1, name="hooked-2", kind=OrderType.STOP), strategy=hooked,
                  name=None)  # fmt: skip
    scene.cerebro.addstrategy(hooked)
    runs: list[Any] = []
    scene.cerebro.addanalyzer(bt.Analyzer)

    def look(strategy: Any) -> None:
        runs.extend(scene.cerebro.runningstrats)

    scene.play([look])
    first, second = runs
    assert [o.exectype for o in first.resumed.orders] == [Limit]
    assert [o.exectype for o in second.resumed.orders] == [Stop]
    assert second.resumed.orders[0].owner is second
