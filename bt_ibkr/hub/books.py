"""A virtual book per strategy: positions, cost, profit and cash, that sum to the account's.

Pure: executions and entries in, figures out. What belongs to no strategy (positions from before the hub, other
programs' trades, whatever IBKR reports and no execution explains) is in the book ``unallocated``, so that the books
of an account always sum to its positions.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from decimal import Decimal

import msgspec

from bt_ibkr.errors import UsageError
from bt_ibkr.hub.lines import Entry, Line
from bt_ibkr.hub.names import UNALLOCATED
from bt_ibkr.model.order import Execution


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """Quantity moved from one book to another: nothing is traded.

    Attributes:
        source, target: Names of books.
        quantity: Signed, as it is added to ``target``.
        price: At which it changes hands; by default at the cost that ``source`` has it at.
        reference: Tells a transfer that is asked for again, its answer lost, from a second one.
    """

    account: str
    conid: int
    source: str
    target: str
    quantity: Decimal
    price: float | None = None
    reference: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What a book has of one contract.

    Attributes:
        quantity: Signed.
        average_price: Per unit, without commissions; 0.0 if nothing is held.
        realised: Profit taken, in the contract's currency, commissions not subtracted.
        commission: Paid.
        bought, sold: Units traded so far.
        flow: Money that trades, transfers and commissions have moved, in the contract's currency: below 0 was paid.
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


class Book:
    """One book of one account.

    Args:
        account, name: Whose.
        multipliers: Of contracts, as far as they are known; shared by the account's books.
    """

    def __init__(self, account: str, name: str, multipliers: dict[int, float]) -> None:
        self.account = account
        self.name = name
        self._multipliers = multipliers
        self._lines: dict[int, Line] = {}

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

    def trade(self, execution: Execution, *, moves: bool = True) -> None:
        """One execution; one that does not move the position costs its commission alone."""
        self._line(execution.conid).append(_trade(execution, moves=moves))

    def correct(self, before: Execution, execution: Execution, *, moves: bool = True) -> None:
        """``execution`` in the place of ``before``, which is in this book."""
        self._line(before.conid).replace(before.execution_id, _trade(execution, moves=moves))

    def pay(self, execution: Execution) -> None:
        """An execution's commission that came later, or changed."""
        self._line(execution.conid).pay(execution.execution_id, execution.commission or 0.0)

    def move(self, conid: int, quantity: Decimal, price: float, *, paid: bool, as_of_ns: int = 0) -> None:
        """Something that was not traded: a transfer, which is paid for, or what IBKR reports, which is not."""
        self._line(conid).append(Entry(quantity, price, paid=paid, as_of_ns=as_of_ns))

    def explain(self, execution: Execution) -> bool:
        """Whether IBKR had reported an execution before it came; it is in nothing that is unexplained any more."""
        line = self._lines.get(execution.conid)
        return line is not None and line.explain(execution.time_ns, _signed(execution))

    def know(self, conid: int) -> None:
        """The contract's multiplier is another one than it was taken for."""
        line = self._lines.get(conid)
        if line is not None:
            line.recount(self._multipliers.get(conid, 1.0))

    def _line(self, conid: int) -> Line:
        line = self._lines.get(conid)
        if line is None:
            line = self._lines[conid] = Line(self._multipliers.get(conid, 1.0))
        return line

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
                if line.quantity or line.bought or line.sold or line.realised or line.flow
            ),
        )


def _trade(execution: Execution, *, moves: bool) -> Entry:
    return Entry(
        execution.quantity * execution.side.sign if moves else Decimal(0),
        execution.price,
        execution_id=execution.execution_id,
        commission=execution.commission or 0.0,
    )


class AccountBooks:
    """All books of one account.

    Args:
        account: IBKR's id.
    """

    def __init__(self, account: str) -> None:
        self.account = account
        self._books: dict[str, Book] = {}
        #: Executions by id: in whose book, and as they were counted.
        self._owners: dict[str, str] = {}
        self._counted: dict[str, Execution] = {}
        self._multipliers: dict[int, float] = {}
        #: Executions that came so late that IBKR had reported their positions before.
        self.explained = 0

    def know(self, conid: int, multiplier: float) -> None:
        """Units of currency per point of a contract's price. What was counted with another one is counted again."""
        if self._multipliers.get(conid, 1.0) != multiplier:
            self._multipliers[conid] = multiplier
            for book in self._books.values():
                book.know(conid)

    def multiplier(self, conid: int) -> float:
        return self._multipliers.get(conid, 1.0)

    def book(self, name: str) -> Book:
        """The book of that name; an empty one from now on, if there was none."""
        found = self._books.get(name)
        if found is None:
            found = self._books[name] = Book(self.account, name, self._multipliers)
        return found

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._books)

    def owner(self, execution_id: str) -> str | None:
        """In whose book an execution is."""
        return self._owners.get(execution_id)

    def take(
        self,
        execution: Execution,
        name: str | None,
        replaces: Execution | None = None,
        *,
        moves: bool = True,
    ) -> bool:
        """Count an execution, once.

        Args:
            execution: Of the account.
            name: Whose order it was of; ``None`` if of nobody here.
            replaces: The execution that it corrects.
            moves: It changes a position; not so a conversion of money.

        Returns:
            Whether it changed a book. A combo's execution as a whole does not: those of its legs come besides.
        """
        if execution.execution_id in self._owners:
            return False
        owner = self._owners[execution.execution_id] = self._owner_of(name, replaces)
        if execution.legs:
            return False
        self._counted[execution.execution_id] = execution
        before = None if replaces is None else self._counted.pop(replaces.execution_id, None)
        if before is not None:
            self.book(owner).correct(before, execution, moves=moves)
        elif replaces is not None and moves:
            # What it corrects is older than the books, and is in the position that they began with.
            change = _signed(execution) - _signed(replaces)
            self.book(owner).move(execution.conid, change, execution.price, paid=False)
            del self._counted[execution.execution_id]
        else:
            self.book(owner).trade(execution, moves=moves)
            if replaces is None and moves and self.book(UNALLOCATED).explain(execution):
                self.explained += 1
        return True

    def _owner_of(self, name: str | None, replaces: Execution | None) -> str:
        before = None if replaces is None else self._owners.get(replaces.execution_id)
        return before or name or UNALLOCATED

    def take_commission(self, execution: Execution) -> str | None:
        """A commission that came after its execution; whose book it is of."""
        owner = self._owners.get(execution.execution_id)
        if owner is None or execution.execution_id not in self._counted or execution.commission is None:
            return owner
        self._counted[execution.execution_id] = execution
        self.book(owner).pay(execution)
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
        """Move quantity between books; who takes it pays its price to who gives it. Not checked again: it may be one
        that was done before the last restart."""
        price = wanted.price
        if price is None:
            price = self.book(wanted.source).average_price(wanted.conid)
        self.book(wanted.source).move(wanted.conid, -wanted.quantity, price, paid=True)
        self.book(wanted.target).move(wanted.conid, wanted.quantity, price, paid=True)

    def adjust(self, conid: int, quantity: Decimal, price: float, as_of_ns: int = 0) -> None:
        """What IBKR reports beyond the books goes to ``unallocated``.

        Executions from before ``as_of_ns`` are in what it reported: one that comes only now takes the place of its
        part of it, so that it does not count twice.
        """
        self.book(UNALLOCATED).move(conid, quantity, price, paid=False, as_of_ns=as_of_ns)

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


def _signed(execution: Execution) -> Decimal:
    return execution.quantity * execution.side.sign
