"""Books over restarts: made anew of the journal and of the entries beside it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.errors import JournalError, UsageError
from bt_ibkr.hub.bookkeeping import Bookkeeper
from bt_ibkr.hub.books import Transfer
from bt_ibkr.hub.names import FLATTEN, UNALLOCATED
from bt_ibkr.hub.settling import APART_S
from bt_ibkr.journal import Journal
from bt_ibkr.model.contract import Leg
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import Execution, OrderTicket, OrderType, Side
from tests.hub.test_books import ACCOUNT, FUTURE, STOCK, contract, position

CLOCK = ManualClock(10**18)


@pytest.fixture
def journal() -> Iterator[Journal]:
    opened = Journal.open(None, clock=CLOCK)
    yield opened
    opened.close()


Open = Callable[..., Bookkeeper]


@pytest.fixture
def opened(journal: Journal, tmp_path: Path) -> Iterator[Open]:
    """Opens the books, as a hub that starts; what IBKR has is given by contract."""
    made: list[Bookkeeper] = []

    def make(held: dict[int, int] | None = None, path: Path | None = None) -> Bookkeeper:
        for one in made:
            one.close()
        made.clear()
        made.append(Bookkeeper(path or tmp_path / "books", journal, CLOCK, contract))
        made[0].open(ACCOUNT, [position(conid, Decimal(size)) for conid, size in (held or {}).items()])
        return made[0]

    yield make
    for one in made:
        one.close()


@pytest.mark.skipif(os.name != "posix", reason="needs permissions of files")
def test_the_file_is_its_owner_s_alone(opened: Open, tmp_path: Path) -> None:
    opened()
    assert (tmp_path / "books").stat().st_mode & 0o077 == 0


def order(journal: Journal, number: int, **changes: Any) -> str:
    """An order of alpha on record; its key."""
    key = make_key(str(changes.pop("name", "alpha")), journal.epoch, number)
    fields: dict[str, Any] = {
        "account": ACCOUNT,
        "contract_id": STOCK,
        "side": Side.BUY,
        "order_type": OrderType.MARKET,
        "quantity": Decimal(100),
        "client_order_id": key,
    }
    ticket = OrderTicket(**(fields | changes))
    journal.intend((OrderIntent(key=key, strategy=key.partition(".")[0], ticket=ticket),))
    return key


def execution(number: int, quantity: int, **changes: Any) -> Execution:
    fields: dict[str, Any] = {
        "execution_id": f"0001.{number:08d}.01.01",
        "account": ACCOUNT,
        "conid": STOCK,
        "symbol": "X",
        "side": Side.BUY if quantity > 0 else Side.SELL,
        "quantity": Decimal(abs(quantity)),
        "price": 100.0,
        "time_ns": number,
    }
    return Execution(**(fields | changes))


def take(keeper: Bookkeeper, journal: Journal, one: Execution, key: str | None) -> str | None:
    journal.add_executions([(one, key, "stream")])
    return keeper.take(one, key)


def held(keeper: Bookkeeper) -> dict[str, dict[int, Decimal]]:
    found = {
        view.name: {one.conid: one.quantity for one in view.holdings if one.quantity}
        for view in keeper.of(ACCOUNT).views()
    }
    return {name: holdings for name, holdings in found.items() if holdings}


def test_what_executed_while_no_hub_ran(opened: Open, journal: Journal) -> None:
    key = order(journal, 1)
    take(opened({STOCK: 5}), journal, execution(1, 10), key)
    journal.add_executions([(execution(2, 4), key, "trades")])
    assert held(opened({STOCK: 19})) == {"alpha": {STOCK: 14}, UNALLOCATED: {STOCK: 5}}


def test_entries_stand_between_executions(opened: Open, journal: Journal) -> None:
    """Two executions are on record before the first is in the books; a transfer between them stays there."""
    key = order(journal, 1)
    keeper = opened()
    first, second = execution(1, 10), execution(2, -10, price=120.0)
    journal.add_executions([(first, key, "stream"), (second, key, "stream")])
    keeper.take(first, key)
    keeper.transfer(
        Transfer(
            account=ACCOUNT, conid=STOCK, source="alpha", target="beta", quantity=Decimal(4), price=110.0
        )
    )
    keeper.take(second, key)
    before = keeper.of(ACCOUNT).views()
    assert opened().of(ACCOUNT).views() == before


def test_a_transfer_that_is_asked_for_again_after_a_restart(opened: Open, journal: Journal) -> None:
    wanted = Transfer(account=ACCOUNT, conid=STOCK, source=UNALLOCATED, target="alpha", quantity=Decimal(3))
    assert opened({STOCK: 5}).transfer(wanted) is not None
    keeper = opened({STOCK: 5})
    assert keeper.transfer(wanted) is None
    assert held(keeper) == {"alpha": {STOCK: 3}, UNALLOCATED: {STOCK: 2}}
    with pytest.raises(UsageError, match="'U2'"):
        keeper.transfer(
            Transfer(account="U2", conid=STOCK, source="alpha", target="beta", quantity=Decimal(1))
        )


def test_a_conversion_of_money_leaves_no_position(opened: Open, journal: Journal) -> None:
    key = order(journal, 1, is_currency_conversion=True, security_type="CASH")
    keeper = opened()
    intent = journal.order(key)
    assert intent is not None
    keeper.placed(intent.intent)
    converted = execution(1, 100, commission=2.0)
    assert take(keeper, journal, converted, key) == "alpha"
    assert keeper.of(ACCOUNT).totals() == {}
    (line,) = keeper.of(ACCOUNT).book("alpha").view().holdings
    assert (line.commission, line.flow) == (2.0, -2.0)
    # Its commission is its strategy's, whenever it comes.
    assert keeper.take_commission(execution(1, 100, commission=3.0)) == "alpha"
    assert opened().of(ACCOUNT).totals() == {}


def test_a_combo_is_its_legs(opened: Open, journal: Journal) -> None:
    legs = (Leg(STOCK, 1), Leg(FUTURE, -1))
    key = order(journal, 1, legs=legs, security_type="BAG", contract_id=99, spread_id=28812380)
    keeper = opened()
    whole = execution(1, 2, conid=99, legs=legs)
    assert take(keeper, journal, whole, key) == "alpha"
    take(keeper, journal, execution(2, 2), key)
    take(keeper, journal, execution(3, -2, conid=FUTURE), key)
    assert held(keeper) == held(opened({STOCK: 2, FUTURE: -2})) == {"alpha": {STOCK: 2, FUTURE: -2}}


def test_positions_closed_by_another_process(opened: Open, journal: Journal) -> None:
    """Its orders are known by their cOID alone."""
    keeper = opened({STOCK: 5})
    ref = make_key(FLATTEN, journal.epoch, 1)
    assert take(keeper, journal, execution(1, -5, order_ref=ref), None) == FLATTEN
    assert held(opened()) == {FLATTEN: {STOCK: -5}, UNALLOCATED: {STOCK: 5}}


def test_another_journal_begins_anew(opened: Open, journal: Journal, tmp_path: Path) -> None:
    """Numbers of the lost one mean nothing in the new one: everything is unallocated, and the sum is right."""
    key = order(journal, 1)
    keeper = opened()
    for number in range(1, 4):
        take(keeper, journal, execution(number, 1), key)
    keeper.transfer(
        Transfer(account=ACCOUNT, conid=STOCK, source="alpha", target="beta", quantity=Decimal(1))
    )
    other = Journal.open(None, clock=CLOCK)
    new = Bookkeeper(tmp_path / "books", other, CLOCK, contract)
    new.open(ACCOUNT, [position(STOCK, Decimal(3))])
    assert held(new) == {UNALLOCATED: {STOCK: 3}}
    take(new, other, execution(9, 2), order(other, 1))
    new.close()
    again = Bookkeeper(tmp_path / "books", other, CLOCK, contract)
    assert again.open(ACCOUNT, [position(STOCK, Decimal(5))]) == ()
    assert held(again) == {UNALLOCATED: {STOCK: 3}, "alpha": {STOCK: 2}}
    again.close()
    other.close()


def test_a_difference_goes_to_unallocated_and_is_told(opened: Open) -> None:
    keeper = opened({STOCK: 5})
    less = [position(STOCK, Decimal(3))]
    assert keeper.compare(ACCOUNT, less) == ()
    assert keeper.uncertain(ACCOUNT)
    CLOCK.set_ns(CLOCK.now_ns() + (APART_S + 1) * NS_PER_S)
    (told,) = keeper.compare(ACCOUNT, less)
    assert not keeper.uncertain(ACCOUNT)
    assert (told.recorded, told.reported) == ("5", "3")
    assert UNALLOCATED in told.text
    assert keeper.compare(ACCOUNT, [position(STOCK, Decimal(3))]) == ()
    assert held(opened({STOCK: 3})) == {UNALLOCATED: {STOCK: 3}}


def test_who_was_here(opened: Open) -> None:
    keeper = opened()
    assert keeper.told_ns("alpha") is None
    keeper.came("alpha")
    keeper.came("beta")
    keeper.went("beta")
    keeper.told(["alpha"])
    keeper = opened()
    assert keeper.expected() == ("alpha",)
    assert keeper.told_ns("alpha") == CLOCK.now_ns()


def test_a_damaged_file(opened: Open, tmp_path: Path) -> None:
    for content in (b"no database at all, but long enough to be looked at " * 40, damaged(opened, tmp_path)):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(JournalError, match="Move the file away"):
            opened(path=tmp_path / "broken")


def damaged(opened: Open, tmp_path: Path) -> bytes:
    keeper = opened({STOCK: 5})
    keeper._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = (tmp_path / "books").read_bytes()
    return whole[:4096] + b"\xff" * 4096 + whole[8192:]


def test_an_entry_that_cannot_be_read(opened: Open, tmp_path: Path) -> None:
    keeper = opened({STOCK: 5})
    keeper._database.execute("UPDATE entries SET body = X'00'")
    with pytest.raises(JournalError, match="Move the file away"):
        opened({STOCK: 5})


def test_a_newer_file(opened: Open, tmp_path: Path) -> None:
    opened()
    newer = sqlite3.connect(tmp_path / "books")
    newer.execute("PRAGMA user_version = 9")
    newer.close()
    with pytest.raises(JournalError, match="version 9"):
        opened()
