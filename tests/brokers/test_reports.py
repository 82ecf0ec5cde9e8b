"""Reports in every order in which they can come: the book is the same in the end.

The answer to an order, its status and its executions travel on different ways. Only executions change positions.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any

import backtrader as bt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bt_ibkr.connection.interface import CancelFailed, LedgerChanged
from bt_ibkr.errors import OrderRefusedError, OutcomeUnknownError
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import OrderStatus, Side

CASH = 100_000.0
SUBMITTED, FILLED, CANCELLED = OrderStatus.SUBMITTED, OrderStatus.FILLED, OrderStatus.CANCELLED
Stages = Callable[..., Any]
#: What strategies and analyzers of backtrader expect.
LEGAL = {
    "Created": {"Submitted"},
    "Submitted": {"Accepted", "Margin", "Rejected", "Canceled"},
    "Accepted": {"Partial", "Completed", "Canceled"},
    "Partial": {"Partial", "Completed", "Canceled"},
}


def buy(stage: Any, size: float = 10, **more: Any) -> Callable[[Any], None]:
    def action(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=size, **more))

    return action


def told(strategy: Any) -> list[str]:
    return [word for order in strategy.orders for word in strategy.statuses(order)]


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[tuple[str, int]], list[int], bool, list[bool]]:
    """Events of one order of 10 in an order that can happen, its parts, whether it is cancelled, and cuts.

    What can happen: a commission comes after its execution; everything else is free.
    """
    cuts = sorted(draw(st.sets(st.integers(1, 9), max_size=3)))
    parts = [b - a for a, b in zip([0, *cuts], [*cuts, 10], strict=True)]
    cancelled = draw(st.booleans())
    if cancelled:
        parts = parts[:-1]
    late = {n for n in range(len(parts)) if draw(st.booleans())}
    events = [("placed", 0), ("submitted", 0), ("cancelled" if cancelled else "filled", 0)]
    events += [("late fill" if n in late else "fill", n) for n in range(len(parts))]
    events = list(draw(st.permutations(events)))
    for n in late:
        after = events.index(("late fill", n))
        events.insert(draw(st.integers(after + 1, len(events))), ("commission", n))
    return events, parts, cancelled, draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events)))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=stories())
def test_any_order_of_reports_gives_the_same_book(stage: Stages, says: Any, story: Any) -> None:
    events, parts, cancelled, cuts = story
    scene = stage()

    def speak(strategy: Any) -> None:
        (order,) = strategy.orders
        if cancelled:
            strategy.cancel(order)
        said = {
            "placed": lambda n: says.placed(),
            "submitted": lambda n: says.status(SUBMITTED),
            "filled": lambda n: says.status(FILLED, "10"),
            "cancelled": lambda n: says.status(CANCELLED, str(sum(parts))),
            "fill": lambda n: says.fill(n, str(parts[n]), 100.0 + n),
            "late fill": lambda n: says.fill(n, str(parts[n]), 100.0 + n, commission=None),
            "commission": lambda n: says.commission(n, str(parts[n]), 100.0 + n),
        }
        batches: list[list[Any]] = [[]]
        for (kind, number), cut in zip(events, cuts, strict=True):
            batches[-1].append(said[kind](number))
            if cut:
                batches.append([])
        scene.connection.later(*batches)

    def trade_and_speak(strategy: Any) -> None:
        buy(scene)(strategy)
        speak(strategy)

    strategy = scene.play([trade_and_speak])
    (order,) = strategy.orders
    paid = sum(part * (100.0 + n) for n, part in enumerate(parts))
    assert scene.position.size == sum(parts)
    assert scene.broker.getcash() == pytest.approx(CASH - paid - len(parts))
    assert order.executed.size == sum(parts)
    assert order.executed.comm == pytest.approx(len(parts))
    assert order.getstatusname() == ("Canceled" if cancelled else "Completed")
    assert not scene.broker.get_orders_open()
    assert not scene.broker.problems
    words = ["Created", *(word.split()[0] for word in told(strategy))]
    assert all(after in LEGAL[before] for before, after in pairwise(words)), words
    new = [float(word.split()[1]) for word in told(strategy) if " " in word]
    assert sorted(new) == sorted(float(part) for part in parts)


def test_fill_is_not_shown_before_its_commission(stage: Stages, says: Any) -> None:
    scene = stage()
    seen: list[float] = []

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        strategy.p.on_order = lambda s, o: seen.append(o.executed.comm) if o.executed.size else None
        fill = says.fill(1, "10", commission=None)
        scene.connection.later([says.placed()], [fill], [], [], [says.commission(1, "10")])

    scene.play([trade])
    assert seen == [1.0]


def test_what_was_reported_after_a_waiting_fill_waits_with_it(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        strategy.cancel(strategy.orders[0])
        scene.connection.later(
            [says.placed()],
            [says.fill(1, "4", commission=None)],
            [says.status(CANCELLED, "4")],
            [says.commission(1, "4")],
        )

    strategy = scene.play([trade])
    assert told(strategy) == ["Submitted", "Accepted", "Partial 4", "Canceled"]


def test_late_commission_is_added_when_it_comes(stage: Stages, says: Any) -> None:
    scene = stage(commission_wait=0.0)

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        scene.connection.later([says.placed()], [says.fill(1, "10", commission=None)], [], [])

    def look(strategy: Any) -> None:
        assert strategy.orders[0].status == bt.Order.Completed
        assert scene.broker.getcash() == CASH - 1000.0
        scene.connection.later(
            [says.commission(1, "10", commission=2.5)], [says.commission(1, "10", commission=2.5)]
        )

    strategy = scene.play([trade, look])
    assert strategy.orders[0].executed.comm == 2.5
    assert scene.broker.getcash() == CASH - 1002.5
    assert [m for m, *_ in strategy.messages] == ["late-commission"]


def test_foreign_currency_is_counted_in_the_base_currency(stage: Stages, says: Any) -> None:
    scene = stage(commission_wait=0.0, currency="EUR")

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        scene.connection.later([says.placed()], [says.fill(1, "10", commission=None)], [], [])

    def late(strategy: Any) -> None:
        scene.connection.later([says.commission(1, "10", commission=2.0)])

    def early(strategy: Any) -> None:
        assert scene.broker.getcash() == CASH - 1.25 * 1002.0
        buy(scene)(strategy)
        scene.connection.later(
            [says.placed(2, "901")],
            [says.fill(2, "10", commission=2.0, order_id="901", of=2)],
        )

    scene.play([trade, late, early])
    assert scene.broker.getcash() == CASH - 1.25 * 2004.0
    assert scene.broker.getvalue() == pytest.approx(CASH - 1.25 * 4.0)


def test_future_moves_cash_by_its_profit_only(stage: Stages, says: Any) -> None:
    scene = stage(security_type=SecurityType.FUTURE)

    def trade(strategy: Any) -> None:
        buy(scene, 2)(strategy)
        scene.connection.later([says.placed()], [says.fill(1, "2", 100.0, commission=4.0)])

    def close(strategy: Any) -> None:
        assert scene.broker.getcash() == CASH - 4.0
        # The bar's close is 100: nothing won yet.
        assert scene.broker.getvalue() == CASH - 4.0
        strategy.orders.append(strategy.close())
        scene.connection.later(
            [says.placed(2, "901")],
            [says.fill(2, "2", 101.5, side=Side.SELL, commission=4.0, order_id="901", of=2)],
        )

    strategy = scene.play([trade, close])
    assert scene.broker.getcash() == CASH - 8.0 + 2 * 50 * 1.5
    (bit,) = strategy.orders[1].executed.exbits
    assert bit.pnl == 150.0
    closed = [trade for trade in strategy.trades if trade[0] == bt.Trade.Closed]
    assert [(trade[2], trade[3]) for trade in closed] == [(150.0, 142.0)]


def test_fractions_complete(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene, 0.3)(strategy)
        fills = [says.fill(n, "0.1") for n in range(3)]
        scene.connection.later([says.placed()], fills)

    strategy = scene.play([trade])
    assert told(strategy)[-1] == "Completed 0.1"
    assert strategy.orders[0].executed.remsize == 0
    assert scene.position.size == 0.3


def test_fractions_that_cancel_out_leave_nothing(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene, 0.3)(strategy)
        scene.connection.later(
            [says.placed()],
            [says.fill(1, "0.3")],
            # Another client sells it in thirds.
            [says.fill(n, "0.1", order_id="1", of=None, side=Side.SELL) for n in (2, 3, 4)],
        )

    scene.play([trade])
    assert scene.position.size == 0
    assert scene.position.price == 0.0


def test_foreign_execution_while_an_answer_is_awaited(stage: Stages, says: Any) -> None:
    """It might have been a child of our bracket; when the answer shows that it is not, it counts all the same."""
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        scene.connection.later([says.fill(9, "7", order_id="555", of=None)], [says.placed()])

    strategy = scene.play([trade])
    assert scene.position.size == 7
    assert [m for m, *_ in strategy.messages] == ["external-execution"]


def test_foreign_execution_while_a_refusal_is_awaited(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        refused = says.failed(OrderRefusedError("no"))
        scene.connection.later([says.fill(9, "7", order_id="555", of=None)], [refused])

    strategy = scene.play([trade])
    assert scene.position.size == 7
    assert told(strategy) == ["Submitted", "Rejected"]


def test_child_that_executes_before_its_id_is_known(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders = strategy.buy_bracket(
            size=10, exectype=bt.Order.Market, stopprice=99.0, limitprice=101.0
        )
        scene.connection.later(
            [says.fill(1, "10"), says.fill(2, "10", 99.0, order_id="901", of=2, side=Side.SELL)],
            [says.status(CANCELLED, "0", order_id="902", of=3)],
            [says.placed(1, "900"), says.placed(2, "901"), says.placed(3, "902")],
        )

    strategy = scene.play([trade])
    assert [order.getstatusname() for order in strategy.orders] == ["Completed", "Completed", "Canceled"]
    assert scene.position.size == 0
    assert scene.broker.getcash() == CASH - 10.0 - 2.0


def test_children_carry_their_parents_reference_and_none_of_their_own(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders = strategy.buy_bracket(
            size=10, exectype=bt.Order.Market, stopprice=99.0, limitprice=101.0
        )
        scene.connection.later([says.placed(n, str(899 + n)) for n in range(1, len(strategy.orders) + 1)])

    scene.play([trade])
    ((entry, stop, limit),) = ([s.ticket for s in group] for group in scene.connection.submissions)
    assert (entry.client_order_id, entry.parent) == ("p.00000.1", None)
    assert [(t.client_order_id, t.parent) for t in (stop, limit)] == [(None, "p.00000.1")] * 2
    assert [t.quantity for t in (entry, stop, limit)] == [Decimal(10)] * 3


def test_outcome_that_is_not_known_is_not_guessed(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        scene.connection.later([says.failed(OutcomeUnknownError("the answer was lost"))])

    def look(strategy: Any) -> None:
        assert strategy.orders[0].status == bt.Order.Submitted
        assert len(scene.broker.get_orders_open()) == 1
        assert scene.broker.problems == ["the answer was lost"]
        # The stream tells at last.
        scene.connection.later([says.status(SUBMITTED)], [says.fill(1, "10")])

    strategy = scene.play([trade, look])
    assert told(strategy) == ["Submitted", "Accepted", "Completed 10"]
    # Nothing is left to be looked at.
    assert scene.broker.problems == []
    assert len(scene.connection.submissions) == 1


def test_order_can_be_cancelled_before_it_has_an_id(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        strategy.cancel(strategy.orders[0])
        # Known by its key: whoever sends it waits for its id.
        assert scene.connection.cancels == ["p.00000.1"]
        assert strategy.orders[0].status == bt.Order.Submitted
        scene.connection.later([says.placed()])

    def answer(strategy: Any) -> None:
        scene.connection.later([says.status(CANCELLED, "0")])

    assert told(scene.play([trade, answer])) == ["Submitted", "Accepted", "Canceled"]


def test_refused_cancellation_can_be_asked_again(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        scene.connection.later([says.placed()])

    def cancel(strategy: Any) -> None:
        strategy.cancel(strategy.orders[0])
        scene.connection.later([CancelFailed("p.00000.1", OrderRefusedError("not now"))])

    strategy = scene.play([trade, cancel, cancel])
    assert scene.connection.cancels == ["p.00000.1"] * 2
    assert [m for m, *_ in strategy.messages] == ["cancel-failed", "cancel-failed"]
    assert strategy.orders[0].alive()


def test_system_cancellation_tells_its_reason(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        scene.connection.later([says.placed()], [says.status(CANCELLED, "0", reason="No shares to borrow")])

    strategy = scene.play([trade])
    assert told(strategy)[-1] == "Canceled"
    assert strategy.orders[0].info["reason"] == "No shares to borrow"


def test_failed_at_the_exchange_is_rejected(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        scene.connection.later([says.placed()], [says.status(OrderStatus.FAILED, "0")])

    assert told(scene.play([trade]))[-1] == "Rejected"


def test_fill_after_the_end_counts_and_does_not_revive_the_order(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        strategy.cancel(strategy.orders[0])
        scene.connection.later([says.placed()], [says.status(CANCELLED)], [], [], [says.fill(1, "4")])

    strategy = scene.play([trade])
    assert scene.position.size == 4
    assert strategy.orders[0].executed.size == 4
    assert not strategy.orders[0].alive()


def test_more_than_ordered_is_told_loudly(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        scene.connection.later([says.placed()], [says.fill(1, "10"), says.fill(2, "10")])

    strategy = scene.play([trade])
    assert scene.position.size == 20
    assert scene.broker.problems == ["Order p.00000.1: 20 filled of 10."]
    assert "order-overfilled" in [m for m, *_ in strategy.messages]


def test_cash_of_the_ledger_is_believed_once_fills_have_settled(stage: Stages, says: Any) -> None:
    from bt_ibkr.model.portfolio import LedgerLine

    def ledger(cash: float) -> LedgerChanged:
        line = LedgerLine(
            currency="USD", cash=cash, settled_cash=None, net_liquidation=None, stock_value=None,
            realized_pnl=None, unrealized_pnl=None, exchange_rate=1.0, time_ns=0,
        )  # fmt: skip
        return LedgerChanged("DU1", (line,))

    scene = stage()

    def trade(strategy: Any) -> None:
        buy(scene)(strategy)
        scene.connection.later([says.placed()], [says.fill(1, "10")], [ledger(CASH)])

    def too_early(strategy: Any) -> None:
        # A figure from before the fill does not undo it.
        assert scene.broker.getcash() == CASH - 1001.0
        scene.connection.tick(100, 100.0)
        scene.connection.later([ledger(CASH - 1000.0)])

    scene.play([trade, too_early])
    assert scene.broker.getcash() == CASH - 1000.0


def test_numbers_of_orders_are_unique(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        for _ in range(5):
            buy(scene)(strategy)
        scene.connection.later([says.placed(n, str(899 + n)) for n in range(1, len(strategy.orders) + 1)])

    scene.play([trade])
    ids = [group[0].ticket.client_order_id for group in scene.connection.submissions]
    assert ids == [f"p.00000.{n}" for n in range(1, 6)]
