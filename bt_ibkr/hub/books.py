"""A virtual book per strategy: positions, cost, profit and cash, that sum to the account's.

Pure: executions and entries in, figures out. What belongs to no strategy (positions from before the hub, other
programs' trades, whatever IBKR reports and no execution explains) is in the book ``unallocated``, so that the books
of an account always sum to its positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

import msgspec

from bt_ibkr.errors import UsageError
from bt_ibkr.model.order import Execution

#: The book of what no strategy has done.
UNALLOCATED: Final = "unallocated"


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """Quantity moved from one book to another: nothing is traded.

    Attributes:
        source, target: Names of books.
        quantity: Signed, as it is added to ``target``.
        price: At which it changes hands; by default at the cost that ``source`` has it at.
    """

    account: str
    conid: int
    source: str
    target: str
    quantity: Decimal
    price: float | None = None


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What a book has of one contract.

    Attributes:
        quantity: Signed.
        average_price: Per unit, without commissions; 0.0 if nothing is held.
        realised: Profit taken, in the contract's currency, commissions not subtracted.
        commission: Paid.
        bought, sold: Units traded so far.
        flow: Money that trading has moved, in the contract's currency: below 0 was paid.
    """

    conid: int
    quantity: Decimal
    average_price: float
    realised: float
    commission: float
    bought: Decimal
    sold: Decimal
    flow: float


class BookView(msgspec.Struct, frozen=True, kw_only=True):
    """A book at one moment."""

    account: str
    name: str
    holdings: tuple[Holding, ...]


class _Line:
    __slots__ = ("average", "bought", "commission", "flow", "quantity", "realised", "sold")

    def __init__(self) -> None:
        self.quantity = Decimal(0)
        self.average = 0.0
        self.realised = 0.0
        self.commission = 0.0
        self.bought = Decimal(0)
        self.sold = Decimal(0)
        self.flow = 0.0

    def move(self, quantity: Decimal, price: float, multiplier: float) -> None:
        """Average cost: what adds to a position changes its price, what reduces it takes profit."""
        before, after = self.quantity, self.quantity + quantity
        if before * quantity >= 0:
            total = float(before) * self.average + float(quantity) * price
            self.average = total / float(after) if after else 0.0
        else:
            closed = min(abs(before), abs(quantity))
            sign = 1 if before > 0 else -1
            self.realised += float(closed) * sign * (price - self.average) * multiplier
            if abs(quantity) > abs(before):
                self.average = price
            elif not after:
                self.average = 0.0
        self.quantity = after


class Book:
    """One book of one account.

    Args:
        account, name: Whose.
    """

    def __init__(self, account: str, name: str) -> None:
        self.account = account
        self.name = name
        self._lines: dict[int, _Line] = {}

    def quantity(self, conid: int) -> Decimal:
        line = self._lines.get(conid)
        return Decimal(0) if line is None else line.quantity

    def average_price(self, conid: int) -> float:
        line = self._lines.get(conid)
        return 0.0 if line is None else line.average

    @property
    def conids(self) -> tuple[int, ...]:
        """Whatever it holds or has traded."""
        return tuple(self._lines)

    def trade(self, execution: Execution, multiplier: float, *, sign: int = 1) -> None:
        """One execution, or with ``sign`` -1 one taken back."""
        line = self._line(execution.conid)
        signed = execution.quantity * execution.side.sign * sign
        line.move(signed, execution.price, multiplier)
        if execution.side.sign > 0:
            line.bought += execution.quantity * sign
        else:
            line.sold += execution.quantity * sign
        line.flow -= float(signed) * execution.price * multiplier
        self.pay(execution.conid, (execution.commission or 0.0) * sign)

    def pay(self, conid: int, commission: float) -> None:
        """A commission that came later, or what it changed by."""
        line = self._line(conid)
        line.commission += commission
        line.flow -= commission

    def move(self, conid: int, quantity: Decimal, price: float, multiplier: float) -> None:
        """Something that was not traded: a transfer, a correction, a position from before."""
        self._line(conid).move(quantity, price, multiplier)

    def _line(self, conid: int) -> _Line:
        return self._lines.setdefault(conid, _Line())

    def view(self) -> BookView:
        """As it stands; what it neither holds nor has traded is left out."""
        return BookView(
            account=self.account,
            name=self.name,
            holdings=tuple(
                Holding(
                    conid=conid,
                    quantity=line.quantity,
                    average_price=line.average,
                    realised=line.realised,
                    commission=line.commission,
                    bought=line.bought,
                    sold=line.sold,
                    flow=line.flow,
                )
                for conid, line in sorted(self._lines.items())
                if line.quantity or line.bought or line.sold or line.realised
            ),
        )


class AccountBooks:
    """All books of one account.

    Args:
        account: IBKR's id.
    """

    def __init__(self, account: str) -> None:
        self.account = account
        self._books: dict[str, Book] = {}
        #: Executions in the books: whose, and as they were counted.
        self._owners: dict[str, str] = {}
        self._counted: dict[str, Execution] = {}
        self._multipliers: dict[int, float] = {}

    def know(self, conid: int, multiplier: float) -> None:
        """Units of currency per point of a contract's price."""
        self._multipliers[conid] = multiplier

    def multiplier(self, conid: int) -> float:
        return self._multipliers.get(conid, 1.0)

    def book(self, name: str) -> Book:
        """The book of that name; an empty one from now on, if there was none."""
        return self._books.setdefault(name, Book(self.account, name))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._books)

    def owner(self, execution_id: str) -> str | None:
        """In whose book an execution is."""
        return self._owners.get(execution_id)

    def take(self, execution: Execution, name: str | None, replaces: Execution | None = None) -> bool:
        """Count an execution, once.

        Args:
            execution: Of the account.
            name: Whose order it was of; ``None`` if of nobody here.
            replaces: The execution that it corrects.

        Returns:
            Whether it changed a book. A combo's execution as a whole does not: those of its legs come besides.
        """
        if execution.legs or execution.execution_id in self._owners:
            return False
        if replaces is not None:
            name = self._owners.get(replaces.execution_id, name)
            before = self._counted.pop(replaces.execution_id, None)
            if before is not None:
                multiplier = self.multiplier(before.conid)
                self.book(name or UNALLOCATED).trade(before, multiplier, sign=-1)
        owner = name or UNALLOCATED
        self._owners[execution.execution_id] = owner
        self._counted[execution.execution_id] = execution
        self.book(owner).trade(execution, self.multiplier(execution.conid))
        return True

    def take_commission(self, execution: Execution) -> str | None:
        """A commission that came after its execution; whose book it is of."""
        owner = self._owners.get(execution.execution_id)
        before = self._counted.get(execution.execution_id)
        if owner is None or before is None or execution.commission is None:
            return owner
        self._counted[execution.execution_id] = execution
        self.book(owner).pay(execution.conid, execution.commission - (before.commission or 0.0))
        return owner

    def transfer_price(self, wanted: Transfer) -> float:
        """At which a transfer would change hands.

        Raises:
            UsageError: Quantity 0, or from a book to itself, or more than the source has.
        """
        if not wanted.quantity or wanted.source == wanted.target:
            raise UsageError(
                f"A transfer of {wanted.quantity} from {wanted.source!r} to {wanted.target!r} moves nothing.",
                remedy="Name two books and a quantity other than 0.",
            )
        source = self.book(wanted.source)
        held = source.quantity(wanted.conid)
        if held * wanted.quantity <= 0 or abs(held) < abs(wanted.quantity):
            raise UsageError(
                f"The book {wanted.source!r} has {held} of {wanted.conid}: {wanted.quantity} of it cannot be moved.",
                remedy="Look at bt-ibkr hub status for what each book has.",
            )
        return source.average_price(wanted.conid) if wanted.price is None else wanted.price

    def transfer(self, wanted: Transfer) -> None:
        """Move quantity between books.

        Raises:
            UsageError: As ``transfer_price``.
        """
        price = self.transfer_price(wanted)
        multiplier = self.multiplier(wanted.conid)
        self.book(wanted.source).move(wanted.conid, -wanted.quantity, price, multiplier)
        self.book(wanted.target).move(wanted.conid, wanted.quantity, price, multiplier)

    def adjust(self, conid: int, quantity: Decimal, price: float) -> None:
        """What IBKR reports beyond the books goes to ``unallocated``."""
        self.book(UNALLOCATED).move(conid, quantity, price, self.multiplier(conid))

    def total(self, conid: int) -> Decimal:
        """Of all books together."""
        return sum((book.quantity(conid) for book in self._books.values()), Decimal(0))

    def totals(self) -> dict[int, Decimal]:
        """Of all books together, by contract; 0 left out."""
        conids = {conid for book in self._books.values() for conid in book.conids}
        return {conid: total for conid in sorted(conids) if (total := self.total(conid))}

    def differences(self, reported: Iterable[tuple[int, Decimal]]) -> dict[int, Decimal]:
        """By how much IBKR's positions are above the books', by contract, where they differ."""
        theirs = dict(reported)
        conids = {*theirs, *self.totals()}
        found = {conid: theirs.get(conid, Decimal(0)) - self.total(conid) for conid in sorted(conids)}
        return {conid: difference for conid, difference in found.items() if difference}

    def views(self) -> tuple[BookView, ...]:
        """All books, ``unallocated`` last."""
        names = sorted(self._books, key=lambda name: (name == UNALLOCATED, name))
        return tuple(self._books[name].view() for name in names)
