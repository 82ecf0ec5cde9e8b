"""Files that are cut, overwritten or somebody else's: what can be read is used, what cannot is told (fault 93)."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bt_ibkr.errors import JournalError, TradingHaltedError
from bt_ibkr.journal import Journal
from bt_ibkr.journal.pages import read_pages, rows, wal_size
from bt_ibkr.journal.schema import PAGE_SIZE
from bt_ibkr.model.intent import OrderState
from bt_ibkr.model.trading import Trading, TradingState

FRAME = PAGE_SIZE + 24


def view(journal: Journal) -> tuple[Any, ...]:
    """All that matters of what a journal knows."""
    return (
        journal.orders(),
        journal.executions(),
        journal.positions_baseline("DU1234567"),
        journal.next_sequences(),
        [journal.by_order_id("DU1234567", str(number)) for number in range(200)],
    )


def fill(books: Any, journal: Journal, orders: int = 60) -> None:
    """Enough of everything that each table has several pages."""
    for number in range(1, orders + 1):
        key = books.place(journal, number, name=f"s{number % 3}")
        books.tick()
        if number % 4:
            journal.note(key, OrderState.WORKING, order_id=str(number))
        if number % 4 == 2:
            journal.add_executions([(books.execution(f"a.{number:04}.01.01", "10"), key, "stream")])
            journal.note(key, OrderState.FILLED)
        if number % 8 == 2:
            journal.add_executions([(books.execution(f"a.{number:04}.01.02", "9"), None, "trades")])
        if number % 5 == 0:
            order = journal.order(key)
            assert order is not None
            ticket = books.intent(journal, number, name=f"s{number % 3}", limit_price=200.0).ticket
            journal.replace_ticket(key, ticket)
            journal.set_expiry(key, number)
        if number % 10 == 0:
            journal.set_positions_baseline("DU1234567", {number: Decimal(5)}, number)
    # A text that does not fit on a page.
    journal.note_event(None, "answer", "x" * 20_000)
    journal.set_trading_state(TradingState(mode=Trading.REDUCING, reason="r", by="b"))


def copied(source: Path, folder: Path) -> Path:
    """A journal's file and log as they stand now, while the owner works; as after its death."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.name
    for ending in ("", "-wal"):
        if Path(f"{source}{ending}").exists():
            shutil.copy(f"{source}{ending}", f"{target}{ending}")
    return target


def log_end(path: Path) -> int:
    """Where the log of a journal ends; behind it may stand what is left of an earlier round."""
    return 32 + wal_size(Path(f"{path}-wal")).frames * FRAME


def cuts(start: int, end: int, stride: int) -> list[int]:
    """Sizes to cut the log to: every byte of the frames' heads and of the ends, the pages at a stride."""
    found = set(range(start, end + 1, stride)) | {end - 1, end}
    for frame in range(start, end, FRAME):
        found |= set(range(frame, min(frame + 26, end)))
    return sorted(found)


@pytest.mark.parametrize(
    "stride", [512, pytest.param(1, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_a_log_cut_anywhere_in_its_last_entry(books: Any, ram: Path, stride: int) -> None:
    journal = books.open()
    for number in range(1, 4):
        books.place(journal, number)
    epoch = journal.epoch
    before, start = view(journal), log_end(books.path)
    books.place(journal, 4)
    after, end = view(journal), log_end(books.path)
    source = copied(books.path, ram / "source")
    target = ram / "cut" / source.name
    target.parent.mkdir()
    for size in cuts(start, end, stride):
        shutil.copy(source, target)
        shutil.copy(f"{source}-wal", f"{target}-wal")
        Path(f"{target}-shm").unlink(missing_ok=True)
        os.truncate(f"{target}-wal", size)
        cut = Journal.open(target, clock=books.clock)
        whole = size in (start, end)
        assert view(cut) == (after if size == end else before), size
        if whole:
            assert (cut.repaired, cut.epoch) == (None, epoch)
        else:
            # The key that was cut may be at IBKR: it is not used again.
            assert cut.repaired is not None
            assert cut.repaired.cut_frames == -(-(size - start) // FRAME)
            assert cut.epoch != epoch
            assert cut.events()[-1].kind == "repaired"
        cut.close()


def test_a_log_damaged_in_the_middle(books: Any, tmp_path: Path) -> None:
    journal = books.open()
    seen = []
    for number in range(1, 6):
        books.place(journal, number)
        seen.append((log_end(books.path), view(journal)))
    target = copied(books.path, tmp_path / "cut")
    with Path(f"{target}-wal").open("r+b") as file:
        file.seek(seen[2][0] + 1000)
        file.write(b"\xff" * 10)
    cut = books.open(target)
    assert view(cut) == seen[2][1]
    assert cut.repaired is not None
    assert "not whole" in cut.repaired.describe()
    assert cut.repaired.cut_frames > 1
    assert cut.repaired.orders == 3


def test_a_log_whose_head_is_damaged(books: Any, tmp_path: Path) -> None:
    journal = books.open()
    books.place(journal, 1)
    journal.close()
    journal = books.open()
    before = view(journal)
    books.place(journal, 2)
    target = copied(books.path, tmp_path / "cut")
    with Path(f"{target}-wal").open("r+b") as file:
        file.seek(17)
        file.write(b"\xff\xff")
    cut = books.open(target)
    assert view(cut) == before
    assert cut.repaired is not None
    assert cut.repaired.cut_frames == wal_size(Path(f"{books.path}-wal")).frames


def test_it_is_told_until_the_owner_has_ended_in_order(books: Any, tmp_path: Path) -> None:
    journal = books.open()
    books.place(journal, 1)
    target = copied(books.path, tmp_path / "cut")
    os.truncate(f"{target}-wal", log_end(target) - 1)
    first = books.open(target)
    again = copied(target, tmp_path / "again")
    second = books.open(again)
    assert first.repaired is not None
    assert second.repaired == first.repaired
    assert second.epoch == first.epoch
    second.close()
    assert books.open(again).repaired is None


def damage_zero(page: bytes) -> bytes:
    return bytes(len(page))


def damage_noise(page: bytes) -> bytes:
    return bytes((index * 131 + 7) % 256 for index in range(len(page)))


def damage_half(page: bytes) -> bytes:
    return page[: len(page) // 2] + bytes(len(page) - len(page) // 2)


@pytest.mark.parametrize("damage", [damage_zero, damage_noise, damage_half])
def test_any_page_damaged(books: Any, ram: Path, damage: Callable[[bytes], bytes]) -> None:
    """Every fact is on two pages: with any one of them lost, all orders and executions are still known."""
    journal = books.open()
    fill(books, journal)
    expected, epoch = view(journal), journal.epoch
    journal.close()
    pages = books.path.stat().st_size // PAGE_SIZE
    assert pages > 30
    found = lost = halted = 0
    for number in range(pages):
        target = copied(books.path, ram / str(number))
        with target.open("r+b") as file:
            file.seek(number * PAGE_SIZE)
            page = file.read(PAGE_SIZE)
            file.seek(number * PAGE_SIZE)
            file.write(damage(page))
        mended = Journal.open(target, clock=books.clock)
        assert view(mended) == expected, number
        repaired = mended.repaired
        mode = mended.trading_state().mode
        if repaired is None:
            assert mode is Trading.REDUCING
        else:
            found += 1
            assert mended.epoch != epoch
            assert repaired.set_aside is not None
            assert repaired.set_aside.read_bytes() != books.path.read_bytes()
            assert (repaired.orders, repaired.executions) == (60, 23)
            lost += repaired.lost_events > 0
            halted += not repaired.trading_known
            assert mode is (Trading.REDUCING if repaired.trading_known else Trading.HALTED)
        mended.close()
        shutil.rmtree(target.parent)
    print(f"{pages} pages: {found} found damaged, {lost} lost entries of the log, {halted} halted trading")
    assert found > pages * 0.8
    assert lost
    assert halted == 1


def test_an_unreadable_order_that_the_structure_hides(books: Any) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    expected = view(journal)
    journal.close()
    with sqlite3.connect(books.path) as connection:
        connection.execute("UPDATE orders SET intent = replace(intent, '\"BUY\"', '\"BUY\n')")
    connection.close()
    journal = books.open()
    assert journal.repaired is not None
    assert view(journal) == expected
    assert [order.key for order in journal.orders(open_only=True)] == [key]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trading SET mode = 'halten'",
        "UPDATE meta SET value = 'K3F9A!' WHERE name = 'epoch'",
        "DELETE FROM meta",
        "UPDATE orders SET state = 'workinh'",
    ],
)
def test_values_that_are_none(books: Any, change: str) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    expected = view(journal)
    journal.close()
    with sqlite3.connect(books.path) as connection:
        connection.execute(change)
    connection.close()
    journal = books.open()
    assert journal.repaired is not None
    assert journal.epoch not in key
    assert view(journal) == expected
    assert journal.trading_state().mode is (Trading.HALTED if "trading" in change else Trading.ACTIVE)


def test_a_file_that_cannot_be_opened_beside_a_log_that_can(books: Any, tmp_path: Path) -> None:
    """The log holds what is newest."""
    journal = books.open()
    key = books.place(journal, 1)
    journal.close()
    journal = books.open()
    journal.note(key, OrderState.WORKING, order_id="1")
    expected = view(journal)
    target = copied(books.path, tmp_path / "head")
    journal.close()
    with target.open("r+b") as file:
        file.write(b"\xff" * 200)
    mended = books.open(target)
    assert mended.repaired is not None
    assert mended.repaired.set_aside is not None
    assert mended.repaired.set_aside.read_bytes()[:200] == b"\xff" * 200
    assert view(mended) == expected
    mended.close()
    assert view(books.open(target)) == expected


def test_a_correction_that_is_lost_whole(books: Any) -> None:
    """What it corrected counts again: it is the best that is known."""
    journal = books.open()
    key = books.place(journal, 1)
    journal.add_executions([(books.execution("a.b.01.01", "4"), key, "s")])
    journal.add_executions([(books.execution("a.b.01.02", "5"), key, "s")])
    journal.close()
    with sqlite3.connect(books.path) as connection:
        connection.execute("DELETE FROM events WHERE number = 3")
        connection.execute("DELETE FROM executions WHERE number = 2")
        connection.execute("DELETE FROM meta")
    connection.close()
    journal = books.open()
    (found,) = journal.executions()
    assert (found.superseded, found.execution.quantity) == (False, 4)
    assert journal.orders()[0].filled == 4


def test_entries_after_a_repair_are_newer_than_any_before(books: Any) -> None:
    """The end of the log is lost, the tables know of it: what is noted next must not look older than they are."""
    journal = books.open()
    key = books.place(journal, 1)
    journal.note(key, OrderState.WORKING, order_id="1")
    journal.close()
    with sqlite3.connect(books.path) as connection:
        connection.execute("DELETE FROM events WHERE number = 2")
        connection.execute("DELETE FROM meta")
    connection.close()
    journal = books.open()
    assert journal.repaired is not None
    assert journal.repaired.lost_events == 1
    assert [event.number for event in journal.events()] == [1, 3]
    order = journal.order(key)
    assert order is not None
    assert order.state is OrderState.WORKING


def test_a_file_cut_short(books: Any, tmp_path: Path) -> None:
    journal = books.open()
    fill(books, journal)
    expected = view(journal)
    journal.close()
    size = books.path.stat().st_size
    for part in (0.5, 0.7, 0.9):
        target = copied(books.path, tmp_path / str(part))
        os.truncate(target, int(size * part))
        mended = books.open(target)
        assert mended.repaired is not None
        known = {order.key: order for order in mended.orders()}
        assert known
        assert all(known[order.key].state in OrderState for order in expected[0] if order.key in known)
        assert str(mended.repaired.set_aside) in mended.repaired.describe()


def test_an_empty_file_beside_its_log(books: Any, tmp_path: Path) -> None:
    """SQLite throws away the log of an empty file."""
    journal = books.open()
    for number in range(1, 4):
        books.place(journal, number)
    expected = view(journal)
    for target in (copied(books.path, tmp_path / "a"), copied(books.path, tmp_path / "b")):
        if target.parent.name == "a":
            os.truncate(target, 0)
        else:
            target.unlink()
        log = Path(f"{target}-wal").read_bytes()
        mended = books.open(target)
        assert mended.repaired is not None
        assert mended.repaired.set_aside is not None
        # The new file must never be read together with the old one's log.
        assert Path(f"{mended.repaired.set_aside}-wal").read_bytes() == log
        assert view(mended) == expected
        mended.close()
        again = books.open(target)
        assert view(again) == expected
        assert again.epoch == mended.epoch != journal.epoch


def test_halted_where_nobody_knows(books: Any) -> None:
    journal = books.open()
    books.place(journal, 1)
    journal.close()
    with sqlite3.connect(books.path) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'trading'").fetchone()
    connection.close()
    with books.path.open("r+b") as file:
        file.seek((root - 1) * PAGE_SIZE)
        file.write(bytes(PAGE_SIZE))
    journal = books.open()
    assert journal.repaired is not None
    assert "halted now" in journal.repaired.describe()
    with pytest.raises(TradingHaltedError, match="damaged"):
        books.place(journal, 2)
    journal.set_trading_state(TradingState())
    books.place(journal, 2)


@pytest.mark.parametrize("content", [b"# Notes\nbuy milk\n" * 600, b"PK\x03\x04" + bytes(5000)])
def test_a_file_of_somebody_else(books: Any, content: bytes) -> None:
    books.path.write_bytes(content)
    with pytest.raises(JournalError, match="is no journal") as caught:
        books.open()
    assert str(books.path) in caught.value.message
    assert books.path.read_bytes() == content
    assert not list(books.path.parent.glob("*damaged*"))


def test_a_visitor_repairs_nothing(books: Any) -> None:
    journal = books.open()
    fill(books, journal)
    journal.close()
    with books.path.open("r+b") as file:
        file.write(b"\xff" * 200)
    content = books.path.read_bytes()
    with pytest.raises(JournalError, match="damaged") as caught:
        books.open(exclusive=False)
    assert "owns it" in caught.value.remedy
    assert books.path.read_bytes() == content
    assert books.open().repaired is not None


def test_damage_while_it_is_open(books: Any) -> None:
    journal = books.open()
    fill(books, journal)
    journal.close()
    journal = books.open()
    # What SQLite has read stays in its memory, unless that is small.
    journal._database.connection.execute("PRAGMA cache_size = 1")
    with books.path.open("r+b") as file:
        for number in range(1, books.path.stat().st_size // PAGE_SIZE):
            file.seek(number * PAGE_SIZE)
            file.write(b"\xff" * 100)
    with pytest.raises(JournalError, match="malformed") as caught:
        journal.executions()
    assert "again" in caught.value.remedy


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_changed(books: Any, ram: Path, data: st.DataObject) -> None:
    """Whatever happened to the files: it opens, or says clearly why not, and nothing is thrown away."""
    source = ram / "source" / "journal"
    if not source.exists():
        journal = Journal.open(source, clock=books.clock)
        fill(books, journal, 20)
        copied(source, ram / "alive")
        journal.close()
    ending = data.draw(st.sampled_from(["", "-wal"]))
    folder = ram / "fuzz"
    shutil.rmtree(folder, ignore_errors=True)
    target = copied(ram / "alive" / "journal", folder)
    file = Path(f"{target}{ending}")
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        noise = data.draw(st.binary(min_size=1, max_size=64))
        content[at : at + len(noise)] = noise
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    file.write_bytes(content)
    try:
        journal = Journal.open(target, clock=books.clock)
    except JournalError:
        return
    try:
        for ask in (journal.orders, journal.executions, journal.events, journal.trading_state):
            ask()
        view(journal)
    except JournalError:
        pass
    finally:
        journal.close()
    if journal.repaired is not None and journal.repaired.set_aside is not None:
        assert journal.repaired.set_aside.exists()


def test_pages_read_by_hand_are_what_sqlite_reads(books: Any, tmp_path: Path) -> None:
    journal = books.open()
    fill(books, journal)
    target = copied(books.path, tmp_path / "copy")
    assert wal_size(Path(f"{target}-wal")).frames
    by_hand = sorted(
        (row.rowid, *row.values[1:])
        for row in rows(read_pages(target, Path(f"{target}-wal")))
        if len(row.values) == 6 and isinstance(row.values[1], int)
    )
    connection = sqlite3.connect(target)
    assert by_hand == connection.execute("SELECT * FROM events ORDER BY number").fetchall()
    connection.close()
