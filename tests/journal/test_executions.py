"""Executions: once each, whatever brings them; corrections take their place; commissions come late."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from bt_ibkr.journal.tables import stem_and_revision
from bt_ibkr.model.order import Side


def test_once_from_every_source(books: Any) -> None:
    journal = books.open()
    key = books.place(journal, 1, quantity="0.3")
    fills = [books.execution(f"0000e0d5.6596c9c{at}.01.01", "0.1") for at in range(3)]
    assert journal.add_executions([(one, key, "stream") for one in fills[:2]]) == [True, True]
    assert journal.add_executions([(one, key, "trades") for one in fills]) == [False, False, True]
    assert journal.add_executions([(fills[2], key, "s"), (fills[2], key, "s")]) == [False, False]
    journal.close()
    journal = books.open()
    assert journal.add_executions([(one, key, "trades") for one in fills]) == [False] * 3
    order = journal.order(key)
    assert order is not None
    assert order.filled == Decimal("0.3")
    assert not order.remaining
    assert [one.source for one in journal.executions()] == ["stream", "stream", "trades"]
    assert journal.orders(open_only=True)[0].filled == journal.orders()[0].filled == Decimal("0.3")
    assert len([event for event in journal.events() if event.kind == "execution"]) == 3


def test_twice_in_one_call(books: Any) -> None:
    journal = books.open()
    one = books.execution("a.b.01.01")
    assert journal.add_executions([(one, None, "s"), (one, None, "s")]) == [True, False]
    assert journal.add_executions([]) == []


def test_the_same_id_of_another_account(books: Any) -> None:
    journal = books.open()
    pair = [books.execution("a.b.01.01"), books.execution("a.b.01.01", account="DU2")]
    assert journal.add_executions([(one, None, "s") for one in pair]) == [True, True]
    assert len(journal.executions(account="DU2")) == 1


def test_a_commission_comes_late(books: Any) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    journal.add_executions([(books.execution("a.b.01.01"), key, "stream")])
    later = books.execution("a.b.01.01", commission=1.0, order_id="77", exchange="IBKRATS")
    assert journal.add_executions([(later, key, "trades")]) == [False]
    assert journal.add_executions([(books.execution("a.b.01.01"), key, "stream")]) == [False]
    (found,) = journal.executions(key=key)
    assert (found.execution.commission, found.execution.order_id) == (1.0, "77")
    assert found.source == "stream"
    kinds = [event.kind for event in journal.events(key=key)]
    assert kinds == ["intended", "execution", "execution_completed"]


def test_sources_that_differ_for_ever_fill_no_log(books: Any) -> None:
    journal = books.open()
    for _ in range(5):
        for source, commission, price in (("a", 1.0, 187.2), ("b", 1.01, 187.2), ("c", 1.0, 187.21)):
            one = books.execution("a.b.01.01", commission=commission, price=price)
            journal.add_executions([(one, None, source)])
    assert [event.kind for event in journal.events()] == [
        "execution",
        "execution_completed",
        "execution_conflict",
    ]
    (found,) = journal.executions()
    assert (found.execution.price, found.execution.commission) == (187.2, 1.01)


def test_a_source_that_tells_two_things_in_turn_fills_no_log(books: Any) -> None:
    journal = books.open()
    for turn in range(100):
        one = books.execution("a.b.01.01", commission=1.0, price=187.2 + 0.01 * (turn % 2))
        journal.add_executions([(one, None, "trades")])
    assert len(journal.events()) < 10
    (found,) = journal.executions()
    assert found.execution.price == 187.2


def test_a_commission_that_is_taken_back(books: Any) -> None:
    journal = books.open()
    for commission in (1.25, 9.0, 1.25):
        journal.add_executions([(books.execution("a.b.01.01", commission=commission), None, "stream")])
    (found,) = journal.executions()
    assert found.execution.commission == 1.25


def test_the_order_is_known_late(books: Any) -> None:
    """A fill before the acknowledgement."""
    journal = books.open()
    key = books.place(journal, 1)
    one = books.execution("a.b.01.01", "4")
    assert journal.add_executions([(one, None, "stream")]) == [True]
    assert journal.executions(key=key) == ()
    assert journal.add_executions([(one, key, "trades")]) == [False]
    assert [found.key for found in journal.executions(strategy="sma")] == [key]
    order = journal.order(key)
    assert order is not None
    assert order.filled == 4
    # It is never handed on to another order.
    other = books.place(journal, 2)
    journal.add_executions([(one, other, "trades")])
    assert [found.key for found in journal.executions()] == [key]


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_corrections_in_any_order(books: Any, order: tuple[int, ...]) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    applied = {}
    for number, revision in enumerate(order):
        one = books.execution(f"a.b.01.0{revision}", str(revision), commission=float(revision))
        (applied[revision],) = journal.add_executions([(one, key if number == 0 else None, "s")])
    # One that comes after its correction is not applied.
    assert applied == {r: all(later < r for later in order[: order.index(r)]) for r in order}
    found = journal.versions("DU1234567", "a.b.01.02")
    assert [one.execution.execution_id for one in found] == ["a.b.01.01", "a.b.01.02", "a.b.01.03"]
    assert [one.superseded for one in found] == [True, True, False]
    assert {one.key for one in found} == {key}
    known = journal.order(key)
    assert known is not None
    assert known.filled == 3


def test_a_correction_of_nothing_else(books: Any) -> None:
    """Ids that only look alike are other trades."""
    journal = books.open()
    ids = ["a.b.01.01", "a.b.02.01", "a.b.01.01.01", "a.bc.01.02", "a.b", "a.c", "b.c.d", "1.2"]
    assert journal.add_executions([(books.execution(one), None, "s") for one in ids]) == [True] * len(ids)
    assert not any(one.superseded for one in journal.executions())
    assert [one.execution.execution_id for one in journal.versions("DU1234567", "a.b")] == ["a.b"]
    assert journal.versions("DU1234567", "zzz") == ()


def test_a_tenth_correction(books: Any) -> None:
    journal = books.open()
    for revision in ("09", "10", "9a"):
        journal.add_executions([(books.execution(f"a.b.01.{revision}"), None, "s")])
    assert [one.superseded for one in journal.executions()] == [True, False, False]


def test_a_bust(books: Any) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    journal.add_executions([(books.execution("a.b.01.01", "10"), key, "s")])
    journal.add_executions([(books.execution("a.b.01.02", "0"), None, "s")])
    order = journal.order(key)
    assert order is not None
    assert (order.filled, order.remaining) == (0, 10)


def test_they_are_chosen_and_sorted_by_their_own_time(books: Any) -> None:
    journal = books.open()
    key, other = books.place(journal, 1), books.place(journal, 1, name="other")
    journal.add_executions(
        [
            (books.execution("c", time_ns=30), key, "s"),
            (books.execution("a", time_ns=10, side=Side.SELL), other, "s"),
            (books.execution("b", time_ns=20), None, "s"),
        ]
    )

    def ids(**choice: Any) -> list[str]:
        return [one.execution.execution_id for one in journal.executions(**choice)]

    assert ids() == ["a", "b", "c"]
    assert ids(since_ns=20) == ["b", "c"]
    assert ids(strategy="other") == ["a"]
    assert ids(key=key) == ["c"]
    assert ids(account="DU9") == []


def test_stems() -> None:
    assert stem_and_revision("0000e0d5.6596c9c6.01.02") == ("0000e0d5.6596c9c6.01", 2)
    assert stem_and_revision("0000e0d5.6596c9c6.01") is None
    assert stem_and_revision("a.b.c.d") is None
    assert stem_and_revision("a.b.c.²") is None
    assert stem_and_revision("") is None
