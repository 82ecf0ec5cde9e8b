"""What the order service remembers between requests."""

from __future__ import annotations

import random
from collections.abc import Mapping

import msgspec

from bt_ibkr.emulator.services.orders.questions import Question
from bt_ibkr.emulator.types import OrderSpec, Placed


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """An order, a bracket or a change that waits until its questions are answered.

    Attributes:
        account: Whose.
        specs: Parent first.
        questions: Still to be asked, the present one first.
        order_id: The order to change; 0 for new orders.
    """

    account: str
    specs: tuple[OrderSpec, ...]
    questions: tuple[Question, ...]
    order_id: int = 0


class OrdersState:
    """Open questions, ids in use and what the real server's caches make of the first calls.

    Args:
        seed: Of the reply ids.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = random.Random(f"orders-{seed}")
        self._waiting: dict[str, Submission] = {}
        #: cOIDs that were sent; each may be used once in a day.
        self.client_ids: set[str] = set()
        self.primed_orders = False
        self.primed_trades = False
        #: A filtered list of live orders silences ``sor`` until one is forced.
        self.filtered = False

    def ask(self, submission: Submission) -> str:
        """Keep ``submission`` until its question is answered; returns the reply id.

        Whatever else waited for the same account is dropped: the real server takes one order at a time.
        """
        for reply_id in [key for key, one in self._waiting.items() if one.account == submission.account]:
            del self._waiting[reply_id]
        bits = f"{self._random.getrandbits(128):032x}"
        reply_id = "-".join((bits[:8], bits[8:12], bits[12:16], bits[16:20], bits[20:]))
        self._waiting[reply_id] = submission
        return reply_id

    def answer(self, reply_id: str) -> Submission | None:
        """The submission that waits under ``reply_id``; an id is good for one answer."""
        return self._waiting.pop(reply_id, None)

    @property
    def submissions(self) -> dict[str, Submission]:
        """All submissions that wait, by reply id."""
        return dict(self._waiting)

    def restore(
        self, values: Mapping[str, object], submissions: Mapping[str, Submission], restarts: int
    ) -> None:
        """Be what it was before the server was started again; reply ids of its time do not come again."""
        self._random.seed(f"orders-{self._seed}-{restarts}")
        self._waiting = dict(submissions)
        for name, value in values.items():
            setattr(self, name, value)

    def waiting(self, reply_id: str) -> Submission | None:
        """The submission that waits under ``reply_id``; it goes on waiting."""
        return self._waiting.get(reply_id)

    def register(self, placed: list[Placed]) -> None:
        """Note the client ids of orders that were taken."""
        for one in placed:
            if one.order is not None and one.order.spec.client_order_id:
                self.client_ids.add(one.order.spec.client_order_id)

    def forget_session(self) -> None:
        """The brokerage session ended."""
        self._waiting.clear()
        self.primed_orders = self.primed_trades = self.filtered = False
