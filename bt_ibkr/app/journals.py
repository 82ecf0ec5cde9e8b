"""Journals as the command line visits them: found by account, opened beside their owner, which goes on working."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bt_ibkr.clock import Clock, SystemClock
from bt_ibkr.config import state_directory
from bt_ibkr.errors import UsageError
from bt_ibkr.journal import Journal, journal_path
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.risk import Actor, Who, moved

_PREFIX, _ENDING = "journal-", ".sqlite"
#: Whoever types at the command line.
PERSON = Actor(Who.COMMAND_LINE)


def known_accounts() -> tuple[str, ...]:
    """Accounts that have a journal in the state directory."""
    files = sorted(state_directory().glob(f"{_PREFIX}*{_ENDING}"))
    return tuple(file.name[len(_PREFIX) : -len(_ENDING)] for file in files)


def place_of(account: str, journal: str) -> Path:
    """The file that is meant: the one named, the account's own, or the only one there is.

    Raises:
        UsageError: None is named and there is none, or there are several.
    """
    if journal:
        return Path(journal)
    if account:
        return journal_path(account)
    accounts = known_accounts()
    if len(accounts) != 1:
        there = f"there are several: {', '.join(accounts)}" if accounts else f"{state_directory()} has none"
        raise UsageError(
            f"Which journal is meant was not said, and {there}.",
            remedy="Name the account with --account ID, or the file with --journal FILE.",
        )
    return journal_path(accounts[0])


def existing(place: Path) -> Path:
    """``place``, if a file is there: looking at a journal must not make one.

    Raises:
        UsageError: There is none.
    """
    if not place.is_file():
        raise UsageError(
            f"There is no journal {place}.",
            remedy="Name the account with --account ID, or the file with --journal FILE.",
        )
    return place


@contextlib.contextmanager
def visiting(place: Path, clock: Clock | None = None) -> Iterator[Journal]:
    """The journal, beside its owner."""
    journal = Journal.open(place, clock=clock or SystemClock(), exclusive=False)
    try:
        yield journal
    finally:
        journal.close()


def move_trading(journal: Journal, to: Trading, reason: str) -> TradingState:
    """Set the trading state by a person's word; on the disk when this returns.

    Raises:
        JournalError: It could not be kept: the old state stands.
    """
    before = journal.trading_state()
    state = moved(before, to, by=PERSON, reason=reason, now_ns=SystemClock().now_ns())
    if state is not before:
        journal.set_trading_state(state)
    return state
