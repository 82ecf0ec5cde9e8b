"""The journal: what is to be sent is written down before it leaves, and what came of it after."""

from bt_ibkr.journal.journal import Journal
from bt_ibkr.journal.opening import journal_path
from bt_ibkr.journal.records import (
    EventKind,
    JournalEvent,
    JournalExecution,
    JournalOrder,
    PositionsBaseline,
    Repair,
)

__all__ = [
    "EventKind",
    "Journal",
    "JournalEvent",
    "JournalExecution",
    "JournalOrder",
    "PositionsBaseline",
    "Repair",
    "journal_path",
]
