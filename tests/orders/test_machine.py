"""Orders at random, and everything that may happen to them: at each rest all books agree."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from bt_ibkr.emulator.control.arguments import ControlError
from tests.orders import acts
from tests.orders.world import AAPL, STANDING, World, impatient

ORDERS = "/iserver/account/*/orders"
ORDER = "/iserver/account/*/order/*"
MEMORY = Path("/dev/shm")
#: What becomes of a request: action, whether it is carried out.
LOSSES = st.sampled_from(
    [
        {"action": "lose"},
        {"action": "reset", "processed": True},
        {"action": "reset"},
        {"action": "status", "processed": True},
        {"action": "status"},
        {"action": "status", "status": 503, "processed": True},
        {"action": "malformed", "processed": True},
        {"action": "empty", "processed": True},
        {"action": "html"},
    ]
)
FRAMES = st.sampled_from(["drop", "duplicate", "reorder"])


class Machine(RuleBasedStateMachine):
    """A world in which everything happens; what a rule does is over, and compared, before the next."""

    market: tuple[str, ...] = ()

    @initialize(settled=st.sampled_from([10.0, 60.0, 300.0]))
    def begin(self, settled: float) -> None:
        memory = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.stack = ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory(dir=memory))
        self.stack.enter_context(impatient())
        self.world = self.stack.enter_context(World(Path(folder), self.market))
        self.world.start()
        self.world.advance(settled)

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    def rested(self) -> None:
        self.world.rest()
        self.world.agree()

    def turn(self, made: list[acts.Act]) -> None:
        self.world.program.do(lambda strategy: acts.turn(strategy, made))

    # -- the strategy ------------------------------------------------------------------------------

    @rule(made=acts.TURN)
    def trade(self, made: list[acts.Act]) -> None:
        self.turn(made)
        self.rested()

    @rule(made=acts.TURN, seconds=st.sampled_from([2.0, 10.0]))
    def trade_in_a_moving_market(self, made: list[acts.Act], seconds: float) -> None:
        self.turn(made)
        self.world.advance(seconds, attentive=False)
        self.rested()

    # -- the market --------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([2.0, 20.0, 120.0]), attentive=st.booleans())
    def pass_time(self, seconds: float, attentive: bool) -> None:
        self.world.advance(seconds, attentive=attentive)
        self.rested()

    @rule(which=acts.WHICH, quantity=st.sampled_from([1, 2, 5]))
    def execute(self, which: int, quantity: int) -> None:
        row = self._standing(which)
        if row is None:
            return
        left = int(float(row["quantity"])) - int(float(row["filled"]))
        try:
            self.world.emulator.do("fill", order_id=row["order_id"], quantity=min(left, quantity))
        except ControlError:
            return
        self.rested()

    # -- other people ------------------------------------------------------------------------------

    @rule(side=acts.SIDES, size=acts.SIZES, offset=st.none() | acts.OFFSETS)
    def trade_elsewhere(self, side: str, size: int, offset: float | None) -> None:
        price = {} if offset is None else {"order_type": "LMT", "price": self._price(offset)}
        self.world.emulator.do("manual_order", conid=AAPL, side=side.upper(), quantity=size, **price)
        self.rested()

    @rule(which=acts.WHICH)
    def cancel_elsewhere(self, which: int) -> None:
        row = self._standing(which)
        if row is not None:
            self.world.emulator.do("manual_cancel", order_id=row["order_id"])
            self.rested()

    @rule(which=acts.WHICH, by=st.sampled_from([-0.05, 0.05, 0.0]))
    def correct(self, which: int, by: float) -> None:
        """A price is corrected; by nothing: the trade is taken back."""
        rows = self.world.emulator.ledger()["executions"]
        corrected = {one["corrects"] for one in rows}
        rows = [one for one in rows if one["execution_id"] not in corrected and float(one["quantity"])]
        if not rows:
            return
        one = rows[which % len(rows)]
        if by:
            price = round(one["price"] + by, 2)
            self.world.emulator.do("correct", execution_id=one["execution_id"], price=price)
        else:
            self.world.emulator.do("bust", execution_id=one["execution_id"])
        self.rested()

    # -- the network -------------------------------------------------------------------------------

    @rule(made=acts.TURN, loss=LOSSES, skip=st.integers(0, 2), count=st.integers(1, 2))
    def lose_answers(self, made: list[acts.Act], loss: dict[str, Any], skip: int, count: int) -> None:
        emulator = self.world.emulator
        for method, path in (("POST", ORDERS), ("POST", ORDER), ("DELETE", ORDER)):
            emulator.fault("http", method=method, path=path, skip=skip, count=count, **loss)
        self.turn(made)
        self.world.rest()
        emulator.do("clear_faults")
        self.rested()

    @rule(made=acts.PLACE)
    def refuse_and_place(self, made: acts.Act) -> None:
        """The answer says no, and the order stands: it is found out and cancelled."""
        self.world.emulator.fault(
            "http", method="POST", path=ORDERS, action="error", text="no luck", processed=True
        )
        self.turn([made])
        self.world.rest()
        self.world.emulator.do("clear_faults")
        self.rested()

    @rule(made=acts.TURN, how=st.sampled_from(["ws_reset", "ws_close"]), seconds=st.sampled_from([0.0, 10.0]))
    def drop_the_stream(self, made: list[acts.Act], how: str, seconds: float) -> None:
        self.turn(made)
        self.world.emulator.fault(how)
        self.world.advance(seconds, attentive=False)
        self.rested()

    @rule(made=acts.TURN, how=FRAMES, topic=st.sampled_from(["sor", "str"]), count=st.integers(1, 3))
    def lose_frames(self, made: list[acts.Act], how: str, topic: str, count: int) -> None:
        self.world.emulator.fault("frames", action=how, topic=topic, count=count + (how == "reorder"))
        self.turn(made)
        self.world.rest()
        self.world.advance(4.0)
        self.world.emulator.do("clear_faults")
        self.world.blind = True
        self.rested()

    # -- the program -------------------------------------------------------------------------------

    @rule(made=acts.TURN, seconds=st.sampled_from([0.0, 30.0]))
    def stop_and_start(self, made: list[acts.Act], seconds: float) -> None:
        self.turn(made)
        self.world.program.stop()
        self._begin_again(seconds)

    @rule(made=acts.TURN, seconds=st.sampled_from([0.0, 30.0]))
    def die_and_start(self, made: list[acts.Act], seconds: float) -> None:
        self.world.program.die(lambda strategy: acts.turn(strategy, made))
        self._begin_again(seconds)

    def _begin_again(self, seconds: float) -> None:
        if seconds:
            until_ns = self.world.now_ns + int(seconds * 1e9)
            while self.world.now_ns < until_ns and not self.world.over:
                self.world.over = self.world.emulator.do(
                    "step", until_ns=until_ns, max_events=None, received={}
                )["done"]
        self.world.start()
        self.rested()

    # -- helpers -----------------------------------------------------------------------------------

    def _standing(self, which: int) -> Any:
        rows = [row for row in self.world.emulator.ledger()["orders"] if row["status"] in STANDING]
        return rows[which % len(rows)] if rows else None

    def _price(self, offset: float) -> float:
        return float(self.world.program.do(lambda strategy: round(strategy.data.close[0] + offset, 2)))


LAX = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
    "phases": (Phase.generate, Phase.shrink),
}
SHORT = settings(max_examples=10, stateful_step_count=20, derandomize=True, database=None, **LAX)  # type: ignore[arg-type]


def play(market: tuple[str, ...], chosen: settings) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(type("Found", (Machine,), {"market": market}), settings=chosen)


def test_books_agree_whatever_happens(market: tuple[str, ...]) -> None:
    play(market, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", [int(one) for one in os.environ.get("BT_IBKR_SEEDS", "1 2 3").split()])
def test_books_agree_for_long(market: tuple[str, ...], seed: int) -> None:
    from hypothesis import seed as seeded

    examples = int(os.environ.get("BT_IBKR_EXAMPLES", "150"))
    chosen = settings(max_examples=examples, stateful_step_count=40, database=None, **LAX)  # type: ignore[arg-type]
    from hypothesis.stateful import run_state_machine_as_test

    machine = seeded(seed)(type("Found", (Machine,), {"market": market}))
    run_state_machine_as_test(machine, settings=chosen)
