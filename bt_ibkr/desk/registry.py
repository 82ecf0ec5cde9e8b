"""The orders that this process knows, by key and by IBKR's id."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Protocol

from bt_ibkr.connection.interface import AccountEvent
from bt_ibkr.journal import steps
from bt_ibkr.model.intent import OPEN, OrderIntent, OrderState
from bt_ibkr.model.order import OrderTicket


class Sink(Protocol):
    """Who is told of an order: a mailbox, or a strategy at the far end of the hub."""

    def append(self, item: AccountEvent) -> None: ...


class Tracked:
    """One order.

    Attributes:
        intent: As it was placed; its ticket as it stands now.
        sink: Who placed it; ``None`` while nobody of this process has taken it over.
        order_id: IBKR's, once it is known.
        filled: What has executed of it, corrections considered.
        group: The one-cancels-others group it is of, kept by whomever.
        cancel_asked: Its cancellation was asked for here.
        cancel_wanted: To be cancelled as soon as it has an id.
        ended: Set once it will not execute any more.
    """

    __slots__ = (
        "_state",
        "cancel_asked",
        "cancel_wanted",
        "ended",
        "filled",
        "group",
        "intent",
        "order_id",
        "sink",
        "ticket",
    )

    def __init__(self, intent: OrderIntent, sink: Sink | None) -> None:
        self.intent = intent
        self.ticket: OrderTicket = intent.ticket
        self.sink = sink
        self.order_id: str | None = None
        self._state = OrderState.INTENDED
        self.filled = Decimal(0)
        self.group = intent.group
        self.cancel_asked = False
        self.cancel_wanted = False
        self.ended = asyncio.Event()

    @property
    def state(self) -> OrderState:
        return self._state

    @state.setter
    def state(self, state: OrderState) -> None:
        self._state = state
        if state in OPEN:
            self.ended.clear()
        else:
            self.ended.set()

    @property
    def key(self) -> str:
        return self.intent.key

    @property
    def account(self) -> str:
        return self.ticket.account

    @property
    def open(self) -> bool:
        return self.state in OPEN

    def tell(self, event: AccountEvent) -> None:
        if self.sink is not None:
            steps.step("desk.tell.before")
            self.sink.append(event)
            steps.step("desk.tell.after")


class Registry:
    """All orders of the session, ended ones too: their executions may come late."""

    def __init__(self) -> None:
        self._by_key: dict[str, Tracked] = {}
        self._by_id: dict[str, Tracked] = {}

    def add(self, intent: OrderIntent, sink: Sink | None) -> Tracked:
        tracked = self._by_key[intent.key] = Tracked(intent, sink)
        return tracked

    def give_id(self, tracked: Tracked, order_id: str) -> bool:
        """Whether that is news. An order may get another id; reports under the older one, which stays known, may come
        later and change nothing."""
        if self._by_id.get(order_id) is tracked:
            return False
        self._by_id[order_id] = tracked
        tracked.order_id = order_id
        return True

    def get(self, key: str) -> Tracked | None:
        return self._by_key.get(key)

    def find(self, order_id: str | None, order_ref: str | None) -> Tracked | None:
        """By IBKR's id, else by the ``cOID``, which is the key."""
        tracked = self._by_id.get(order_id or "")
        return tracked if tracked is not None or not order_ref else self._by_key.get(order_ref)

    def __iter__(self) -> Iterator[Tracked]:
        return iter(self._by_key.values())
