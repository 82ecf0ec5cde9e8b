"""Fault 87: ``startTime`` read the wrong way gives bars of another time, and no error. Found by their age."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.connection.interface import FeedEvent, HistoryArrived
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.model.contract import Contract
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.history import HistoryRequest

if TYPE_CHECKING:
    from tests.faults.conftest import Bed, MakeBed

MINUTE = 60_000_000_000
DAY = 1440 * MINUTE


def _contract(made: Bed) -> Contract:
    return made.connection.resolve(ContractQuery(text="AAPL", symbol="AAPL"))


def _ask(made: Bed, contract: Contract, start_ns: int, end_ns: int, **more: Any) -> HistoryArrived:
    answers: Mailbox[FeedEvent] = Mailbox(made.wake)
    request = HistoryRequest(contract=contract, bar_ns=MINUTE, start_ns=start_ns, end_ns=end_ns, **more)
    made.connection.request_history(request, 1, answers)
    made.until(lambda: len(answers) == 1)
    arrived = answers.take()
    assert isinstance(arrived, HistoryArrived)
    return arrived


def test_87_start_time_is_the_windows_end(bed: MakeBed) -> None:
    """As it should be: the newest bar is as old as was asked for, and no older."""
    made = bed({"history_days": 5})
    now_ns = made.emulator.call(lambda server: server.core.now_ns)
    contract = _contract(made)
    # Thursday's last half hour: 20:30 to 21:00 UTC.
    end_ns = now_ns - 3 * DAY - 17 * 60 * MINUTE - 30 * MINUTE
    found = _ask(made, contract, end_ns - 30 * MINUTE, end_ns)
    assert found.error is None
    assert [bar.end_ns for bar in found.bars] == [end_ns - k * MINUTE for k in reversed(range(30))]


@pytest.mark.parametrize("most", [0, 50])
def test_87_taken_for_the_beginning(bed: MakeBed, most: int) -> None:
    """Bars after the window: refused with the reason, not taken for a window without bars."""
    made = bed({"history_days": 5})
    now_ns = made.emulator.call(lambda server: server.core.now_ns)
    made.fault("history", action="start")
    found = _ask(made, _contract(made), now_ns - 6 * DAY, now_ns - 4 * DAY, most=most)
    assert found.bars == ()
    assert "takes startTime for the window's beginning" in str(found.error)


@pytest.mark.parametrize("most", [0, 50])
def test_87_stale_without_an_error(bed: MakeBed, most: int) -> None:
    """Bars of long before, in answer to a span that ends now."""
    made = bed({"history_days": 25})
    now_ns = made.emulator.call(lambda server: server.core.now_ns)
    made.fault("history", action="stale", days=20)
    found = _ask(made, _contract(made), now_ns - 2 * DAY, now_ns, most=most)
    assert found.bars == ()
    assert "days before" in str(found.error)
    made.clear()
    assert _ask(made, _contract(made), now_ns - 4 * DAY, now_ns).bars


def test_87_holidays_are_no_fault(bed: MakeBed) -> None:
    """Over a week-end the newest bar is Friday's, which is as it should be."""
    made = bed({"history_days": 5})
    now_ns = made.emulator.call(lambda server: server.core.now_ns)
    found = _ask(made, _contract(made), now_ns - 4 * DAY, now_ns)
    assert found.error is None
    assert found.bars[-1].end_ns == now_ns - 2 * DAY - 17 * 60 * MINUTE - 30 * MINUTE
