"""Fault 89: delayed or frozen data, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.risk import RiskLimits

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape


@pytest.mark.parametrize(
    ("code", "status", "option"),
    [
        ("DPB", "DELAYED", "allow_delayed_data"),
        ("ZB", "DELAYED", "allow_frozen_data"),
        ("YB", "DELAYED", "allow_delayed_data"),
        ("iB", "DELAYED", "allow_no_data"),
        ("N", "NOTSUBSCRIBED", "allow_no_data"),
    ],
)
@pytest.mark.parametrize("allowed", [False, True])
def test_89_flagged_and_traded_by_option_alone(
    bench: Bench, tape: type[Tape], code: str, status: str, option: str, allowed: bool
) -> None:
    prices = tape().every_second(300, lambda second: 100.0 + second % 3)
    limits: dict[str, Any] = dict.fromkeys(
        (option, "allow_frozen_data") if code == "YB" else (option,), allowed
    )
    line = bench.line(market=bench.market(AAPL=prices), store={"risk": RiskLimits(**limits)})

    def script(strategy: Any) -> None:
        if len(strategy) == 1:
            line.control.post("/fault", {"kind": "quality", "code": code})

    def on_data(strategy: Any, data: Any, told: str) -> None:
        if told == status:
            strategy.orders = [strategy.buy(size=1)]

    run = bench.run(line, script, on_data=on_data)
    assert run.strategy.told("AAPL")[:3] == ["CONNECTED", "LIVE", status]
    (order,) = run.strategy.orders
    assert (run.strategy.statuses(order)[-1] != "Rejected") is allowed
    assert bool(run.ledger["executions"]) is allowed


def test_89_halted(bench: Bench, tape: type[Tape]) -> None:
    prices = tape().every_second(300, lambda second: 100.0 + second % 3)
    line = bench.line(market=bench.market(AAPL=prices))

    def script(strategy: Any) -> None:
        if len(strategy) == 1:
            line.control.post("/halt", {"conid": 265598, "on": True})

    def on_data(strategy: Any, data: Any, told: str) -> None:
        if told == "DELAYED":
            strategy.orders = [strategy.buy(size=1)]

    run = bench.run(line, script, on_data=on_data)
    assert run.strategy.told("AAPL")[:3] == ["CONNECTED", "LIVE", "DELAYED"]
    (order,) = run.strategy.orders
    assert run.strategy.statuses(order)[-1] == "Rejected"
    assert not run.ledger["executions"]
