"""An order that slept with its machine is as old as the market has become meanwhile."""

from __future__ import annotations

import time

import pytest

from bt_ibkr.connection.interface import OrderFailed
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub import ages
from bt_ibkr.model.order import OrderType, Side
from tests.hub.conftest import StartHub, Strategy

pytestmark = pytest.mark.skipif(
    not hasattr(time, "CLOCK_BOOTTIME"), reason="the system has no clock that goes on while it sleeps"
)


class Machine:
    """Its clocks; while it sleeps only one of them goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept_s = 0.0
        real = time.clock_gettime

        def clock_gettime(clock: int) -> float:
            return real(clock) + (self.slept_s if clock == time.CLOCK_BOOTTIME else 0.0)

        monkeypatch.setattr(time, "clock_gettime", clock_gettime)

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds


def test_the_clock_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    before_s, awake_s = ages.awake_or_asleep_s(), time.monotonic()
    machine.sleep(3600.0)
    assert ages.awake_or_asleep_s() - before_s >= 3600.0
    assert time.monotonic() - awake_s < 3600.0


def test_without_such_a_clock_the_monotonic_one_has_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ages, "_BOOT", None)
    before_s = time.monotonic()
    assert before_s <= ages.awake_or_asleep_s() <= time.monotonic()


@pytest.mark.parametrize("slept_s", [0.0, 3600.0])
def test_an_order_that_waited_over_a_suspension(
    start_hub: StartHub, emulator: EmulatorThread, monkeypatch: pytest.MonkeyPatch, slept_s: float
) -> None:
    """It was placed and had not left when the lid was closed; an hour later it is not sent."""
    machine = Machine(monkeypatch)
    hub = start_hub(dead_s=5.0)
    alpha = Strategy(hub.endpoint, "alpha").open()
    try:
        alpha.attach()
        alpha.follow()
        link = alpha.connection._link
        say = link._say
        link._say = lambda message: False  # type: ignore[method-assign]
        waiting = {"order_type": OrderType.LIMIT, "limit_price": 1.0}
        key = alpha.place(Side.BUY, 1, **waiting)
        machine.sleep(slept_s)
        link._say = say  # type: ignore[method-assign]
        alpha.until(lambda: alpha.placed(key) or alpha.of(OrderFailed, key))
        sent = [one["client_order_id"] for one in emulator.ledger()["orders"]]
        if not slept_s:
            assert sent == [key]
            return
        assert sent == []
        assert "3600." in str(alpha.of(OrderFailed, key)[0].error)
        # What it decides now is fresh.
        now = alpha.place(Side.BUY, 1, **waiting)
        alpha.until(lambda: alpha.placed(now))
    finally:
        alpha.connection.close()
