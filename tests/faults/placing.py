"""What the tests of orders on their way to IBKR have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import backtrader as bt
import pytest

from bt_ibkr.desk import desk
from tests.faults.scene import Scene

Limit = bt.Order.Limit
ORDERS = "/iserver/account/*/orders"
MakeScene = Callable[..., Scene]


@pytest.fixture
def fast_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost orders are looked for without pauses that a test would feel."""
    monkeypatch.setattr(desk, "_LOOK_PAUSES_S", (0.01, 0.01, 0.01, 0.02))


def far(strategy: Any) -> Any:
    """A limit order that the market does not reach."""
    return strategy.buy(size=10, exectype=Limit, price=90.0)


def by(condition: Callable[[], Any], patience_s: float = 10.0) -> None:
    """Wait, in the midst of a script, until the condition holds."""
    latest = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < latest, condition
        time.sleep(0.005)


def states(made: Scene, key: str) -> list[str]:
    """The states that the journal has noted for an order, in order."""
    journal = made.journal()
    try:
        events = journal.events(key=key)
    finally:
        journal.close()
    return [
        event.payload.split('"state":"')[1].split('"')[0] if event.kind == "state" else event.kind
        for event in events
        if event.kind in ("intended", "state")
    ]
