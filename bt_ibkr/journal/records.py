"""What the journal gives back: frozen rows."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from bt_ibkr.model.intent import OPEN, OrderIntent, OrderState
from bt_ibkr.model.order import Execution


class EventKind(StrEnum):
    """Kinds of the log's rows that the journal writes by itself; all others are free words of its user."""

    #: An intent was committed. Payload: the intent.
    INTENDED = "intended"
    #: A state, an order id or a text was noted.
    STATE = "state"
    #: A modification was accepted. Payload: the ticket.
    TICKET = "ticket"
    #: The moment at which the adapter ends the order changed. Payload: ``expires_ns``.
    EXPIRY = "expiry"
    #: An execution came in. Payload: the execution, its source, the moment it came.
    EXECUTION = "execution"
    #: What was known of an execution grew: its commission, or the order it belongs to. Payload as above.
    EXECUTION_COMPLETED = "execution_completed"
    #: An execution came again with another price, quantity, side or contract. It changed nothing.
    EXECUTION_CONFLICT = "execution_conflict"
    #: The trading state was set. Payload: the state.
    TRADING = "trading"
    #: Positions were stated as a base to count from.
    BASELINE = "baseline"
    #: The file had been damaged and was mended.
    REPAIRED = "repaired"


RESERVED: Final = frozenset(kind.value for kind in EventKind)


class JournalOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the journal knows it.

    Attributes:
        number: Counts intents, over all strategies.
        intent: With the ticket as it stands after accepted modifications.
        order_id: IBKR's, the newest if it changed.
        filled: Sum of the executions that were not superseded.
        created_ns, changed_ns: When it was intended; when anything about it was last noted.
        text: The last text noted with a state.
    """

    number: int
    intent: OrderIntent
    state: OrderState
    order_id: str | None
    filled: Decimal
    created_ns: int
    changed_ns: int
    text: str = ""

    @property
    def key(self) -> str:
        return self.intent.key

    @property
    def is_open(self) -> bool:
        """Whether it may stand at IBKR."""
        return self.state in OPEN

    @property
    def remaining(self) -> Decimal:
        """What is left to execute, not below 0; 0 for an order by an amount of money."""
        return max(self.intent.ticket.quantity - self.filled, Decimal(0))


class JournalExecution(msgspec.Struct, frozen=True, kw_only=True):
    """An execution as the journal knows it.

    Attributes:
        number: Counts executions, in the order in which they came in.
        key: Of the order it belongs to; ``None`` if it is none of ours, or not known yet.
        source: What brought it: ``stream``, ``trades`` …
        superseded: A correction took its place; it no longer counts.
        seen_ns: When it came in.
    """

    number: int
    execution: Execution
    key: str | None
    source: str
    superseded: bool
    seen_ns: int


class JournalEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the log.

    Attributes:
        kind: One of ``EventKind``, or a word of the journal's user.
        payload: JSON, as text; empty if there is none.
    """

    number: int
    time_ns: int
    key: str | None
    kind: str
    text: str
    payload: str


class PositionsBaseline(msgspec.Struct, frozen=True, kw_only=True):
    """Positions of an account at one moment, as IBKR stated them; zero positions are left out."""

    account: str
    time_ns: int
    positions: dict[int, Decimal]


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """What was found wrong with the file when it was opened, and what was done.

    Attributes:
        found: What was wrong.
        set_aside: The damaged file, kept under another name; ``None`` if only the end of its log was cut.
        orders, executions, events: How many were saved.
        lost_events: Gaps in the numbers of the log: at least so many entries are gone.
        cut_frames: Pages at the end of the write-ahead log that could not be used.
        trading_known: Whether the trading state was saved. If not, trading is halted.
    """

    found: tuple[str, ...]
    set_aside: Path | None = None
    orders: int = 0
    executions: int = 0
    events: int = 0
    lost_events: int = 0
    cut_frames: int = 0
    trading_known: bool = True

    def describe(self) -> str:
        """For people."""
        parts = [f"The journal was damaged: {'; '.join(self.found)}."]
        if self.set_aside is not None:
            parts.append(
                f"It was set aside as {self.set_aside}; {self.orders} orders, {self.executions} executions and "
                f"{self.events} entries of its log were saved into a new one, {self.lost_events} or more were lost."
            )
        if not self.trading_known:
            parts.append("Whether trading was halted is not known: it is halted now.")
        return " ".join(parts)
