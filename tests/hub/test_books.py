"""Books are pure: whatever happens in whatever order, they sum to the account, and a restart counts them the same."""

from __future__ import annotations

import itertools
import tempfile
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.errors import UsageError
from bt_ibkr.hub.bookkeeping import Bookkeeper
from bt_ibkr.hub.books import AccountBooks, BookView, Transfer
from bt_ibkr.hub.names import UNALLOCATED
from bt_ibkr.hub.settling import APART_S
from bt_ibkr.journal import Journal
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.intent import OrderIntent, make_key
from bt_ibkr.model.order import Execution, OrderTicket, OrderType, Side
from bt_ibkr.model.portfolio import Position
from bt_ibkr.services.executions import ExecutionBook

ACCOUNT = "DU1"
STOCK, FUTURE = 1, 2
MULTIPLIERS = {STOCK: 1, FUTURE: 50}
NAMES = ("alpha", "beta", "gamma")

quantities = st.integers(1, 50).map(lambda n: Decimal(n) / 2)
prices = st.integers(1, 4000).map(lambda n: n / 4)
commissions = st.integers(0, 40).map(lambda n: n / 4)
conids = st.sampled_from((STOCK, FUTURE))


class Moved(NamedTuple):
    """An entry of the independent calculation."""

    execution_id: str
    quantity: Fraction
    price: Fraction
    commission: Fraction
    paid: bool


def by_hand(entries: list[Moved], multiplier: int) -> dict[str, Fraction]:
    """Average cost, in fractions: the open part's cost goes down in proportion to what is closed."""
    size = cost = realised = commission = flow = Fraction(0)
    for one in entries:
        commission += one.commission
        flow -= one.commission
        if one.paid:
            flow -= one.quantity * one.price * multiplier
        closing = Fraction(0)
        if size * one.quantity < 0:
            closing = -size if abs(one.quantity) >= abs(size) else one.quantity
            part = cost * closing / size
            realised += (-closing * one.price - -part) * multiplier
            cost += part
            size += closing
        opening = one.quantity - closing
        size += opening
        cost += opening * one.price
    return {
        "quantity": size,
        "average_price": cost / size if size else Fraction(0),
        "realised": realised,
        "commission": commission,
        "flow": flow,
    }


class BooksMachine(RuleBasedStateMachine):
    """Executions of strategies and of others, corrections, busts, commissions, transfers, differences, restarts."""

    @initialize(begun=st.dictionaries(conids, st.integers(-20, 20).filter(bool), max_size=2))
    def begin(self, begun: dict[int, int]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock(10**18)
        self.journal = Journal.open(None, clock=self.clock)
        self.seen = ExecutionBook()
        self.numbers = itertools.count(1)
        self.account = {conid: Decimal(begun.get(conid, 0)) for conid in MULTIPLIERS}
        self.entries: dict[tuple[str, int], list[Moved]] = {}
        self.executions: dict[str, tuple[Execution, str | None]] = {}
        for name in NAMES:
            for number, conid in enumerate(MULTIPLIERS, 1):
                self.journal.intend((self.intent(name, conid, number),))
        for conid, size in begun.items():
            self.put(UNALLOCATED, conid, Moved("", Fraction(size), Fraction(100), Fraction(0), paid=False))
        self.keeper = self.start()

    def intent(self, name: str, conid: int, number: int) -> OrderIntent:
        key = make_key(name, self.journal.epoch, number)
        ticket = OrderTicket(
            account=ACCOUNT,
            contract_id=conid,
            side=Side.BUY,
            order_type=OrderType.MARKET,
            quantity=Decimal(1000),
            client_order_id=key,
        )
        return OrderIntent(key=key, strategy=name, ticket=ticket)

    def start(self) -> Bookkeeper:
        keeper = Bookkeeper(Path(self.folder.name) / "books", self.journal, self.clock, contract)
        found = keeper.open(ACCOUNT, self.positions())
        assert found == ()
        return keeper

    def positions(self) -> tuple[Position, ...]:
        return tuple(position(conid, size) for conid, size in self.account.items() if size)

    def put(self, name: str, conid: int, moved: Moved) -> None:
        self.entries.setdefault((name, conid), []).append(moved)

    def key(self, name: str | None, conid: int) -> str | None:
        return None if name is None else make_key(name, self.journal.epoch, conid)

    def take(self, execution: Execution, key: str | None) -> None:
        seen = self.seen.add(execution)
        assert seen.new
        self.journal.add_executions([(execution, key, "stream")])
        self.keeper.take(execution, key, seen.replaces)

    @rule(
        name=st.sampled_from((*NAMES, None)),
        conid=conids,
        side=st.sampled_from(Side),
        quantity=quantities,
        price=prices,
        commission=st.none() | commissions,
    )
    def execute(
        self,
        name: str | None,
        conid: int,
        side: Side,
        quantity: Decimal,
        price: float,
        commission: float | None,
    ) -> None:
        execution = Execution(
            execution_id=f"0001.{next(self.numbers):08d}.01.01",
            account=ACCOUNT,
            conid=conid,
            symbol="X",
            side=side,
            quantity=quantity,
            price=price,
            time_ns=self.clock.now_ns(),
            commission=commission,
        )
        self.take(execution, self.key(name, conid))
        self.executions[execution.execution_id] = (execution, name)
        self.account[conid] += quantity * side.sign
        self.put(name or UNALLOCATED, conid, moved(execution))

    @precondition(lambda self: self.executions)
    @rule(data=st.data(), quantity=st.just(Decimal(0)) | quantities, price=prices)
    def correct(self, data: st.DataObject, quantity: Decimal, price: float) -> None:
        """A bust, where the quantity is 0."""
        old, name = self.pick(data)
        trade, _, revision = old.execution_id.rpartition(".")
        new = Execution(
            execution_id=f"{trade}.{int(revision) + 1:02d}",
            account=ACCOUNT,
            conid=old.conid,
            symbol="X",
            side=old.side,
            quantity=quantity,
            price=price,
            time_ns=old.time_ns,
            commission=None if quantity else 0.0,
        )
        self.take(new, self.key(name, old.conid))
        del self.executions[old.execution_id]
        self.executions[new.execution_id] = (new, name)
        self.account[old.conid] += (new.quantity - old.quantity) * old.side.sign
        self.swap(name, old, new)

    @precondition(lambda self: self.executions)
    @rule(data=st.data(), commission=commissions)
    def pay(self, data: st.DataObject, commission: float) -> None:
        old, name = self.pick(data)
        new = _with_commission(old, commission)
        if not self.seen.add(new).commission:
            return
        self.journal.add_executions([(new, self.key(name, old.conid), "stream")])
        assert self.keeper.take_commission(new) == name
        self.executions[old.execution_id] = (new, name)
        self.swap(name, old, new)

    def pick(self, data: st.DataObject) -> tuple[Execution, str | None]:
        return self.executions[data.draw(st.sampled_from(sorted(self.executions)))]

    def swap(self, name: str | None, old: Execution, new: Execution) -> None:
        entries = self.entries[name or UNALLOCATED, old.conid]
        at = next(n for n, one in enumerate(entries) if one.execution_id == old.execution_id)
        entries[at] = moved(new)

    @rule(
        source=st.sampled_from((*NAMES, UNALLOCATED)),
        into=st.sampled_from((*NAMES, UNALLOCATED)),
        conid=conids,
        part=st.integers(1, 4),
        price=st.none() | prices,
    )
    def transfer(self, source: str, into: str, conid: int, part: int, price: float | None) -> None:
        book = self.keeper.of(ACCOUNT).book(source)
        quantity = book.quantity(conid) * part / 4
        wanted = Transfer(
            account=ACCOUNT, conid=conid, source=source, target=into, quantity=quantity, price=price
        )
        if not quantity or source == into:
            with pytest.raises(UsageError):
                self.keeper.transfer(wanted)
            return
        done = self.keeper.transfer(wanted)
        assert done is not None
        # Asked for again, its answer lost.
        assert self.keeper.transfer(wanted) is None
        at = Fraction(done.price or 0)
        self.put(source, conid, Moved("", Fraction(-quantity), at, Fraction(0), paid=True))
        self.put(into, conid, Moved("", Fraction(quantity), at, Fraction(0), paid=True))

    @rule(conid=conids, change=st.integers(-10, 10).filter(bool))
    def differ(self, conid: int, change: int) -> None:
        """IBKR reports something that no execution explains."""
        before = self.account[conid]
        self.account[conid] += change
        assert self.keeper.compare(ACCOUNT, self.positions()) == ()
        self.clock.set_ns(self.clock.now_ns() + (APART_S + 1) * NS_PER_S)
        (found,) = self.keeper.compare(ACCOUNT, self.positions())
        assert (Decimal(found.recorded), Decimal(found.reported)) == (before, self.account[conid])
        at = 100.0 if self.account[conid] else self.average(conid)
        self.put(UNALLOCATED, conid, Moved("", Fraction(change), Fraction(at), Fraction(0), paid=False))

    def average(self, conid: int) -> float:
        # Of the book before the difference: it is flat now, and its price was that of its last entry.
        found = by_hand(self.entries.get((UNALLOCATED, conid), []), MULTIPLIERS[conid])
        return float(found["average_price"])

    @rule()
    def restart(self) -> None:
        before = self.keeper.of(ACCOUNT).views()
        self.keeper.close()
        self.keeper = self.start()
        after = {view.name: view for view in self.keeper.of(ACCOUNT).views()}
        for view in before:
            if view.holdings:
                assert_same(after[view.name], view)

    @invariant()
    def sums_to_the_account(self) -> None:
        if not hasattr(self, "keeper"):
            return
        books = self.keeper.of(ACCOUNT)
        assert books.totals() == {conid: size for conid, size in self.account.items() if size}

    @invariant()
    def is_as_by_hand(self) -> None:
        if not hasattr(self, "keeper"):
            return
        for (name, conid), entries in self.entries.items():
            wanted = by_hand(entries, MULTIPLIERS[conid])
            holdings = {one.conid: one for one in self.keeper.of(ACCOUNT).book(name).view().holdings}
            if conid not in holdings:
                assert not any(wanted.values())
                continue
            for field, value in wanted.items():
                found = float(getattr(holdings[conid], field))
                assert found == pytest.approx(float(value), rel=1e-6, abs=1e-4), (name, conid, field)

    def teardown(self) -> None:
        if hasattr(self, "keeper"):
            self.keeper.close()
            self.journal.close()
            self.folder.cleanup()


TestBooks = BooksMachine.TestCase
TestBooks.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    phases=(Phase.generate,),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def contract(conid: int) -> Contract:
    kind = SecurityType.FUTURE if conid == FUTURE else SecurityType.STOCK
    return Contract(conid=conid, symbol="X", security_type=kind, multiplier=float(MULTIPLIERS.get(conid, 1)))


def position(conid: int, size: Decimal) -> Position:
    return Position(
        account=ACCOUNT,
        conid=conid,
        symbol="X",
        quantity=size,
        average_price=100.0,
        average_cost=100.0 * MULTIPLIERS[conid],
        market_price=None,
        market_value=None,
        currency="USD",
        security_type="STK",
    )


def moved(execution: Execution) -> Moved:
    return Moved(
        execution.execution_id,
        Fraction(execution.quantity * execution.side.sign),
        Fraction(execution.price),
        Fraction(execution.commission or 0),
        paid=True,
    )


def _with_commission(execution: Execution, commission: float) -> Execution:
    fields = {field: getattr(execution, field) for field in execution.__struct_fields__}
    return Execution(**(fields | {"commission": commission}))


def assert_same(one: BookView, other: BookView) -> None:
    assert [holding.conid for holding in one.holdings] == [holding.conid for holding in other.holdings]
    for mine, theirs in zip(one.holdings, other.holdings, strict=True):
        for field in mine.__struct_fields__:
            assert float(getattr(mine, field)) == pytest.approx(
                float(getattr(theirs, field)), rel=1e-9, abs=1e-6
            ), (one.name, mine.conid, field)


# -- one at a time -------------------------------------------------------------------------------------


def execution(
    number: int, side: Side, quantity: int, price: float, *, conid: int = STOCK, revision: int = 1
) -> Execution:
    return Execution(
        execution_id=f"0001.{number:08d}.01.{revision:02d}",
        account=ACCOUNT,
        conid=conid,
        symbol="X",
        side=side,
        quantity=Decimal(quantity),
        price=price,
        time_ns=1,
    )


def test_a_correction_counts_from_its_own_place() -> None:
    """Taking it back at the end instead would leave profit that nobody made."""
    books = AccountBooks(ACCOUNT)
    first = execution(1, Side.BUY, 10, 100.0)
    books.take(first, "alpha")
    books.take(execution(2, Side.SELL, 10, 110.0), "alpha")
    books.take(execution(1, Side.BUY, 10, 105.0, revision=2), "alpha", first)
    (held,) = books.book("alpha").view().holdings
    assert (held.quantity, held.average_price, held.realised, held.flow) == (Decimal(0), 0.0, 50.0, 50.0)


def test_a_multiplier_that_is_known_late_counts_for_what_was_before() -> None:
    books = AccountBooks(ACCOUNT)
    books.take(execution(1, Side.BUY, 2, 100.0, conid=FUTURE), "alpha")
    books.take(execution(2, Side.SELL, 2, 101.0, conid=FUTURE), "alpha")
    books.know(FUTURE, 50.0)
    (held,) = books.book("alpha").view().holdings
    assert held.realised == 100.0
    assert held.flow == 100.0


def test_who_takes_a_position_over_pays_for_it() -> None:
    """The books' cash sums to what the account's trades have moved."""
    books = AccountBooks(ACCOUNT)
    books.take(execution(1, Side.BUY, 10, 100.0), "alpha")
    books.transfer(
        Transfer(
            account=ACCOUNT, conid=STOCK, source="alpha", target="beta", quantity=Decimal(4), price=110.0
        )
    )
    alpha, beta = (books.book(name).view().holdings[0] for name in ("alpha", "beta"))
    assert (alpha.quantity, alpha.realised, alpha.flow) == (Decimal(6), 40.0, -560.0)
    assert (beta.quantity, beta.average_price, beta.flow) == (Decimal(4), 110.0, -440.0)
    # Nothing was traded.
    assert beta.bought == alpha.sold == Decimal(0)


@pytest.mark.parametrize("quantity", ["0", "11", "-1"])
def test_what_a_book_has_not_cannot_be_moved(quantity: str) -> None:
    books = AccountBooks(ACCOUNT)
    books.take(execution(1, Side.BUY, 10, 100.0), "alpha")
    wanted = Transfer(account=ACCOUNT, conid=STOCK, source="alpha", target="beta", quantity=Decimal(quantity))
    with pytest.raises(UsageError, match=quantity):
        books.transfer_price(wanted)


def test_a_correction_of_what_is_older_than_the_books() -> None:
    """Its trade is in the position that the books began with: only the difference moves."""
    books = AccountBooks(ACCOUNT)
    books.adjust(STOCK, Decimal(10), 100.0)
    old = execution(1, Side.BUY, 10, 100.0)
    second = execution(1, Side.BUY, 8, 100.0, revision=2)
    books.take(second, None, old)
    assert books.total(STOCK) == 8
    books.take(execution(1, Side.BUY, 0, 100.0, revision=3), None, second)
    assert books.total(STOCK) == 0
