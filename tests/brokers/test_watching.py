"""What happens beside the strategy's orders: other clients, reconciliation, the kill switch, further accounts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import backtrader as bt
import pytest

from bt_ibkr.connection.interface import CancelFailed, Difference, OrderPlaced, TradingChanged
from bt_ibkr.errors import NotArmedError, OrderRefusedError, OutcomeUnknownError, SessionError, UsageError
from bt_ibkr.model.order import OrderReport, OrderStatus, Side
from bt_ibkr.model.trading import Trading, TradingState

CASH = 100_000.0
KEY = "p.00000.1"
SUBMITTED, CANCELLED, FILLED = OrderStatus.SUBMITTED, OrderStatus.CANCELLED, OrderStatus.FILLED
Stages = Callable[..., Any]


def messages(strategy: Any) -> list[str]:
    return [message for message, *_ in strategy.messages]


# -- other clients ---------------------------------------------------------------------------------


def test_orders_of_other_clients_are_told_once_per_state(stage: Stages, says: Any) -> None:
    scene = stage()
    report = OrderReport(order_id="44", account="DU1", status=SUBMITTED, symbol="X")
    done = OrderReport(order_id="45", account="DU1", status=FILLED)
    scene.connection.found = {"orders": (report, done)}

    def look(strategy: Any) -> None:
        assert scene.broker.external_orders == (report,)
        scene.connection.later(
            [says.status(SUBMITTED, "0", of=None, order_id="44")],
            [says.status(SUBMITTED, "3", of=None, order_id="44")],
            [says.status(SUBMITTED, "0", of=None, order_id="46")],
            [says.status(FILLED, "10", of=None, order_id="44")],
            [says.status(FILLED, "10", of=None, order_id="44")],
        )

    strategy = scene.play([look])
    told = [(args[0].order_id, args[0].status) for m, args, _ in strategy.messages if m == "external-order"]
    assert told == [("44", SUBMITTED), ("46", SUBMITTED), ("44", FILLED)]
    assert [one.order_id for one in scene.broker.external_orders] == ["46"]
    assert not strategy.clones
    assert scene.connection.cancels == scene.connection.submissions == []


def test_close_after_another_client_bought_closes_a_trade(stage: Stages, says: Any) -> None:
    """No phantom trade of the opposite sign is opened by it."""
    scene = stage()

    def elsewhere(strategy: Any) -> None:
        scene.connection.later([says.fill(9, "7", 99.0, of=None)])

    def close(strategy: Any) -> None:
        assert scene.position.size == 7
        strategy.orders.append(strategy.close())
        scene.connection.later([says.placed()], [says.fill(1, "7", 101.0, side=Side.SELL)])

    strategy = scene.play([elsewhere, close])
    assert [(t[0], t[1], t[2]) for t in strategy.trades] == [
        (bt.Trade.Open, 7, 0.0), (bt.Trade.Closed, 0, 14.0),
    ]  # fmt: skip
    # The strategy is told of no order that it did not place.
    assert {clone.ref for clone in strategy.clones} == {strategy.orders[0].ref}


def test_execution_of_another_client_before_the_first_bar(stage: Stages, says: Any) -> None:
    scene = stage()
    begin = scene.connection.attach_account

    def attach(account: str, events: Any) -> Any:
        snapshot = begin(account, events)
        scene.connection.say(says.fill(9, "7", 99.0, of=None, side=Side.SELL))
        return snapshot

    scene.connection.attach_account = attach
    strategy = scene.play([])
    assert scene.position.size == -7
    assert [(t[0], t[1]) for t in strategy.trades] == [(bt.Trade.Open, -7)]


# -- orders whose end is odd -------------------------------------------------------------------------


def test_refused_order_that_stands_after_all_is_cancelled(stage: Stages, says: Any) -> None:
    """The strategy was told that it does not stand, and may have placed it again."""
    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=10))
        scene.connection.later(
            [says.failed(OrderRefusedError("decided not to stand"))],
            [says.placed()],
            [says.fill(1, "4")],
            [says.status(CANCELLED, "4")],
        )

    strategy = scene.play([trade])
    assert strategy.statuses(strategy.orders[0])[:2] == ["Submitted", "Rejected"]
    assert scene.connection.cancels == [KEY]
    assert scene.position.size == 4
    assert strategy.orders[0].getstatusname() == "Rejected"
    assert messages(strategy) == ["order-failed", "order-reappeared"]
    assert scene.broker.problems == [f"Order {KEY} was refused, but stands at IBKR as 900: it is cancelled."]


def test_order_refused_at_the_door_is_rejected(stage: Stages) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        scene.connection.refuses = OrderRefusedError("the session is closed")
        strategy.orders.append(strategy.buy(size=10))

    strategy = scene.play([trade])
    assert strategy.statuses(strategy.orders[0]) == ["Submitted", "Rejected"]
    assert strategy.orders[0].info["reason"] == "the session is closed"


def test_partly_filled_order_that_fails_is_cancelled(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=10))
        scene.connection.later([says.placed()], [says.fill(1, "4")], [says.status(OrderStatus.FAILED, "4")])

    strategy = scene.play([trade])
    assert strategy.statuses(strategy.orders[0])[-1] == "Canceled"
    assert scene.position.size == 4


def test_order_by_money_is_complete_when_ibkr_says_so(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=1, cash_qty=1000))
        assert scene.connection.submissions[0][0].ticket.cash_quantity == 1000
        scene.connection.later(
            [says.placed()],
            [says.fill(1, "6")],
            [says.status(FILLED, "9.9")],
            [says.fill(2, "3.9")],
        )

    strategy = scene.play([trade])
    assert strategy.statuses(strategy.orders[0]) == ["Submitted", "Accepted", "Partial 6", "Completed 3.9"]
    assert scene.position.size == 9.9
    assert not scene.broker.problems


def test_order_made_smaller_elsewhere_is_complete_when_ibkr_says_so(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=10))
        scene.connection.later(
            [says.placed()], [says.fill(1, "6")], [says.status(FILLED, "6", total_quantity=Decimal(6))]
        )

    strategy = scene.play([trade])
    assert strategy.orders[0].getstatusname() == "Completed"
    assert not scene.broker.get_orders_open()


def test_cancellation_of_unknown_outcome_is_not_a_refusal(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=10, valid=bt.Order.DAY))
        strategy.cancel(strategy.orders[0])
        scene.connection.later(
            [says.placed()],
            [CancelFailed(KEY, OutcomeUnknownError("no answer"))],
            [says.status(CANCELLED, "0")],
        )

    strategy = scene.play([trade])
    # Not expired: it was to be cancelled.
    assert strategy.orders[0].getstatusname() == "Canceled"


def test_expired_order_that_cannot_be_cancelled_is_asked_for_again(stage: Stages, says: Any) -> None:
    from datetime import timedelta

    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=10, valid=timedelta(seconds=30)))
        scene.connection.later([says.placed()])

    def late(strategy: Any) -> None:
        scene.connection.tick(91, 100.0)
        scene.connection.later([], [CancelFailed(KEY, OrderRefusedError("busy"))])

    def later(strategy: Any) -> None:
        assert scene.connection.cancels == [KEY]
        scene.connection.tick(97, 100.0)

    def end(strategy: Any) -> None:
        assert scene.connection.cancels == [KEY, KEY]
        scene.connection.later([says.status(CANCELLED, "0")])

    strategy = scene.play([trade, late, later, end])
    assert strategy.orders[0].getstatusname() == "Expired"


# -- reconciliation ------------------------------------------------------------------------------------


def test_ibkrs_positions_are_believed_and_nothing_is_traded(
    stage: Stages, says: Any, held: Any, caplog: pytest.LogCaptureFixture
) -> None:
    scene = stage()

    def speak(strategy: Any) -> None:
        scene.connection.later(
            [says.reconciled(held("5", 98.0))], [says.reconciled(held("5", 98.0))], [says.reconciled()]
        )

    with caplog.at_level(logging.WARNING):
        strategy = scene.play([speak])
    assert scene.position.size == 0
    told = [args[0] for m, args, _ in strategy.messages if m == "position-difference"]
    assert [(d.recorded, d.reported) for d in told] == [("0", "5"), ("5", "0")]
    assert all("nothing was traded" in d.text for d in told)
    assert len([r for r in caplog.records if r.getMessage().startswith("position-difference")]) == 2
    assert scene.connection.submissions == []
    # Trades follow, so that a later order finds one to close.
    assert [(t[0], t[1]) for t in strategy.trades] == [(bt.Trade.Open, 5), (bt.Trade.Closed, 0)]
    assert not strategy.clones


def test_incomplete_reading_proves_nothing_and_is_told_once(stage: Stages, says: Any, held: Any) -> None:
    scene = stage()
    scene.connection.found = {"positions": (held("5"),)}

    def speak(strategy: Any) -> None:
        failed = says.reconciled(complete=False, problem="positions: 503")
        scene.connection.later([failed], [failed], [says.reconciled(held("5"))], [failed])

    strategy = scene.play([speak])
    assert scene.position.size == 5
    assert messages(strategy) == ["reconciliation-incomplete", "reconciled", "reconciliation-incomplete"]


def test_positions_that_lag_behind_an_execution_are_no_difference(stage: Stages, says: Any) -> None:
    from tests.brokers.conftest import MINUTE_NS, START_NS

    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=10))
        soon = says.reconciled(time_ns=START_NS + MINUTE_NS + 5_000_000_000)
        scene.connection.later([says.placed()], [says.fill(1, "10")], [soon])

    strategy = scene.play([trade])
    assert scene.position.size == 10
    assert messages(strategy) == []


def test_positions_not_told_are_not_flat(stage: Stages, says: Any, held: Any) -> None:
    """A whole reading whose executions are too fresh for the positions."""
    scene = stage()
    scene.connection.found = {"positions": (held("5"),)}

    def speak(strategy: Any) -> None:
        whole = says.reconciled()
        scene.connection.later(
            [type(whole)(account="DU1", cause="timer", time_ns=whole.time_ns, complete=True)]
        )

    scene.play([speak])
    assert scene.position.size == 5


def test_other_differences_are_told_once(stage: Stages, says: Any) -> None:
    scene = stage()
    one = Difference(kind="order", subject=KEY, recorded="open", reported="nothing", text="lost sight of")

    def speak(strategy: Any) -> None:
        scene.connection.later([says.reconciled(differences=(one,))], [says.reconciled(differences=(one,))])

    assert messages(scene.play([speak])) == ["order-difference"]


# -- the kill switch -------------------------------------------------------------------------------------


def test_halt_and_resume_are_asked_for_and_told(stage: Stages) -> None:
    scene = stage()

    def halt(strategy: Any) -> None:
        assert scene.broker.trading_state.mode is Trading.ACTIVE
        scene.broker.halt("enough", flatten=True)
        state, cancel, flatten = scene.connection.halts[0]
        assert (state.mode, state.reason, state.by, cancel, flatten) == (
            Trading.HALTED,
            "enough",
            "p",
            True,
            True,
        )
        # It is so when it is told.
        assert scene.broker.trading_state.mode is Trading.ACTIVE
        scene.connection.later([TradingChanged(state)])

    def resume(strategy: Any) -> None:
        assert scene.broker.trading_state.mode is Trading.HALTED
        scene.broker.resume_trading("all is well")
        state, cancel, flatten = scene.connection.halts[1]
        assert (state.mode, cancel, flatten) == (Trading.ACTIVE, False, False)
        scene.connection.later([TradingChanged(state)])

    strategy = scene.play([halt, resume])
    told = [args[0].mode for m, args, _ in strategy.messages if m == "trading-changed"]
    assert told == [Trading.HALTED, Trading.ACTIVE]


def test_halt_from_elsewhere_is_told(stage: Stages) -> None:
    scene = stage()
    state = TradingState(mode=Trading.HALTED, reason="liquidation by IBKR", by="desk", since_ns=1)

    def speak(strategy: Any) -> None:
        scene.connection.later([TradingChanged(state)])

    strategy = scene.play([speak])
    assert strategy.messages[0][1] == (state,)
    assert scene.broker.trading_state == state


# -- the end of a run --------------------------------------------------------------------------------------


def open_order(scene: Any, says: Any) -> Callable[[Any], None]:
    def trade(strategy: Any) -> None:
        strategy.orders.append(strategy.buy(size=10, exectype=bt.Order.Limit, price=90.0))
        scene.connection.later([says.placed()])

    return trade


@pytest.mark.parametrize(("policy", "cancels"), [("keep", []), ("cancel", [KEY])])
def test_open_orders_at_the_end_of_a_run(stage: Stages, says: Any, policy: str, cancels: list[str]) -> None:
    scene = stage(on_stop=policy, on_error="flatten")
    scene.play([open_order(scene, says)])
    assert scene.connection.cancels == cancels
    assert scene.connection.halts == []


@pytest.mark.parametrize(
    ("policy", "cancels", "halts"),
    [
        ("keep", [], []),
        ("cancel", [KEY], []),
        ("halt", [], [(Trading.HALTED, True, False)]),
        ("flatten", [], [(Trading.HALTED, True, True)]),
    ],
)
def test_open_orders_after_a_strategys_exception(
    stage: Stages, says: Any, policy: str, cancels: list[str], halts: list[Any]
) -> None:
    scene = stage(on_error=policy)

    def fail(strategy: Any) -> None:
        scene.connection.say(says.fill(1, "4", 90.0))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scene.play([open_order(scene, says), fail])
    assert scene.connection.cancels == cancels
    assert [(state.mode, cancel, flat) for state, cancel, flat in scene.connection.halts] == halts
    # What had come is in the books.
    assert scene.position.size == 4


def test_exception_in_a_notification_loses_no_execution(stage: Stages, scripted: Any, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        def fail(_: Any, order: Any) -> None:
            if order.executed.size:
                raise ZeroDivisionError

        strategy.p.on_order = fail
        strategy.orders.append(strategy.buy(size=10))
        scene.connection.later([says.placed(), says.fill(1, "4"), says.fill(2, "6", 101.0)])

    with pytest.raises(ZeroDivisionError):
        scene.play([trade])
    assert scene.position.size == 10
    assert scene.broker.getcash() == CASH - 400.0 - 606.0 - 2.0


def test_failed_start_touches_nothing(stage: Stages) -> None:
    scene = stage(on_error="flatten")

    def fail(*_: Any) -> None:
        raise SessionError("no market data")

    scene.connection.subscribe_ticks = fail
    with pytest.raises(SessionError):
        scene.play([])
    assert scene.connection.halts == scene.connection.cancels == []


@pytest.mark.parametrize("parameter", ["on_stop", "on_error"])
def test_unknown_policies_are_refused(stage: Stages, parameter: str) -> None:
    with pytest.raises(UsageError, match=f"{parameter}='hope'"):
        stage(**{parameter: "hope"})


# -- further accounts, previews ------------------------------------------------------------------------------


def test_orders_of_several_accounts(stage: Stages, says: Any, held: Any) -> None:
    scene = stage(accounts=("DU2",))
    scene.connection.logins = ("DU1", "DU2", "DU3")
    scene.connection.paper = True

    def trade(strategy: Any) -> None:
        strategy.orders = [strategy.buy(size=10), strategy.buy(size=3, account="DU2")]
        with pytest.raises(
            OrderRefusedError, match="account='DU3' is not one that this broker trades in: DU1, DU2"
        ):
            strategy.buy(size=1, account="DU3")
        scene.connection.later(
            [says.placed(1, "900"), says.placed(2, "901")],
            [says.fill(1, "10"), says.fill(2, "3", 101.0, of=2, order_id="901", account="DU2")],
        )

    scene.play([trade])
    assert scene.connection.attached == ["DU1", "DU2"]
    assert [s[0].ticket.account for s in scene.connection.submissions] == ["DU1", "DU2"]
    data = scene.cerebro.datas[0]
    assert scene.position.size == 10
    assert scene.broker.getposition(data, account="DU2").size == 3
    assert scene.broker.getcash() == CASH - 1001.0
    assert scene.broker.getcash(account="DU2") == CASH - 304.0
    assert scene.broker.getvalue(account="DU2") == CASH - 304.0 + 300.0
    with pytest.raises(UsageError, match="'DU3' is not one"):
        scene.broker.getcash(account="DU3")


def test_account_that_is_not_the_logins_is_refused(stage: Stages) -> None:
    scene = stage(accounts=("DU9",))
    with pytest.raises(UsageError, match="'DU9' is not one of this login's: DU1"):
        scene.play([])


def test_further_account_with_real_money_is_refused(stage: Stages) -> None:
    scene = stage(accounts=("U2",))
    scene.connection.logins = ("DU1", "U2")
    with pytest.raises(NotArmedError):
        scene.play([])
    assert "U2" not in scene.connection.attached


def test_preview_places_nothing(stage: Stages) -> None:
    scene = stage()

    def ask(strategy: Any) -> None:
        broker, data = strategy.broker, strategy.data
        assert broker.what_if(data, 10, price=99.0, exectype=bt.Order.Limit).commission == 1.0
        broker.what_if(data, -5)
        with pytest.raises(OrderRefusedError):
            broker.what_if(data, 0)

    scene.play([ask])
    first, second = scene.connection.asked
    assert (first.side, first.quantity, first.limit_price) == (Side.BUY, 10, 99.0)
    assert (second.side, second.quantity) == (Side.SELL, 5)
    assert scene.connection.submissions == []
    assert not scene.broker.orders


# -- names ---------------------------------------------------------------------------------------------------


def test_strategies_are_named_by_their_classes(stage: Stages, scripted: Any) -> None:
    class SmaCROSSFast(scripted):  # type: ignore[misc]
        pass

    scene = stage(strategy=SmaCROSSFast, name=None)
    scene.cerebro.addstrategy(SmaCROSSFast)
    scene.cerebro.addstrategy(scripted)

    def trade(strategy: Any) -> None:
        for one in scene.cerebro.runningstrats:
            one.buy(size=1)
            one.buy(size=1)
        keys = [submission[0].key for submission in scene.connection.submissions]
        scene.connection.later([OrderPlaced(key, str(n)) for n, key in enumerate(keys)])

    scene.play([trade])
    assert [submission[0].key for submission in scene.connection.submissions] == [
        "sma_cross_fast.00000.1", "sma_cross_fast.00000.2",
        "sma_cross_fast-2.00000.1", "sma_cross_fast-2.00000.2",
        "scripted.00000.1", "scripted.00000.2",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["", "Sma", "a b", "a.b", "ä", "a" * 33, 7])
def test_names_that_cannot_stand_in_a_key_are_refused(stage: Stages, name: Any) -> None:
    with pytest.raises(UsageError, match=r"is no name for a strategy's orders"):
        stage(name=name)


def test_what_json_cannot_carry_of_an_orders_info_is_left_out(stage: Stages, says: Any) -> None:
    scene = stage()

    def trade(strategy: Any) -> None:
        strategy.orders.append(
            strategy.buy(
                size=1, why="dip", level=2, share=0.5, sure=True, none=None, lost=float("nan"), what=object()
            )
        )
        scene.connection.later([says.placed()])

    scene.play([trade])
    assert scene.connection.submissions[0][0].info == {
        "why": "dip", "level": 2, "share": 0.5, "sure": True, "none": None,
    }  # fmt: skip
