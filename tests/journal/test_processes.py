"""Several processes and one journal; processes that die; disks that are full (faults 13 to 15, 92, 94, 97)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.errors import JournalError, JournalLockedError, TradingHaltedError
from bt_ibkr.journal import Journal, steps
from bt_ibkr.journal.pages import wal_size
from bt_ibkr.journal.schema import PAGE_SIZE
from bt_ibkr.model.intent import OrderState, make_key
from bt_ibkr.model.trading import Trading, TradingState

Child = Callable[..., subprocess.Popen[str]]

OWNER = """
import sys
from pathlib import Path
from bt_ibkr.clock import SystemClock
from bt_ibkr.journal import Journal

journal = Journal.open(Path(sys.argv[1]), clock=SystemClock())
print("open", flush=True)
sys.stdin.read()
"""
VISITOR = """
import sys
from pathlib import Path
from bt_ibkr.clock import SystemClock
from bt_ibkr.journal import Journal
from bt_ibkr.model.trading import Trading, TradingState

journal = Journal.open(Path(sys.argv[1]), clock=SystemClock(), exclusive=False)
print("open", flush=True)
sys.stdin.readline()
journal.set_trading_state(TradingState(mode=Trading.HALTED, reason="stop", by="command line"))
print("halted", flush=True)
journal.close()
"""


def say(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def finish(child: subprocess.Popen[str]) -> None:
    out, error = child.communicate(timeout=60)
    assert child.returncode == 0, error
    assert not error, error
    assert out is not None


def test_a_second_owner_is_refused_until_the_first_is_dead(books: Any, child: Child) -> None:
    owner = child(OWNER, books.path)
    assert say(owner) == "open"
    with pytest.raises(JournalLockedError, match=f"kept by process {owner.pid}") as caught:
        books.open()
    assert caught.value.pid == owner.pid
    assert str(books.path) in caught.value.message
    visitor = books.open(exclusive=False)
    assert visitor.orders() == ()
    owner.send_signal(signal.SIGKILL)
    owner.communicate(timeout=60)
    journal = books.open()
    assert journal.repaired is None
    with pytest.raises(JournalLockedError) as caught:
        books.open()
    assert caught.value.pid == os.getpid()
    journal.close()
    books.open()


def test_by_another_name(books: Any, tmp_path: Path) -> None:
    books.open()
    (tmp_path / "other").symlink_to(tmp_path)
    with pytest.raises(JournalLockedError):
        books.open(tmp_path / "other" / books.path.name)


def test_a_lock_that_cannot_be_made(books: Any) -> None:
    Path(f"{books.path}.lock").mkdir()
    with pytest.raises(JournalError, match="lock"):
        books.open()


def test_a_failed_opening_leaves_no_lock(books: Any) -> None:
    books.path.write_bytes(b"no journal" * 1000)
    with pytest.raises(JournalError, match="no journal"):
        books.open()
    books.path.unlink()
    books.open()


def test_no_order_after_the_command_line_has_halted(books: Any, child: Child) -> None:
    """The owner intends as fast as it can; whatever moment the other process hits, the log has no intent behind the
    halt, and what was taken before stands."""
    visitor = child(VISITOR, books.path)
    assert say(visitor) == "open"
    journal = books.open()
    version = journal.data_version()
    taken = []
    go = threading.Event()

    def tell() -> None:
        go.wait(60)
        assert visitor.stdin is not None
        visitor.stdin.write("\n")
        visitor.stdin.flush()

    teller = threading.Thread(target=tell)
    teller.start()

    def place() -> None:
        for number in range(1, 1_000_000):
            taken.append(books.place(journal, number))
            if number == 20:
                go.set()

    with pytest.raises(TradingHaltedError, match="halted by command line: stop"):
        place()
    teller.join()
    assert say(visitor) == "halted"
    finish(visitor)
    assert journal.data_version() != version
    kinds = [event.kind for event in journal.events()]
    assert kinds == ["intended"] * len(taken) + ["trading"]
    assert [order.key for order in journal.orders()] == taken


def test_another_process_flattens(books: Any) -> None:
    journal = books.open()
    books.place(journal, 1)
    visitor = books.open(exclusive=False)
    version = journal.data_version()
    assert visitor.epoch == journal.epoch
    key = books.place(visitor, 1, name="flatten", protective=True)
    assert journal.data_version() != version
    assert [order.key for order in journal.orders(strategy="flatten")] == [key]
    visitor.close()
    journal.note(key, OrderState.WORKING, order_id="1")
    with pytest.raises(JournalError, match="already"):
        books.place(journal, 1, name="flatten")


def test_the_other_process_writes_for_too_long(books: Any) -> None:
    journal = books.open(busy_timeout_s=0.05)
    key = books.place(journal, 1)
    visitor = books.open(exclusive=False)
    with visitor._database.write("x", "hold it"):
        with pytest.raises(JournalError, match="locked") as caught:
            books.place(journal, 2)
        assert "Another process" in caught.value.remedy
        with pytest.raises(JournalError, match="locked"):
            journal.note(key, OrderState.WORKING)
        assert journal.orders()[0].state is OrderState.INTENDED
    books.place(journal, 2)


def in_child(work: Callable[[], None]) -> int:
    """Run in a fork; its exit status, or minus the signal that ended it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - of a child, whose only word this is
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def refusal(books: Any, journal: Journal, number: int) -> JournalError | None:
    """Why an order is not taken; ``None`` if it is."""
    try:
        books.place(journal, number)
    except JournalError as problem:
        return problem
    return None


def test_a_disk_without_room(books: Any) -> None:
    """No file may grow beyond a size, as on a full disk: an order is refused, and taken as soon as there is room."""
    resource = pytest.importorskip("resource")

    def work() -> None:
        journal = Journal.open(books.path, clock=books.clock)
        key = books.place(journal, 1)
        events = journal.events()
        # Behind the log's end stands what is left of an earlier round; room for that is taken already.
        size = 32 + wal_size(Path(f"{books.path}-wal")).frames * (PAGE_SIZE + 24)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        for room in range(0, 40_000, 2_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, most))
            number = 2 + room
            problem = refusal(books, journal, number)
            if problem is None:
                break
            assert "could not take an order in; it was not sent" in problem.message
            assert "disk" in problem.remedy
            assert journal.order(make_key("sma", journal.epoch, number)) is None
            if room == 0:
                with pytest.raises(JournalError, match="could not note working"):
                    journal.note(key, OrderState.WORKING, order_id="5")
                assert journal.by_order_id("DU1234567", "5") is None
        else:
            raise AssertionError("there was never room")
        assert room > 4_000, "the limit was never met"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, most))
        books.place(journal, 1_000_000)
        assert len(journal.orders()) == 3
        assert [e.kind for e in journal.events()[len(events) :] if e.kind == "intended"] == ["intended"] * 2

    assert in_child(work) == 0
    journal = books.open()
    assert len(journal.orders()) == 3


def test_a_full_database(books: Any) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    execute = journal._database.connection.execute
    (pages,) = execute("PRAGMA page_count").fetchone()
    execute(f"PRAGMA max_page_count = {pages}")
    problems = ((number, refusal(books, journal, number)) for number in range(2, 1_000))
    number, problem = next((number, problem) for number, problem in problems if problem is not None)
    assert "full" in problem.message
    assert "Make room" in problem.remedy
    count = len(journal.orders())
    assert count == number - 1
    execute("PRAGMA max_page_count = 1000000")
    books.place(journal, number)
    journal.note(key, OrderState.WORKING)
    assert len(journal.orders()) == count + 1


def test_room_is_kept_for_what_becomes_of_orders(books: Any) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    journal.reserve_bytes = 1 << 60
    with pytest.raises(JournalError, match="bytes left") as caught:
        books.place(journal, 2)
    assert "Make room" in caught.value.remedy
    journal.note(key, OrderState.WORKING)
    journal.add_executions([(books.execution("a.b.01.01"), key, "s")])
    journal.reserve_bytes = 0
    books.place(journal, 2)


def day(books: Any, acknowledged: Callable[[str], None]) -> None:
    """Some of everything; each is acknowledged when it is durable."""
    journal = Journal.open(books.path, clock=books.clock)
    acknowledged("open")
    first, second = books.intent(journal, 1), books.intent(journal, 2)
    journal.intend([first, second])
    acknowledged("intend")
    journal.note(first.key, OrderState.WORKING, order_id="1")
    acknowledged("note")
    journal.add_executions(
        [(books.execution("a.b.01.01", "4"), first.key, "s"), (books.execution("x"), None, "s")]
    )
    acknowledged("executions")
    journal.note_event(first.key, "question", "Sure?", durable=False)
    acknowledged("event")
    journal.replace_ticket(first.key, books.intent(journal, 1, limit_price=5.0).ticket)
    acknowledged("ticket")
    journal.set_trading_state(TradingState(mode=Trading.HALTED))
    acknowledged("trading")
    journal.set_positions_baseline("DU1234567", {5: Decimal(3)}, 1)
    acknowledged("baseline")
    journal.close()
    acknowledged("closed")


def found(journal: Journal) -> list[str]:
    """Which of the acts of ``day`` are in the journal, each whole."""
    orders = journal.orders()
    assert len(orders) in (0, 2)
    executions = len(journal.executions())
    assert executions in (0, 2)
    acts = {
        "open": True,
        "intend": bool(orders),
        "note": journal.by_order_id("DU1234567", "1") is not None,
        "executions": executions == 2,
        "event": any(event.kind == "question" for event in journal.events()),
        "ticket": bool(orders) and orders[0].intent.ticket.limit_price == 5.0,
        "trading": journal.trading_state().mode is Trading.HALTED,
        "baseline": journal.positions_baseline("DU1234567") is not None,
    }
    if acts["note"]:
        assert orders[0].state is OrderState.WORKING
    assert bool(orders and orders[0].filled == 4) == acts["executions"]
    return [act for act, there in acts.items() if there]


def test_killed_at_every_step(books: Any, ram: Path) -> None:
    """What was acknowledged is there, and at most the act that was under way beside it, whole."""
    points = 0
    for kill_at in range(1, 1000):
        books.path = ram / str(kill_at) / "journal"
        told = ram / str(kill_at) / "told"
        log = ram / f"steps{kill_at}"
        told.parent.mkdir()
        armed = steps.Steps(kill_at, log)

        def acknowledged(act: str, told: Path = told) -> None:
            with told.open("a") as file:
                file.write(f"{act}\n")

        def work(armed: steps.Steps = armed, acknowledged: Callable[[str], None] = acknowledged) -> None:
            steps.arm(armed)
            day(books, acknowledged)

        status = in_child(work)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        points += 1
        acts = told.read_text().split() if told.exists() else []
        reached = log.read_text().split()
        assert len(reached) == kill_at
        journal = books.open()
        assert journal.repaired is None
        after = found(journal)
        committed = reached[-1].endswith(".committed")
        whole = [*acts, *["intend", "note", "executions", "event", "ticket", "trading", "baseline"]]
        expected = list(dict.fromkeys(whole))[: len(acts) + committed]
        assert after == (expected or ["open"]), reached[-1]
        journal.close()
    print(f"killed at {points} steps")
    assert points == 3 * 7


def test_killed_at_every_step_of_a_repair(books: Any, tmp_path: Path, ram: Path) -> None:
    journal = books.open()
    for number in range(1, 8):
        key = books.place(journal, number)
        journal.note(key, OrderState.WORKING, order_id=str(number))
    execute = journal._database.connection.execute
    (root,) = execute("SELECT rootpage FROM sqlite_schema WHERE name = 'baselines'").fetchone()
    journal.close()
    journal = books.open()
    books.place(journal, 8)
    expected = journal.orders()
    content = {ending: Path(f"{books.path}{ending}").read_bytes() for ending in ("", "-wal")}
    page = slice((root - 1) * PAGE_SIZE, root * PAGE_SIZE)
    content[""] = content[""][: page.start] + bytes(PAGE_SIZE) + content[""][page.stop :]
    journal.close()
    names = []
    for kill_at in range(1, 1000):
        folder = ram / str(kill_at)
        folder.mkdir()
        books.path = folder / "journal"
        for ending, data in content.items():
            Path(f"{books.path}{ending}").write_bytes(data)

        log = tmp_path / f"steps{kill_at}"

        def work(kill_at: int = kill_at, log: Path = log) -> None:
            steps.arm(steps.Steps(kill_at, log))
            Journal.open(books.path, clock=books.clock).close()

        status = in_child(work)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        names.append(log.read_text().split()[-1])
        journal = books.open()
        assert journal.orders() == expected, names[-1]
        (aside,) = folder.glob("journal.damaged-*Z")
        assert aside.read_bytes()[page] == bytes(PAGE_SIZE), names[-1]
        # It is told until it was told and the owner ended in order.
        assert (journal.repaired is None) == (names[-1] == "journal.told.committed")
        assert journal.repaired is None or journal.repaired.set_aside is not None
        left = {file.name for file in folder.iterdir() if "damaged" not in file.name}
        assert left == {"journal", "journal-wal", "journal-shm", "journal.lock"}, names[-1]
        journal.close()
    print(names)
    assert len(names) >= 8
    assert names[-1].startswith("journal.told")


def test_by_environment(books: Any, child: Child, tmp_path: Path) -> None:
    program = OWNER + "\njournal.note_event(None, 'a')\njournal.note_event(None, 'b')\njournal.close()\n"
    log = tmp_path / "steps"
    killed = child(program, books.path, BT_IBKR_KILL_AT="5", BT_IBKR_STEPS_LOG=str(log))
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    names = [f"journal.event.{name}" for name in ("begin", "commit", "committed", "begin", "commit")]
    assert log.read_text().split() == names
    journal = books.open()
    assert [event.kind for event in journal.events()] == ["a"]
    journal.close()
    log.unlink()
    finish(child(program, books.path, BT_IBKR_STEPS_LOG=str(log)))
    assert len(log.read_text().split()) == 6
    wrong = child(program, books.path, BT_IBKR_KILL_AT="often")
    _, error = wrong.communicate(timeout=60)
    assert "BT_IBKR_KILL_AT" in error
    assert "'often'" in error
