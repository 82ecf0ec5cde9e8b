"""IBKR's algorithms: what a contract takes, and orders that name one wrongly."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from bt_ibkr.errors import OrderRefusedError, ResponseError, WireError
from bt_ibkr.model.order import OrderTicket, OrderType, Side
from bt_ibkr.services.algos import AlgoService, check_algo
from bt_ibkr.wire.algos import AlgoParameter, algos
from tests.services.conftest import error

if TYPE_CHECKING:
    from tests.services.conftest import Server

LINE = "GET /iserver/contract/265598/algos"
#: The recorded answer, and from IBKR's specification the parameters of ArrivalPx.
BODY: dict[str, Any] = {
    "algos": [
        {"name": "Adaptive", "id": "Adaptive", "parameters": [
            {"guiRank": 1, "defaultValue": "Normal", "name": "Adaptive order priority/urgency",
             "id": "adaptivePriority", "legalStrings": ["Urgent", "Normal", "Patient"], "required": "true",
             "valueClassName": "String"}]},
        {"name": "Arrival Price", "id": "ArrivalPx", "parameters": [
            {"guiRank": 6, "defaultValue": False, "id": "allowPastEndTime", "valueClassName": "Boolean"},
            {"guiRank": 4, "id": "startTime", "valueClassName": "Time"},
            {"guiRank": 2, "id": "maxPctVol", "minValue": 0.01, "maxValue": 50, "required": "true",
             "description": "From 0.01 to 50.0", "valueClassName": "Double"},
            {"id": "slices", "minValue": 1, "valueClassName": "Integer"}]},
        {"name": "TWAP", "id": "Twap", "parameters": []},
    ]
}  # fmt: skip


def ticket(algo: str, **parameters: Any) -> OrderTicket:
    return OrderTicket(
        account="DU1", contract_id=265598, side=Side.BUY, order_type=OrderType.LIMIT, quantity=Decimal(10),
        limit_price=100.0, algo=algo, algo_parameters=tuple(parameters.items()),
    )  # fmt: skip


def test_the_recorded_answer() -> None:
    adaptive, arrival, twap = algos(BODY)
    assert adaptive.parameters == (
        AlgoParameter(
            parameter_id="adaptivePriority", name="Adaptive order priority/urgency", kind="String", required=True,
            choices=("Urgent", "Normal", "Patient"), default="Normal",
        ),
    )  # fmt: skip
    assert [one.parameter_id for one in arrival.parameters if one.required] == ["maxPctVol"]
    assert (arrival.parameters[2].minimum, arrival.parameters[2].maximum) == (0.01, 50.0)
    assert twap.parameters == ()


@pytest.mark.parametrize("body", [{}, [], {"algos": [{}]}, {"algos": [{"id": "x", "parameters": [{}]}]}, "x"])
def test_what_is_no_list_of_algorithms(body: Any) -> None:
    with pytest.raises(WireError):
        algos(body)


async def test_the_first_answer_may_be_empty(server: Server) -> None:
    answers = iter([{"algos": []}, BODY])
    server.answers[LINE] = lambda _seen: next(answers)
    service = AlgoService(server.http)
    assert [one.algo_id for one in await service.of(265598)] == ["Adaptive", "ArrivalPx", "Twap"]
    await service.of(265598)
    assert len(server.lines()) == 2
    assert server.seen[0].query == {"addDescription": "1", "addParams": "1"}


async def test_checks_before_anything_is_sent(server: Server) -> None:
    server.answers[LINE] = BODY
    service = AlgoService(server.http)
    await service.check(ticket("Adaptive", adaptivePriority="Patient"))
    with pytest.raises(OrderRefusedError, match="Did you mean Adaptive"):
        await service.check(ticket("adaptive"))
    assert server.lines() == [LINE]


async def test_a_contract_that_is_not_known(server: Server) -> None:
    server.answers[LINE] = lambda _seen: error(503, "x")
    with pytest.raises(ResponseError):
        await AlgoService(server.http).of(265598)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Adaptive", {"adaptivePriority": "Urgent"}),
        ("ArrivalPx", {"maxPctVol": 0.01}),
        ("ArrivalPx", {"maxPctVol": 50, "allowPastEndTime": True, "startTime": "09:30:00", "slices": 3}),
        ("ArrivalPx", {"maxPctVol": 1, "startTime": "20260302-09:30:00 US/Eastern"}),
        ("Twap", {}),
    ],
)
def test_right_parameters(name: str, parameters: dict[str, Any]) -> None:
    check_algo(ticket(name, **parameters), algos(BODY))


@pytest.mark.parametrize(
    ("name", "parameters", "why"),
    [
        ("Vwap", {}, "'Vwap' is not offered.*Did you mean Twap"),
        ("Zzz", {}, "Use one of Adaptive, ArrivalPx, Twap"),
        ("Adaptive", {}, "adaptivePriority is missing.*Urgent, Normal, Patient"),
        ("Adaptive", {"adaptivePriority": "Fast"}, "adaptivePriority='Fast' is not allowed"),
        ("Adaptive", {"adaptivePrority": "Urgent"}, "no parameter 'adaptivePrority'.*adaptivePriority"),
        ("Twap", {"x": 1}, "no parameter 'x'.*leave it out"),
        ("ArrivalPx", {"maxPctVol": 0.001}, "out of range.*0.01 to 50.0"),
        ("ArrivalPx", {"maxPctVol": 51}, "out of range"),
        ("ArrivalPx", {"maxPctVol": "5"}, "no number"),
        ("ArrivalPx", {"maxPctVol": True}, "no number"),
        ("ArrivalPx", {"maxPctVol": 5, "slices": 1.5}, "no whole number"),
        ("ArrivalPx", {"maxPctVol": 5, "allowPastEndTime": 1}, "not True or False"),
        ("ArrivalPx", {"maxPctVol": 5, "startTime": "half past nine"}, "no time"),
        ("ArrivalPx", {"maxPctVol": 5, "startTime": "29:30:00"}, "no time"),
    ],
)
def test_wrong_parameters(name: str, parameters: dict[str, Any], why: str) -> None:
    with pytest.raises(OrderRefusedError) as caught:
        check_algo(ticket(name, **parameters), algos(BODY))
    assert re.search(why, str(caught.value))
