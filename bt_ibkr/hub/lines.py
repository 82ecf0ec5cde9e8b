"""One contract in one book: what moved the position, and what that makes of it.

Pure. Entries stand in the order in which they came; one that is put right counts anew from its own place.
"""

from __future__ import annotations

from decimal import Decimal


class Entry:
    """Something that moved a position.

    Attributes:
        quantity: Signed; 0 for a conversion of money, which costs a commission and moves no position.
        execution_id: Of a trade; empty for a transfer and what IBKR reports beyond the books.
        paid: Money changed hands.
        as_of_ns: Of what IBKR reports beyond the books: executions from before then are in it. Else 0.
    """

    __slots__ = ("as_of_ns", "commission", "execution_id", "paid", "price", "quantity")

    def __init__(
        self,
        quantity: Decimal,
        price: float,
        *,
        execution_id: str = "",
        commission: float = 0.0,
        paid: bool = True,
        as_of_ns: int = 0,
    ) -> None:
        self.quantity = quantity
        self.price = price
        self.execution_id = execution_id
        self.commission = commission
        self.paid = paid
        self.as_of_ns = as_of_ns


class Line:
    """One contract in one book, counted from its entries: a correction takes the place of what it corrects."""

    __slots__ = (
        "_entries",
        "average",
        "bought",
        "commission",
        "flow",
        "multiplier",
        "quantity",
        "realised",
        "sold",
    )

    def __init__(self, multiplier: float) -> None:
        self.multiplier = multiplier
        self._entries: list[Entry] = []
        self._clear()

    def _clear(self) -> None:
        self.quantity = self.bought = self.sold = Decimal(0)
        self.average = self.realised = self.commission = self.flow = 0.0

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._count(entry)

    def recount(self, multiplier: float | None = None) -> None:
        """Anew from the first entry on."""
        if multiplier is not None:
            self.multiplier = multiplier
        self._clear()
        for entry in self._entries:
            self._count(entry)

    def replace(self, execution_id: str, entry: Entry) -> None:
        """``entry`` in the place of a trade."""
        self._entries[self._place(execution_id)] = entry
        self.recount()

    def pay(self, execution_id: str, commission: float) -> None:
        """A trade's commission, as it is known now."""
        entry = self._entries[self._place(execution_id)]
        self.commission += commission - entry.commission
        self.flow -= commission - entry.commission
        entry.commission = commission

    def explain(self, time_ns: int, quantity: Decimal) -> bool:
        """An execution of ``time_ns`` that came late was in what IBKR had reported: that is less by it from now on.

        Returns:
            ``False`` if nothing was reported after that execution.
        """
        for entry in self._entries:
            if time_ns < entry.as_of_ns:
                entry.quantity -= quantity
                self.recount()
                return True
        return False

    def _place(self, execution_id: str) -> int:
        # What is corrected or told late is mostly recent.
        for place in range(len(self._entries) - 1, -1, -1):
            if self._entries[place].execution_id == execution_id:
                return place
        raise KeyError(execution_id)

    def _count(self, entry: Entry) -> None:
        quantity, price = entry.quantity, entry.price
        if entry.execution_id:
            self.bought += max(quantity, Decimal(0))
            self.sold -= min(quantity, Decimal(0))
        if entry.paid:
            self.flow -= float(quantity) * price * self.multiplier
        self.commission += entry.commission
        self.flow -= entry.commission
        self._move(quantity, price)

    def _move(self, quantity: Decimal, price: float) -> None:
        """Average cost: what adds to a position changes its price, what reduces it takes profit."""
        before, after = self.quantity, self.quantity + quantity
        if before * quantity >= 0:
            if quantity:
                total = float(before) * self.average + float(quantity) * price
                self.average = total / float(after)
        else:
            closed = min(abs(before), abs(quantity))
            sign = 1 if before > 0 else -1
            self.realised += float(closed) * sign * (price - self.average) * self.multiplier
            if abs(quantity) > abs(before):
                self.average = price
            elif not after:
                self.average = 0.0
        self.quantity = after
