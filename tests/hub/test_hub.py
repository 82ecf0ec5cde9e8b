"""One hub, several strategies: ticks to each in order, orders to their owners, books that sum to the account."""

from __future__ import annotations

from decimal import Decimal

from bt_ibkr.connection.interface import ExecutionReported, OrderFailed
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.books import BookView
from bt_ibkr.hub.names import UNALLOCATED
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.model.order import Side
from tests.hub.conftest import ACCOUNT, APPLE, Join, Ticks, move


def test_ticks_reach_everybody_in_order(emulator: EmulatorThread, join: Join) -> None:
    first, second = join("alpha"), join("beta")
    one, two = first.follow(), second.follow()
    move(emulator, 200)
    first.until(lambda: len(one.all) > 50)
    second.until(lambda: len(two.all) >= len(one.all))
    first.until(lambda: len(one.all) == len(two.all))
    assert one.all == two.all
    assert [tick.time_ns for tick in one.all] == sorted(tick.time_ns for tick in one.all)


def test_a_late_joiner_has_the_last_value_at_once(emulator: EmulatorThread, join: Join) -> None:
    first, late = join("alpha"), join("beta")
    one, two = first.follow(), Ticks()
    move(emulator, 100)
    first.until(lambda: len(one.all) > 10)
    late.connection.subscribe_ticks(late.contract(), two)
    assert two.all == [one.all[-1]]


def test_orders_belong_to_their_strategy(hub: HubThread, emulator: EmulatorThread, join: Join) -> None:
    first, second = join("alpha"), join("beta")
    for one in (first, second):
        one.attach()
        one.follow()
    move(emulator, 50)
    bought = first.place(Side.BUY, 10)
    sold = second.place(Side.SELL, 4)
    first.until(lambda: first.placed(bought))
    second.until(lambda: second.placed(sold))
    move(emulator, 300)
    first.until(lambda: sum(e.execution.quantity for e in first.of(ExecutionReported)) == 10)
    second.until(lambda: sum(e.execution.quantity for e in second.of(ExecutionReported)) == 4)
    assert {event.key for event in first.of(ExecutionReported)} == {bought}
    assert {event.key for event in second.of(ExecutionReported)} == {sold}
    books = hub.loop.call(_books(hub))
    held = {book.name: {h.conid: h.quantity for h in book.holdings} for book in books}
    assert held["alpha"] == {APPLE: Decimal(10)}
    assert held["beta"] == {APPLE: Decimal(-4)}
    assert held.get(UNALLOCATED, {}) == {}
    ledger = emulator.ledger()
    position = ledger["accounts"][ACCOUNT]["positions"][str(APPLE)]
    assert Decimal(str(position["quantity"])) == sum(h[APPLE] for h in held.values() if h)


def test_an_order_of_anothers_name_is_refused(join: Join) -> None:
    first = join("alpha")
    first.attach()
    first.name = "beta"
    key = first.place()
    first.until(lambda: first.of(OrderFailed, key))
    assert "not of strategy alpha" in str(first.of(OrderFailed, key)[0].error)


async def _books(hub: HubThread) -> tuple[BookView, ...]:
    return hub.server.desk.books()
