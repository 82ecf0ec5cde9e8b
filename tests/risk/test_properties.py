"""What holds whatever is ordered, executed, changed and cancelled, in whatever order."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bt_ibkr.clock import NS_PER_S, ManualClock
from bt_ibkr.errors import RiskRefusedError
from bt_ibkr.model.intent import OrderIntent
from bt_ibkr.model.order import modified
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.risk import OpenOrder, RiskGate, increasing, reach
from tests.risk.conftest import AAPL, START_NS, Orders, Played, only

LIMIT, LARGEST = Decimal(20), Decimal(8)
SIZES = st.integers(-25, 25).filter(bool)


class Market(RuleBasedStateMachine):
    """Orders go through the gate and then meet a market that executes them as it likes, but keeps IBKR's rules:
    children execute after their parents and no more than those; stop and target reduce each other; of a group one
    executes and the others are cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.view, self.order = Played(), Orders()
        self.gate = RiskGate(only(max_position_size=LIMIT, max_order_size=LARGEST), ManualClock(START_NS))
        self.intents: dict[str, OrderIntent] = {}
        self.filled: dict[str, Decimal] = {}
        #: What stands still open.
        self.left: dict[str, Decimal] = {}
        self.reference = Decimal(0)

    @property
    def position(self) -> Decimal:
        return self.view.positions[AAPL] or Decimal(0)

    @property
    def reducing(self) -> bool:
        return self.view.state.mode is Trading.REDUCING

    def tell(self) -> None:
        """The view tells what stands."""
        self.view.open[AAPL] = [
            OpenOrder(
                key=key,
                effect=left * self.intents[key].ticket.side.sign,
                parent_key=self.intents[key].parent_key,
                group=self.intents[key].group,
            )
            for key, left in self.left.items()
        ]

    def submit(self, *intents: OrderIntent) -> None:
        before = self.position
        try:
            cleared = self.gate.cleared(intents, self.view)
        except RiskRefusedError:
            return
        for intent in cleared:
            assert intent.ticket.protective or not self.reducing
            if intent.ticket.quantity > LARGEST:
                # Larger than allowed: it must be one that only reduces.
                assert intent.ticket.side.sign * before < 0
                assert intent.ticket.quantity <= abs(before)
            self.intents[intent.key] = intent
            self.filled[intent.key] = Decimal(0)
            self.left[intent.key] = intent.ticket.quantity
        self.tell()

    @rule(size=SIZES, protective=st.booleans())
    def place(self, size: int, protective: bool) -> None:
        self.submit(self.order(size, protective=protective))

    @rule(size=SIZES)
    def place_bracket(self, size: int) -> None:
        self.submit(*self.order.bracket(size))

    @rule(one=SIZES, two=SIZES, name=st.sampled_from("gh"))
    def place_group(self, one: int, two: int, name: str) -> None:
        group = f"{name}{len(self.intents)}"
        self.submit(self.order(one, 99.0, group=group), self.order(two, 101.0, group=group))

    @precondition(lambda self: self.left)
    @rule(data=st.data(), size=st.integers(1, 25))
    def change(self, data: st.DataObject, size: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.left)))
        standing = self.intents[key]
        if size <= self.filled[key] or size == standing.ticket.quantity:
            return
        ticket = modified(standing.ticket, quantity=Decimal(size))
        try:
            self.gate.check_change(standing, ticket, self.view, filled=self.filled[key])
        except RiskRefusedError:
            return
        self.intents[key] = msgspec.structs.replace(standing, ticket=ticket)
        self.left[key] = size - self.filled[key]
        self.tell()

    @precondition(lambda self: self.left)
    @rule(data=st.data(), part=st.integers(1, 25))
    def execute(self, data: st.DataObject, part: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.left)))
        intent = self.intents[key]
        parent = intent.parent_key
        most = self.left[key]
        if parent is not None and parent in self.left:
            most = min(most, self.filled[parent] - self.filled[key])
        size = min(Decimal(part), most)
        if size <= 0:
            return
        self.view.positions[AAPL] = self.position + size * intent.ticket.side.sign
        self.filled[key] += size
        self.take(key, size)
        for other in [one for one in self.left if one != key and self.together(one, key)]:
            if intent.group is not None:
                # Of a group the rest is cancelled.
                self.cancel_all(other)
            else:
                # Stop and target reduce each other.
                self.filled[other] += size
                self.take(other, size)
        self.tell()

    def take(self, key: str, size: Decimal) -> None:
        self.left[key] -= size
        if self.left[key] <= 0:
            del self.left[key]

    def together(self, one: str, two: str) -> bool:
        first, second = self.intents[one], self.intents[two]
        if first.group is not None:
            return first.group == second.group
        return first.parent_key is not None and first.parent_key == second.parent_key

    @precondition(lambda self: self.left)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.cancel_all(data.draw(st.sampled_from(sorted(self.left))))
        self.tell()

    def cancel_all(self, key: str) -> None:
        """An order goes; its children stay for what it has opened."""
        del self.left[key]
        for child in [one for one in self.left if self.intents[one].parent_key == key]:
            room = self.filled[key] - self.filled[child]
            self.left[child] = min(self.left[child], room)
            if self.left[child] <= 0:
                self.cancel_all(child)

    @precondition(lambda self: not self.reducing)
    @rule()
    def restrict(self) -> None:
        """As the desk does: the state first, then what could still increase a position is cancelled."""
        self.view.state = TradingState(mode=Trading.REDUCING, by="command line")
        for key in increasing(self.position, self.view.open[AAPL]):
            if key in self.left:
                self.cancel_all(key)
        # A parent's children go with it while it has executed nothing; else they stand alone now.
        self.tell()
        for key in increasing(self.position, self.view.open[AAPL]):
            self.cancel_all(key)
        self.tell()
        self.reference = self.position

    @precondition(lambda self: self.reducing)
    @rule()
    def resume(self) -> None:
        self.view.state = TradingState()

    @invariant()
    def no_position_beyond_the_limit(self) -> None:
        found = reach(self.position, self.view.open[AAPL])
        assert -LIMIT <= found.low <= self.position <= found.high <= LIMIT

    @invariant()
    def nothing_increases_while_reducing(self) -> None:
        if self.reducing:
            assert abs(self.position) <= abs(self.reference)
            assert self.position * self.reference >= 0
            self.reference = self.position


Market.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMarket = Market.TestCase


@given(
    limit=st.integers(1, 6),
    bursts=st.lists(st.tuples(st.integers(1, 4), st.integers(-30, 45), st.booleans()), max_size=40),
)
def test_the_rate_is_never_exceeded_in_any_window(limit: int, bursts: list[tuple[int, int, bool]]) -> None:
    clock, view, order = Jumping(), Played(), Orders()
    gate = RiskGate(only(orders_per_minute=limit), clock)
    elapsed = 0
    passed: list[int] = []
    standing = order(1)
    for count, seconds, change in bursts:
        clock.now += seconds * NS_PER_S
        elapsed += max(0, seconds)
        try:
            if change:
                count = 1
                gate.check_change(standing, modified(standing.ticket, quantity=Decimal(2)), view)
            else:
                gate.check([order(1) for _ in range(count)], view)
        except RiskRefusedError:
            inside = [time for time in passed if time > elapsed - 60]
            assert len(inside) + count > limit
            continue
        passed += [elapsed] * count
    for end in passed:
        assert len([time for time in passed if end - 60 < time <= end]) <= limit


class Jumping:
    """A clock that may step back."""

    now = START_NS

    def now_ns(self) -> int:
        return self.now

    def wall_s(self, market_ns: int) -> float:
        return market_ns / NS_PER_S


@given(
    position=st.decimals(-50, 50, places=2),
    opened=st.lists(st.decimals(-30, 30, places=2).filter(bool), max_size=4),
    sizes=st.lists(st.decimals(-60, 60, places=2).filter(bool), min_size=1, max_size=3),
    group=st.sampled_from([None, "g"]),
)
def test_a_protective_order_never_turns_a_position_round(
    position: Decimal, opened: list[Decimal], sizes: list[Decimal], group: str | None
) -> None:
    """What passes only because it reduces leaves nothing on the other side of 0, with all that is open already."""
    view, order = Played(), Orders()
    view.positions[AAPL] = position
    view.stand(*(order(size) for size in opened))
    limits: dict[str, Any] = {"max_order_size": Decimal("0.001")}
    gate = RiskGate(only(**limits), ManualClock(START_NS))
    intents = [order(size, 99.0, group=group, protective=True) for size in sizes]
    try:
        gate.check(intents, view)
    except RiskRefusedError:
        return
    sign = 1 if position > 0 else -1
    assert position
    assert all(size * sign < 0 for size in sizes)
    closing = sum((size for size in opened if size * sign < 0), Decimal(0))
    new = max(sizes, key=abs) if group else sum(sizes, Decimal(0))
    assert (position + closing + new) * sign >= 0


@given(
    price=st.decimals(1, 10_000, places=4),
    tick=st.sampled_from(["0.01", "0.05", "0.25", "0.00005", "0.015625"]),
)
def test_a_price_passes_exactly_if_it_is_whole_steps(price: Decimal, tick: str) -> None:
    view, order = Played(), Orders()
    view.traded[AAPL] = msgspec.structs.replace(view.traded[AAPL], tick_size=Decimal(tick))
    gate = RiskGate(only(check_tick=True), ManualClock(START_NS))
    whole = (price * 10**8) % (Decimal(tick) * 10**8) == 0
    try:
        gate.check([order(1, float(price))], view)
        passed = True
    except RiskRefusedError:
        passed = False
    assert passed is whole
