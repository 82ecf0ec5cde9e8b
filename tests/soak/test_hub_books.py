"""Books over sockets: strategies in one instrument, transfers, other programs, parts of orders, hubs that are killed.

At each rest the hub's books sum to the emulator's account, and each book is what its strategy's orders have filled.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bt_ibkr.connection.interface import OrderFailed
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.hub.books import Transfer
from bt_ibkr.hub.names import UNALLOCATED, owner_of
from bt_ibkr.hub.observing import HubObserver
from bt_ibkr.model.order import OrderType, Side
from tests.hub.conftest import ACCOUNT, APPLE, Strategy
from tests.hub.kills import Mortals

NAMES = ("alpha", "beta", "gamma")
PATIENCE_S = 60.0
_MORTALS: list[Mortals] = []

names = st.sampled_from(NAMES)
sides = st.sampled_from(Side)
sizes = st.integers(1, 12)


class LiveBooks(RuleBasedStateMachine):
    """A hub process, strategies at it, and the emulator, whose ledger is the truth."""

    @initialize()
    def begin(self) -> None:
        with contextlib.ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.emulator = stack.enter_context(
                EmulatorThread(
                    EmulatorSettings(
                        speed=1.0,
                        synthetic_instruments=("AAPL",),
                        conflation_ms=0,
                        pacing="off",
                        questions="none",
                        margin="off",
                        history_days=1,
                        order_status_delay_s=0.0,
                    )
                )
            )
            stack.callback(self.end_hub)
            self.fd = -1
            self.start_hub()
            self.strategies: dict[str, Strategy] = {}
            for name in NAMES:
                one = self.strategies[name] = Strategy(self.endpoint, name).open()
                stack.callback(one.connection.close)
                one.attach()
            self.open: dict[str, str] = {}
            self.moved: Counter[str] = Counter()
            self.ends = stack.pop_all()

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.folder}/hub"

    def start_hub(self) -> None:
        pid = _MORTALS[0].be(
            be="hub",
            url=self.emulator.url,
            endpoint=self.endpoint,
            journal=str(self.folder / "journal"),
            log=str(self.folder / "log"),
            folder=str(self.folder),
        )
        self.fd = os.pidfd_open(pid)

    def end_hub(self) -> None:
        """SIGKILL, and its end."""
        signal.pidfd_send_signal(self.fd, signal.SIGKILL)
        waiting = select.poll()
        waiting.register(self.fd, select.POLLIN)
        assert waiting.poll(PATIENCE_S * 1000)
        os.close(self.fd)

    # -- what happens --------------------------------------------------------------------------------

    def place(self, name: str, side: Side, quantity: int, *, rests: bool) -> str:
        """Far from the market it rests, and executes when the emulator is told so."""
        away = {"order_type": OrderType.LIMIT, "limit_price": 20.0 if side is Side.BUY else 2000.0}
        return self.strategies[name].place(side, quantity, **(away if rests else {}))

    def stands(self, name: str, key: str) -> bool:
        one = self.strategies[name]
        one.until(lambda: one.placed(key) or one.of(OrderFailed, key), PATIENCE_S)
        return one.placed(key)

    @rule(name=names, side=sides, quantity=sizes)
    def trade(self, name: str, side: Side, quantity: int) -> None:
        self.place(name, side, quantity, rests=False)

    @rule(name=names, side=sides, quantity=st.integers(2, 12), part=st.integers(1, 12))
    def fill_partly(self, name: str, side: Side, quantity: int, part: int) -> None:
        key = self.place(name, side, quantity, rests=True)
        assert self.stands(name, key)
        self.open[key] = name
        self.fill(key, min(part, quantity - 1))

    def fill(self, key: str, quantity: int | None = None) -> None:
        orders = {one["client_order_id"]: one for one in self.emulator.ledger()["orders"]}
        given = {} if quantity is None else {"quantity": quantity}
        self.emulator.do("fill", order_id=orders[key]["order_id"], price=100.0, **given)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def fill_the_rest(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[key]
        self.fill(key)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.open)))
        one = self.strategies[self.open.pop(key)]
        one.connection.cancel(key, one.mailbox)

    @rule(side=sides, quantity=sizes)
    def somebody_else_trades(self, side: Side, quantity: int) -> None:
        self.emulator.do(
            "manual_order", account=ACCOUNT, conid=APPLE, side=side.value, quantity=quantity, order_type="MKT"
        )

    @rule(source=st.sampled_from((*NAMES, UNALLOCATED)), into=st.sampled_from((*NAMES, UNALLOCATED)))
    def transfer(self, source: str, into: str) -> None:
        self.rest()
        held = self.books().get(source, 0)
        if source == into or not held:
            return
        part = max(abs(held) // 2, 1) * (1 if held > 0 else -1)
        wanted = Transfer(
            account=ACCOUNT, conid=APPLE, source=source, target=into, quantity=Decimal(part), price=50.0
        )
        with HubObserver(self.endpoint, patience_s=PATIENCE_S) as observer:
            observer.transfer(wanted)
        self.moved[source] -= part
        self.moved[into] += part

    @rule(name=names, side=sides, quantity=sizes, orders=st.integers(0, 3))
    def kill_the_hub(self, name: str, side: Side, quantity: int, orders: int) -> None:
        """While orders are on their way; and while no hub runs, orders of before it execute."""
        for _ in range(orders):
            self.place(name, side, quantity, rests=False)
        self.end_hub()
        for key in sorted(self.open)[:1]:
            del self.open[key]
            self.fill(key)
        self.emulator.do(
            "manual_order", account=ACCOUNT, conid=APPLE, side="BUY", quantity=1, order_type="MKT"
        )
        before = {each: len(one.states()) for each, one in self.strategies.items()}
        self.start_hub()
        for each, one in self.strategies.items():
            one.until(
                lambda one=one, each=each: (  # type: ignore[misc]
                    one.states()[-1:] == [True] and len(one.states()) > before[each]
                ),
                PATIENCE_S,
            )

    # -- what must hold ------------------------------------------------------------------------------

    def books(self) -> dict[str, int]:
        with HubObserver(self.endpoint, patience_s=PATIENCE_S) as observer:
            found = observer.status().books
        return {
            view.name: int(one.quantity)
            for view in found
            for one in view.holdings
            if one.quantity and one.conid == APPLE
        }

    def truth(self) -> tuple[dict[str, int], int]:
        """What each book should have, and what the account has."""
        ledger = self.emulator.ledger()
        wanted: Counter[str] = Counter(self.moved)
        for one in ledger["orders"]:
            owner = owner_of(one["client_order_id"]) or UNALLOCATED
            wanted[owner] += int(Decimal(one["filled"])) * Side(one["side"]).sign
        held = ledger["accounts"][ACCOUNT]["positions"].get(str(APPLE), {}).get("quantity", 0)
        return {name: size for name, size in wanted.items() if size}, int(Decimal(str(held)))

    @rule()
    def rest(self) -> None:
        """Everything that was placed has been answered, and the books are those of the ledger."""
        watcher = self.strategies["alpha"]
        last: list[Any] = []

        def agreed() -> bool:
            wanted, held = self.truth()
            found = self.books()
            last[:] = [wanted, found, held]
            return found == wanted and sum(found.values()) == held

        try:
            watcher.until(agreed, PATIENCE_S)
        except AssertionError:
            log = (self.folder / "log").read_text()[-3000:]
            raise AssertionError(
                f"wanted {last[0]}, found {last[1]}, the account has {last[2]}\n{log}"
            ) from None
        except BtIbkrError as problem:
            raise AssertionError(f"{problem}\n{(self.folder / 'log').read_text()[-3000:]}") from problem
        for name, one in self.strategies.items():
            seen = {position.conid: int(position.quantity) for position in one.attach().positions}
            assert seen.get(APPLE, 0) == last[1].get(name, 0)
        ledger = self.emulator.ledger()
        assert all(number == 1 for number in ledger["by_client_id"].values()), "an order was sent twice"

    def teardown(self) -> None:
        if hasattr(self, "ends"):
            with self.ends:
                self.rest()


@pytest.fixture(scope="module", autouse=True)
def mortals() -> Iterator[None]:
    _MORTALS.append(Mortals())
    yield
    _MORTALS.pop().close()


def run(examples: int, steps: int) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        phases=(Phase.generate,),
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(LiveBooks, settings=chosen)


@pytest.mark.timeout(180)
def test_books_at_rest() -> None:
    """A short life, another one each time."""
    run(2, 8)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_books_at_every_rest() -> None:
    run(40, 40)
