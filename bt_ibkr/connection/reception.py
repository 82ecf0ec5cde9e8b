"""What the stream brings, on its way to the desk, to mailboxes and to the store. Runs on the session's loop."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

from bt_ibkr.connection.interface import AccountEvent, GapReported, LedgerChanged, SessionNotice, StoreEvent
from bt_ibkr.desk.trading import TradingDesk
from bt_ibkr.desk.view import SessionView
from bt_ibkr.errors import WireError
from bt_ibkr.session.states import SessionEvent
from bt_ibkr.wire import stream_events
from bt_ibkr.wire.frames import Frame
from bt_ibkr.wire.order_answers import Prompt

_log = logging.getLogger(__name__)

#: So many different refusals of the stream are told while it stands.
_MOST_ERRORS = 100


class EventSink(Protocol):
    """Who is told of an account: a mailbox, or a strategy at the far end of the hub."""

    def append(self, item: AccountEvent) -> None: ...


class StoreSink(Protocol):
    """Who is told of the session: a store's mailbox, or the hub."""

    def append(self, item: StoreEvent) -> None: ...


class Reception:
    """Frames that are no quotes, refusals, gaps; and how many there were.

    Args:
        unknown: Told of topics that nobody here knows; ``None`` for a frame without one.

    Attributes:
        store: Who is told of the session, once there is somebody.
        desk, view: Once an account is attached.
        boxes: Who is told of an account's cash, by account.
        errors, unreadable, gaps, gap_ns: Counted: refusals, reports that could not be understood, interruptions and
            the market time they lasted.
    """

    def __init__(self, unknown: Callable[[str | None], None]) -> None:
        self._unknown = unknown
        self.store: StoreSink | None = None
        self.desk: TradingDesk | None = None
        self.view: SessionView | None = None
        self.boxes: dict[str, list[EventSink]] = defaultdict(list)
        self.errors = 0
        self.unreadable = 0
        self.gaps = 0
        self.gap_ns = 0
        #: Refusals told since the stream stands: renewals repeat them every few minutes.
        self._errors_told: set[str] = set()
        self._handlers: dict[str, Callable[[Frame], None]] = {
            "sor": self._on_orders,
            "str": self._on_executions,
            "spl": self._on_pnl,
            "ntf": self._on_notices,
            "blt": self._on_notices,
        }

    def tell(self, kind: str, text: str) -> None:
        """Something for ``notify_store``."""
        if self.store is not None:
            self.store.append(SessionNotice(kind, text))

    def attach(self, account: str, box: EventSink) -> None:
        """Tell ``box`` of the account's cash from now on."""
        if not any(one is box for one in self.boxes[account]):
            self.boxes[account].append(box)

    def back(self) -> None:
        """The stream stands anew: what it refuses is told anew."""
        self._errors_told.clear()

    def report_gap(self, broken: SessionEvent, end_ns: int, topics: tuple[str, ...]) -> None:
        """The stream is back after ``broken``."""
        if self.store is None:
            return
        gap = GapReported(start_ns=broken.since_ns, end_ns=end_ns, topics=topics, cause=broken.cause)
        self.gaps += 1
        self.gap_ns += gap.end_ns - gap.start_ns
        _log.warning("stream-gap start_ns=%d end_ns=%d cause=%s", gap.start_ns, gap.end_ns, gap.cause)
        self.store.append(gap)

    # -- frames --------------------------------------------------------------------------------------

    def take(self, frame: Frame) -> None:
        """One frame."""
        topic = frame.topic
        if topic is None:
            self._unknown(None)
            return
        if frame.error and not bytes(frame.args):
            # A refusal, of whatever topic.
            self._on_error(topic, frame.error)
            return
        handler = self._handlers.get(topic)
        if handler is None and topic.startswith("sld"):
            handler = self._on_ledger
        if handler is None:
            self._unknown(topic)
            return
        try:
            handler(frame)
        except WireError as problem:
            # A report that cannot be understood is never guessed at: it is told, loudly.
            self.unreadable += 1
            _log.error("report-unreadable topic=%s problem=%s", topic, problem)
            self.tell("unreadable", f"{topic}: {problem}")

    def _on_error(self, topic: str, error: str) -> None:
        self.errors += 1
        if error in self._errors_told or len(self._errors_told) >= _MOST_ERRORS:
            _log.debug("stream-error topic=%s error=%s again", topic, error)
            return
        self._errors_told.add(error)
        _log.warning("stream-error topic=%s error=%s", topic, error)
        self.tell("error", f"{topic}: {error}")

    def _on_orders(self, frame: Frame) -> None:
        if self.desk is not None:
            self.desk.take_reports(stream_events.order_reports(bytes(frame.args)))

    def _on_executions(self, frame: Frame) -> None:
        if self.desk is not None:
            self.desk.take_executions(stream_events.executions(bytes(frame.args)))

    def _on_ledger(self, frame: Frame) -> None:
        account = (frame.topic or "").partition("+")[2]
        boxes = self.boxes.get(account)
        if not boxes or not (lines := stream_events.ledger_lines(bytes(frame.result))):
            return
        if self.view is not None:
            self.view.take_ledger(account, lines)
        for box in boxes:
            box.append(LedgerChanged(account, tuple(lines)))

    def _on_pnl(self, frame: Frame) -> None:
        for line in stream_events.account_pnl(bytes(frame.args)):
            if self.view is not None and line.daily is not None:
                self.view.take_pnl(line.account, line.daily)
                if self.desk is not None and line.account in self.desk.accounts:
                    self.desk.pnl_changed(line.account)

    def _on_notices(self, frame: Frame) -> None:
        if frame.topic == "ntf" and self.desk is not None:
            for notice in stream_events.notices(bytes(frame.args)):
                if isinstance(notice, Prompt):
                    self.desk.take_prompt(notice)
        self.tell("notice", bytes(frame.args).decode("utf-8", "replace")[:1000])
