"""Submissions: questions, refusals, brackets, lost answers; what is sent, and what never is."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.errors import (
    BtIbkrError,
    OrderRefusedError,
    OutcomeUnknownError,
    PacingPenaltyError,
    UnreachableError,
)
from bt_ibkr.model.order import OrderStatus, OrderTicket, OrderType, Side
from bt_ibkr.services.orders import OrderService
from bt_ibkr.services.portfolio import PortfolioService
from bt_ibkr.services.questions import ACCEPTED, QuestionPolicy

if TYPE_CHECKING:
    from tests.services.conftest import Emulator, Server, StartEmulator

ORDERS = "POST /iserver/account/DU1/orders"
LIST = "GET /iserver/account/orders"
TRADES = "GET /iserver/account/trades"
ACK = [{"order_id": "17", "order_status": "Submitted", "local_order_id": "mine", "encrypt_message": "1"}]


def ticket(**changes: Any) -> OrderTicket:
    plain: dict[str, Any] = {
        "account": "DU1",
        "contract_id": 265598,
        "side": Side.BUY,
        "order_type": OrderType.MARKET,
        "quantity": Decimal(10),
        "client_order_id": "mine",
    }
    return OrderTicket(**(plain | changes))


def bracket(parent_price: float = 100.0) -> tuple[OrderTicket, OrderTicket, OrderTicket]:
    """Buy with a profit limit and a protective stop."""
    return (
        ticket(order_type=OrderType.LIMIT, limit_price=parent_price),
        ticket(
            side=Side.SELL, order_type=OrderType.STOP, stop_price=90.0, client_order_id=None, parent="mine"
        ),
        ticket(
            side=Side.SELL, order_type=OrderType.LIMIT, limit_price=120.0, client_order_id=None, parent="mine"
        ),
    )


def question(reply_id: str, *ids: str) -> list[dict[str, Any]]:
    return [
        {
            "id": reply_id,
            "message": [f"About {ids}. Are you sure?"],
            "isSuppressed": False,
            "messageIds": list(ids),
        }
    ]


def row(order_id: int, **changes: Any) -> dict[str, Any]:
    """A row of the list of orders."""
    return {
        "acct": "DU1", "account": "DU1", "conid": 265598, "orderId": order_id, "status": "Submitted",
        "side": "BUY", "origOrderType": "MARKET", "orderType": "Market", "totalSize": 10.0, "price": "",
    } | changes  # fmt: skip


def service(server: Server | Emulator, policy: QuestionPolicy | None = None) -> OrderService:
    http = server.http
    return OrderService(http, PortfolioService(http), policy or QuestionPolicy())


def listed(server: Server, *rows: dict[str, Any], trades: list[dict[str, Any]] | None = None) -> None:
    server.answers[LIST] = {"orders": list(rows), "snapshot": True}
    server.answers[TRADES] = trades or []


# --- plain submissions and questions -----------------------------------------------------------------


async def test_a_plain_order(server: Server) -> None:
    server.answers[ORDERS] = ACK
    (placement,) = await service(server).place((ticket(),))
    assert (placement.order_id, placement.ticket) == ("17", ticket())
    (only,) = server.seen
    (sent,) = only.body["orders"]
    assert sent["cOID"] == "mine"
    assert (sent["quantity"], sent["side"], sent["orderType"]) == (10, "BUY", "MKT")


async def test_a_chain_of_questions_is_answered(server: Server) -> None:
    """The recorded chain: price constraint, no market data, cap price."""
    server.answers |= {
        ORDERS: question("a", "o163"),
        "POST /iserver/reply/a": question("b", "o354"),
        "POST /iserver/reply/b": question("c", "o10153", "o10151"),
        "POST /iserver/reply/c": ACK,
    }
    (placement,) = await service(server).place((ticket(),))
    assert placement.order_id == "17"
    assert [one.body for one in server.seen[1:]] == [{"confirmed": True}] * 3


@pytest.mark.parametrize("ids", [("o99999",), ("o163", "o99999"), ()])
async def test_an_unknown_question_is_declined(server: Server, ids: tuple[str, ...]) -> None:
    server.answers |= {
        ORDERS: question("a", "o354"),
        "POST /iserver/reply/a": question("b", *ids),
        "POST /iserver/reply/b": {"error": "Order not confirmed "},
    }
    with pytest.raises(OrderRefusedError) as caught:
        await service(server).place((ticket(),))
    assert [one.body for one in server.seen[1:]] == [{"confirmed": True}, {"confirmed": False}]
    assert not caught.value.margin
    assert "policy" in caught.value.remedy
    for one in ids:
        assert one in caught.value.message


async def test_the_policy_decides(server: Server) -> None:
    server.answers |= {ORDERS: question("a", "o99999"), "POST /iserver/reply/a": ACK}
    policy = QuestionPolicy(accept=frozenset({"o99999"}))
    assert await service(server, policy).place((ticket(),))
    server.answers[ORDERS] = question("a", "o163")
    with pytest.raises(OrderRefusedError):
        await service(server, policy).place((ticket(client_order_id="two"),))


@given(st.sets(st.sampled_from([*ACCEPTED, "o1", "x", ""]), max_size=4))
@settings(deadline=None)
def test_every_id_must_be_accepted(ids: set[str]) -> None:
    assert QuestionPolicy().accepts(ids) == (bool(ids) and ids <= ACCEPTED.keys())


async def test_an_endless_chain_is_left(server: Server) -> None:
    server.answers |= {ORDERS: question("a", "o163"), "POST /iserver/reply/a": question("a", "o163")}
    with pytest.raises(OrderRefusedError, match="more than 8 questions"):
        await service(server).place((ticket(),))
    assert len(server.lines("reply")) <= 9
    # The last question stays unanswered or is declined; it is never accepted and forgotten.
    assert server.lines("orders") == [ORDERS]


async def test_the_emulators_questions(start_emulator: StartEmulator) -> None:
    emulator = await start_emulator(questions="all")
    orders = service(emulator)
    await orders.place((ticket(quantity=Decimal(600)),))
    assert len([line for line in emulator.lines if "reply" in line]) >= 3
    placed = emulator.server.core.engine.orders("DU1")
    with pytest.raises(OrderRefusedError, match="o354"):
        await service(emulator, QuestionPolicy(accept=frozenset())).place((ticket(client_order_id="no"),))
    assert emulator.server.core.engine.orders("DU1") == placed
    assert len(list(placed)) == 1


# --- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "margin"),
    [
        (200, {"error": "We cannot accept an order at the limit price you selected."}, False),
        (200, [{"order_id": "-1", "order_status": "Failed", "text": "Size does not conform."}], False),
        (200, {"error": "Available converted to base: 66.73 EUR. Cash needed for this order: 900"}, True),
        (200, {"error": "Insufficient funds"}, True),
        (400, {"error": "Bad Request: accountId is not valid: DU1", "statusCode": 400}, False),
        (400, {"error": "Invalid Side (must be 'BUY' or 'SELL')."}, False),
    ],
)
async def test_refusals(server: Server, status: int, body: Any, margin: bool) -> None:
    server.answers[ORDERS] = lambda _: web.json_response(body, status=status)
    with pytest.raises(OrderRefusedError) as caught:
        await service(server).place((ticket(),))
    assert caught.value.margin is margin
    assert len(server.seen) == 1


async def test_a_refused_order_left_inactive_is_withdrawn(server: Server) -> None:
    """Recorded: the sentinel comes with the id of the order that was refused."""
    server.answers |= {
        ORDERS: [
            {"order_id": "-1", "order_status": "Failed", "text": "The size, 1, does not conform."},
            {"order_id": "1760268467", "order_status": "Inactive"},
        ],
        "DELETE /iserver/account/DU1/order/1760268467": lambda _: web.json_response(
            {"error": "Order is inactive"}, status=400
        ),
    }
    with pytest.raises(OrderRefusedError, match="does not conform"):
        await service(server).place((ticket(),))


async def test_a_ticket_that_cannot_be_sent_is_not(server: Server) -> None:
    with pytest.raises(OrderRefusedError):
        await service(server).place((ticket(order_type=OrderType.LIMIT),))
    assert server.seen == []


async def test_refusal_by_the_emulator_for_lack_of_funds(start_emulator: StartEmulator) -> None:
    emulator = await start_emulator()
    emulator.server.drive.step(until_ns=None, max_events=20, received={})
    with pytest.raises(OrderRefusedError) as caught:
        await service(emulator).place((ticket(quantity=Decimal(1_000_000)),))
    assert caught.value.margin


async def test_a_prompt_is_no_acceptance(server: Server) -> None:
    server.answers[ORDERS] = {
        "orderId": 5,
        "reqId": "22170",
        "text": "Use it?",
        "prompt": True,
        "options": [],
    }
    with pytest.raises(OrderRefusedError, match="another kind"):
        await service(server).place((ticket(),))


async def test_a_penalty_is_told_as_such(server: Server) -> None:
    server.answers[ORDERS] = lambda _: web.json_response({"error": "slow"}, status=429)
    with pytest.raises(PacingPenaltyError):
        await service(server).place((ticket(),))
    assert len(server.seen) == 1


async def test_nobody_there(server: Server) -> None:
    await server._runner.cleanup()
    with pytest.raises(UnreachableError):
        await service(server).place((ticket(),))


# --- brackets ------------------------------------------------------------------------------------------


def child(order_id: str) -> dict[str, Any]:
    return {"order_id": order_id, "order_status": "PreSubmitted", "parent_order_id": "1"}


PARENT = {"order_id": "1", "order_status": "Submitted", "local_order_id": "mine"}


def status(order_id: int, kind: str, price: float) -> dict[str, Any]:
    prices = {"stop_price": str(price)} if kind == "STOP" else {"limit_price": str(price)}
    return {
        "order_id": order_id, "account": "DU1", "conid": 265598, "side": "S", "order_type": kind,
        "order_status": "PreSubmitted", "total_size": "10", "size": "10", "cum_fill": "0", **prices,
    }  # fmt: skip


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
async def test_acknowledgements_in_any_order(server: Server, order: tuple[int, ...]) -> None:
    """Rows are not index-aligned, and children carry no id of ours."""
    acks = [PARENT, child("2"), child("3")]
    server.answers |= {
        ORDERS: [acks[index] for index in order],
        "GET /iserver/account/order/status/2": status(2, "STOP", 90.0),
        "GET /iserver/account/order/status/3": status(3, "LIMIT", 120.0),
    }
    tickets = bracket()
    placements = await service(server).place(tickets)
    assert [(one.order_id, one.ticket) for one in placements] == list(
        zip(("1", "2", "3"), tickets, strict=True)
    )
    assert server.lines("DELETE") == []


async def test_children_of_one_type_are_told_apart_by_price(server: Server) -> None:
    tickets = (
        bracket()[0],
        *(
            ticket(
                side=Side.SELL,
                order_type=OrderType.LIMIT,
                limit_price=price,
                client_order_id=None,
                parent="mine",
            )
            for price in (110.0, 120.0)
        ),
    )
    server.answers |= {
        ORDERS: [child("3"), child("2"), PARENT],
        "GET /iserver/account/order/status/2": status(2, "LIMIT", 110.0),
        "GET /iserver/account/order/status/3": status(3, "LIMIT", 120.0),
    }
    placements = await service(server).place(tickets)
    assert [one.order_id for one in placements] == ["1", "2", "3"]


async def test_an_incomplete_bracket_is_withdrawn(server: Server) -> None:
    cancelled = {"msg": "Request was submitted", "order_id": 1, "conid": -1}
    server.answers |= {
        ORDERS: [PARENT, child("2")],
        "GET /iserver/account/order/status/2": status(2, "STOP", 90.0),
        "DELETE /iserver/account/DU1/order/1": cancelled,
        "DELETE /iserver/account/DU1/order/2": cancelled,
    }
    with pytest.raises(OrderRefusedError, match="only"):
        await service(server).place(bracket())
    assert sorted(server.lines("DELETE")) == [
        "DELETE /iserver/account/DU1/order/1",
        "DELETE /iserver/account/DU1/order/2",
    ]


async def test_a_bracket_with_a_refused_child_is_withdrawn(server: Server) -> None:
    """Submission is not atomic: the parent stands although a child was refused."""
    server.answers |= {
        ORDERS: [{"order_id": "-1", "order_status": "Failed", "text": "Bad stop."}, PARENT, child("3")],
        "DELETE /iserver/account/DU1/order/1": {"msg": "Request was submitted", "order_id": 1},
        "DELETE /iserver/account/DU1/order/3": {"msg": "Request was submitted", "order_id": 3},
    }
    with pytest.raises(OrderRefusedError, match=r"Bad stop\."):
        await service(server).place(bracket())
    assert sorted(server.lines("DELETE")) == [
        "DELETE /iserver/account/DU1/order/1",
        "DELETE /iserver/account/DU1/order/3",
    ]


async def test_what_stood_before_a_declined_question_is_withdrawn(server: Server) -> None:
    server.answers |= {
        ORDERS: [PARENT, *question("a", "o99999")],
        "POST /iserver/reply/a": {"error": "Order not confirmed "},
        "DELETE /iserver/account/DU1/order/1": {"msg": "Request was submitted", "order_id": 1},
    }
    with pytest.raises(OrderRefusedError, match="o99999"):
        await service(server).place(bracket())
    assert server.lines("DELETE") == ["DELETE /iserver/account/DU1/order/1"]


async def test_a_bracket_whose_children_cannot_be_told_apart_is_no_refusal(server: Server) -> None:
    """All three stand; that their status could not be read must not look like a refusal."""
    server.answers |= {
        ORDERS: [child("2"), child("3"), PARENT],
        "GET /iserver/account/order/status/2": lambda _: web.json_response({"error": "busy"}, status=503),
    }
    listed(server)
    with pytest.raises(OutcomeUnknownError):
        await service(server).place(bracket())


async def test_the_emulators_brackets(start_emulator: StartEmulator) -> None:
    emulator = await start_emulator()
    tickets = bracket(parent_price=150.0)
    placements = await service(emulator).place(tickets)
    engine = emulator.server.core.engine
    for placement in placements:
        order = engine.order(int(placement.order_id))
        assert order is not None
        assert order.spec.order_type is placement.ticket.order_type
        assert order.spec.limit_price == placement.ticket.limit_price
        assert order.spec.stop_price == placement.ticket.stop_price


# --- lost answers ----------------------------------------------------------------------------------------


def lose(_: object) -> web.Response:
    return web.json_response({"error": "Service Unavailable", "statusCode": 503}, status=503)


def garble(_: object) -> web.Response:
    return web.Response(text="<html>", content_type="text/html")


def cut(_: object) -> object:
    """The request was read, then the connection is cut without an answer."""
    raise asyncio.CancelledError


def empty(_: object) -> list[object]:
    return []


LOSSES = [lose, garble, cut, empty]


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_answer_is_looked_up_and_found(server: Server, naps: list[float], loss: Any) -> None:
    server.answers[ORDERS] = loss
    listed(server, row(3, order_ref="other"), row(99, order_ref="mine"))
    (placement,) = await service(server).place((ticket(),))
    assert placement.order_id == "99"
    assert server.lines("POST") == [ORDERS]


async def test_a_lost_answer_is_found_among_the_trades(server: Server, naps: list[float]) -> None:
    trade = {
        "execution_id": "e1", "symbol": "AAPL", "side": "B", "trade_time_r": 1788875891000, "size": 10.0,
        "price": "317.5", "account": "DU1", "conid": 265598, "order_id": 99, "order_ref": "mine",
    }  # fmt: skip
    server.answers[ORDERS] = lose
    listed(server, trades=[trade])
    (placement,) = await service(server).place((ticket(),))
    assert placement.order_id == "99"


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_answer_that_is_not_found(server: Server, naps: list[float], loss: Any) -> None:
    server.answers[ORDERS] = loss
    listed(server, row(3, order_ref="other"))
    with pytest.raises(OutcomeUnknownError) as caught:
        await service(server).place((ticket(),))
    assert "mine" in caught.value.message
    assert caught.value.remedy
    assert server.lines("POST") == [ORDERS]
    assert 2 <= len(server.lines(LIST)) <= 8


async def test_a_lost_reply_is_looked_up(server: Server, naps: list[float]) -> None:
    """Documented: 503 to a reply, and the order is live all the same."""
    server.answers |= {ORDERS: question("a", "o163"), "POST /iserver/reply/a": lose}
    listed(server, row(99, order_ref="mine"))
    (placement,) = await service(server).place((ticket(),))
    assert placement.order_id == "99"
    assert server.lines("POST") == [ORDERS, "POST /iserver/reply/a"]


async def test_a_stale_reply_is_looked_up(server: Server, naps: list[float]) -> None:
    server.answers |= {
        ORDERS: question("a", "o163"),
        "POST /iserver/reply/a": lambda _: web.json_response(
            {"error": "reply id not found: 'a'"}, status=400
        ),
    }
    listed(server)
    with pytest.raises(OutcomeUnknownError):
        await service(server).place((ticket(),))


async def test_the_look_up_survives_trouble_of_its_own(server: Server, naps: list[float]) -> None:
    answers = iter([lose(None), {"orders": [row(99, order_ref="mine")], "snapshot": True}])
    server.answers |= {ORDERS: lose, LIST: lambda _: next(answers), TRADES: []}
    (placement,) = await service(server).place((ticket(),))
    assert placement.order_id == "99"


async def test_an_empty_priming_list_proves_nothing(server: Server, naps: list[float]) -> None:
    """The first list of a session is empty, and says so."""
    answers = iter([{"orders": [], "snapshot": False}])
    server.answers |= {
        ORDERS: lose,
        TRADES: [],
        LIST: lambda _: next(answers, {"orders": [row(99, order_ref="mine")], "snapshot": True}),
    }
    (placement,) = await service(server).place((ticket(),))
    assert placement.order_id == "99"


async def test_a_lost_bracket_is_found_whole(server: Server, naps: list[float]) -> None:
    server.answers[ORDERS] = lose
    listed(
        server,
        row(3, origOrderType="LIMIT", side="SELL", price="120.00", parentId="1"),
        row(2, origOrderType="STOP", side="SELL", price="90.00", parentId="1"),
        row(1, origOrderType="LIMIT", price="100.00", order_ref="mine"),
        row(8, origOrderType="LIMIT", side="SELL", price="120.00", parentId="7"),
    )
    placements = await service(server).place(bracket())
    assert [one.order_id for one in placements] == ["1", "2", "3"]


async def test_half_a_bracket_in_the_list_is_not_the_bracket(server: Server, naps: list[float]) -> None:
    server.answers[ORDERS] = lose
    listed(
        server,
        row(2, origOrderType="STOP", side="SELL", price="90.00", parentId="1"),
        row(1, origOrderType="LIMIT", price="100.00", order_ref="mine"),
    )
    with pytest.raises(OutcomeUnknownError):
        await service(server).place(bracket())


async def test_a_lost_group_is_found_by_its_own_ids(server: Server, naps: list[float]) -> None:
    """Members of a one-cancels-all group have no parent; each carries its own id."""
    server.answers[ORDERS] = lose
    listed(server, row(5, order_ref="b"), row(4, order_ref="a"))
    tickets = tuple(ticket(client_order_id=name, one_cancels_all=True) for name in "ab")
    placements = await service(server).place(tickets)
    assert [one.order_id for one in placements] == ["4", "5"]


async def test_an_order_without_an_id_of_ours_is_never_matched(server: Server, naps: list[float]) -> None:
    trade = {
        "execution_id": "e1", "symbol": "AAPL", "side": "B", "trade_time_r": 1788875891000, "size": 10.0,
        "price": "317.5", "account": "DU1", "conid": 265598, "order_id": 99,
    }  # fmt: skip
    server.answers[ORDERS] = lose
    listed(server, row(98), trades=[trade])
    with pytest.raises(OutcomeUnknownError):
        await service(server).place((ticket(client_order_id=None),))


async def test_the_emulator_lost_its_answer(
    start_emulator: StartEmulator, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order stands there once, under its cOID."""
    emulator = await start_emulator()
    orders = service(emulator)
    real = emulator.http.send
    lost: list[str] = []

    async def send(method: str, path: str, **rest: Any) -> Any:
        reply = await real(method, path, **rest)
        if method == "POST" and path.endswith("/orders"):
            lost.append(path)
            return type(reply)(503, b"")
        return reply

    monkeypatch.setattr(emulator.http, "send", send)
    (placement,) = await orders.place((ticket(client_order_id="lost-1"),))
    (standing,) = emulator.server.core.engine.orders("DU1")
    assert placement.order_id == str(standing.order_id)
    assert len(lost) == 1


# --- one at a time, cancellation --------------------------------------------------------------------------


async def test_two_submissions_never_interleave(server: Server) -> None:
    """A second order between an order and the answer to its question invalidates the question."""

    def ask(seen: Any) -> Any:
        return question(seen.body["orders"][0]["cOID"], "o163")

    def reply(name: str) -> Any:
        return [{"order_id": name, "order_status": "Submitted", "local_order_id": name}]

    names = ("1", "2", "3")
    server.answers[ORDERS] = ask
    server.answers |= {f"POST /iserver/reply/{name}": reply(name) for name in names}
    orders = service(server)
    placements = await asyncio.gather(*(orders.place((ticket(client_order_id=name),)) for name in names))
    assert [one.order_id for (one,) in placements] == list(names)
    assert server.most_active == 1
    assert server.lines() == [line for name in names for line in (ORDERS, f"POST /iserver/reply/{name}")]


async def test_a_failed_submission_lets_the_next_one_through(server: Server) -> None:
    answers = iter([{"error": "no"}, ACK])
    server.answers[ORDERS] = lambda _: next(answers)
    orders = service(server)
    results = await asyncio.gather(
        orders.place((ticket(),)), orders.place((ticket(),)), return_exceptions=True
    )
    assert isinstance(results[0], OrderRefusedError)
    assert not isinstance(results[1], BaseException)


CANCEL = "DELETE /iserver/account/DU1/order/17"


async def test_cancel_is_taken(server: Server) -> None:
    server.answers[CANCEL] = {"msg": "Request was submitted", "order_id": 17, "conid": -1, "account": None}
    await service(server).cancel("DU1", "17")
    assert server.lines() == [CANCEL]


@pytest.mark.parametrize(
    ("status_code", "body", "kind"),
    [
        (400, {"error": "Order is inactive"}, OrderRefusedError),
        (400, {"error": "OrderID 17 doesn't exist"}, OrderRefusedError),
        (200, {"error": "OrderID 17 doesn't exist"}, OrderRefusedError),
        (503, {"error": "Service Unavailable", "statusCode": 503}, OutcomeUnknownError),
        (500, "<html>", OutcomeUnknownError),
        (200, "<html>", BtIbkrError),
        (401, "not authenticated", BtIbkrError),
    ],
)
async def test_cancel_that_is_not_taken(
    server: Server, status_code: int, body: Any, kind: type[BtIbkrError]
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    server.answers[CANCEL] = lambda _: web.Response(status=status_code, text=text)
    with pytest.raises(kind):
        await service(server).cancel("DU1", "17")
    assert server.lines() == [CANCEL]


async def test_cancel_with_a_lost_answer(server: Server) -> None:
    server.answers[CANCEL] = cut
    with pytest.raises(OutcomeUnknownError):
        await service(server).cancel("DU1", "17")


async def test_cancel_at_the_emulator(start_emulator: StartEmulator) -> None:
    emulator = await start_emulator()
    orders = service(emulator)
    (placement,) = await orders.place((ticket(order_type=OrderType.LIMIT, limit_price=100.0),))
    await orders.cancel("DU1", placement.order_id)
    report = await orders.status(placement.order_id)
    assert report.status is OrderStatus.CANCELLED
    with pytest.raises(OrderRefusedError):
        await orders.cancel("DU1", placement.order_id)
    with pytest.raises(OrderRefusedError):
        await orders.cancel("DU1", "999")
