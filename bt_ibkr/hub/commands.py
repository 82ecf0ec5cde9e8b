"""What a strategy's process has done in the market: orders, changes, cancellations, on their way to the hub.

None of it waits; what comes of it is told as an event.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from typing import Any

from bt_ibkr.connection.interface import AccountEvent, CancelFailed, ModifyFailed, OrderFailed
from bt_ibkr.connection.mailbox import Mailbox, WakeUp
from bt_ibkr.errors import BtIbkrError, OrderRefusedError, OutcomeUnknownError
from bt_ibkr.hub.following import Following
from bt_ibkr.hub.link import HubLink
from bt_ibkr.hub.requests import Halt, Modify, Place, SetExpiry
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.model.trading import TradingState

_log = logging.getLogger(__name__)


class Commands:
    """See the module. Methods are for cerebro's thread.

    Args:
        link: To the hub.
        following: What is known of orders.
        wake: The store's flag.
    """

    def __init__(self, link: HubLink, following: Following, wake: WakeUp) -> None:
        self._link = link
        self._following = following
        self._wake = wake
        self._lock = threading.Lock()
        self._unanswered: dict[str, concurrent.futures.Future[Any]] = {}
        self._closed = False

    def close(self) -> None:
        """From now on what is not answered may have arrived all the same."""
        self._closed = True

    def unanswered(self) -> frozenset[str]:
        """Keys of submissions that the hub has not answered; from any thread."""
        with self._lock:
            return frozenset(self._unanswered)

    def place(self, intents: tuple[OrderIntent, ...], events: Mailbox[AccountEvent]) -> None:
        """See ``Connection``."""
        self._following.placed(intents)
        future = self._link.ask("place", Place(intents=intents))
        with self._lock:
            self._unanswered.update((intent.key, future) for intent in intents)

        def answered(done: concurrent.futures.Future[Any]) -> None:
            with self._lock:
                for intent in intents:
                    self._unanswered.pop(intent.key, None)
            for intent in intents:
                self._refused(done, events, OrderFailed, intent.key)

        future.add_done_callback(answered)

    def modify(self, key: str, ticket: OrderTicket, events: Mailbox[AccountEvent]) -> None:
        """See ``Connection``."""
        future = self._link.ask("modify", Modify(key=key, ticket=ticket))
        future.add_done_callback(lambda done: self._refused(done, events, ModifyFailed, key))

    def cancel(self, key: str, events: Mailbox[AccountEvent]) -> None:
        """See ``Connection``."""
        future = self._link.ask("cancel", key)
        future.add_done_callback(lambda done: self._refused(done, events, CancelFailed, key))

    def _refused(
        self,
        done: concurrent.futures.Future[Any],
        events: Mailbox[AccountEvent],
        kind: type[OrderFailed | ModifyFailed | CancelFailed],
        key: str,
    ) -> None:
        """The hub's own refusals; IBKR's, and those of the risk limits, come as events."""
        self._wake.set()
        problem = None if done.cancelled() else done.exception()
        if problem is None:
            return
        text = problem.message if isinstance(problem, BtIbkrError) else repr(problem)
        remedy = problem.remedy if isinstance(problem, BtIbkrError) else ""
        error: BtIbkrError = OrderRefusedError(text, remedy=remedy)
        if self._closed:
            # It may have arrived: nobody has said.
            error = OutcomeUnknownError(text, remedy=remedy)
        event = kind(key, error)
        self._following.take(event)
        events.append(event)

    def set_expiry(self, key: str, expires_ns: int | None) -> None:
        """See ``Connection``."""
        self._do("set-expiry", SetExpiry(key=key, expires_ns=expires_ns))

    def reconcile(self, account: str) -> None:
        """See ``Connection``."""
        self._do("reconcile", account)

    def halt(self, state: TradingState, *, cancel_open: bool, flatten: bool) -> None:
        """See ``Connection``."""
        self._do("halt", Halt(state=state, cancel_open=cancel_open, flatten=flatten))

    def _do(self, kind: str, value: object) -> None:
        """Ask; what comes of it is told as an event, also a refusal."""

        def answered(done: concurrent.futures.Future[Any]) -> None:
            self._wake.set()
            problem = None if done.cancelled() else done.exception()
            if problem is not None:
                _log.warning("hub-command-failed kind=%s problem=%s", kind, problem)

        self._link.ask(kind, value).add_done_callback(answered)
