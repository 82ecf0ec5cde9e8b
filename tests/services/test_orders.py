"""Submissions: questions, refusals, brackets, lost answers; what is sent, and what never is.

Nothing is looked up or repeated here: how far a conversation came is told, and that is all.
"""

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
)
from bt_ibkr.model.order import OrderReport, OrderStatus, OrderTicket, OrderType, Side
from bt_ibkr.services.conversation import BrokenOffError, Stage
from bt_ibkr.services.matching import Placement, found
from bt_ibkr.services.orders import OrderService
from bt_ibkr.services.questions import ACCEPTED, QuestionPolicy
from tests.services.conftest import error

if TYPE_CHECKING:
    from tests.services.conftest import Emulator, Server, StartEmulator

ORDERS = "POST /iserver/account/DU1/orders"
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


def service(server: Server | Emulator, policy: QuestionPolicy | None = None) -> OrderService:
    http = server.http
    return OrderService(http, policy or QuestionPolicy())


async def placed(orders: OrderService, tickets: tuple[OrderTicket, ...]) -> tuple[Placement, ...]:
    """Place what is taken without any reservation."""
    outcome = await orders.place(tickets)
    assert outcome.refusal is None
    assert outcome.strays == ()
    return outcome.placed


async def stage_of(orders: OrderService, *tickets: OrderTicket) -> Stage:
    """How far a submission came that breaks off."""
    with pytest.raises(BrokenOffError) as caught:
        await orders.place(tickets)
    return caught.value.stage


# --- plain submissions and questions -----------------------------------------------------------------


async def test_a_plain_order(server: Server) -> None:
    server.answers[ORDERS] = ACK
    (placement,) = await placed(service(server), (ticket(),))
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
    (placement,) = await placed(service(server), (ticket(),))
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
    assert await placed(service(server, policy), (ticket(),))
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
    await placed(orders, (ticket(quantity=Decimal(600)),))
    assert len([line for line in emulator.lines if "reply" in line]) >= 3
    standing = emulator.server.core.engine.orders("DU1")
    with pytest.raises(OrderRefusedError, match="o354"):
        await service(emulator, QuestionPolicy(accept=frozenset())).place((ticket(client_order_id="no"),))
    assert emulator.server.core.engine.orders("DU1") == standing
    assert len(list(standing)) == 1


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


async def test_a_refused_order_left_inactive_does_not_stand(server: Server) -> None:
    """Recorded: the sentinel comes with the id of the order that was refused."""
    server.answers[ORDERS] = [
        {"order_id": "-1", "order_status": "Failed", "text": "The size, 1, does not conform."},
        {"order_id": "1760268467", "order_status": "Inactive"},
    ]
    outcome = await service(server).place((ticket(),))
    assert outcome.placed == ()
    assert outcome.strays == ("1760268467",)
    assert outcome.refusal is not None
    assert "does not conform" in outcome.refusal.message
    assert server.lines() == [ORDERS]


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


async def test_an_order_with_a_prompt_that_nobody_answers_stands_and_waits(server: Server) -> None:
    server.answers[ORDERS] = {
        "orderId": 5,
        "reqId": "22170",
        "text": "Use it?",
        "prompt": True,
        "options": [],
    }
    outcome = await service(server).place((ticket(),))
    assert outcome.placed == (Placement(ticket(), "5"),)
    assert outcome.refusal is not None
    assert "Use it?" in outcome.refusal.message
    assert server.lines() == [ORDERS]


async def test_a_prompt_whose_answer_is_lost_leaves_the_order(server: Server) -> None:
    """The order has its id: it stands and waits, whatever becomes of the answer."""
    server.answers |= {
        ORDERS: {
            "orderId": 5,
            "reqId": "22170",
            "text": "Use it?",
            "prompt": True,
            "options": ["Use", "Cancel"],
            "messageId": "p12",
        },
        "POST /iserver/notification": cut,
    }
    (placement,) = await placed(
        service(server, QuestionPolicy(options={"p12": "Use"})), (ticket(client_order_id="mine"),)
    )
    assert placement.order_id == "5"
    assert server.lines() == [ORDERS, "POST /iserver/notification"]


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
    placements = await placed(service(server), tickets)
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
    placements = await placed(service(server), tickets)
    assert [one.order_id for one in placements] == ["1", "2", "3"]


async def test_an_incomplete_bracket_is_told(server: Server) -> None:
    """What stands is named; withdrawing it is for whoever keeps the record."""
    server.answers |= {
        ORDERS: [PARENT, child("2")],
        "GET /iserver/account/order/status/2": status(2, "STOP", 90.0),
    }
    tickets = bracket()
    outcome = await service(server).place(tickets)
    assert outcome.placed == (Placement(tickets[0], "1"), Placement(tickets[1], "2"))
    assert outcome.strays == ()
    assert outcome.refusal is not None
    assert "only 2 of 3" in outcome.refusal.message
    assert server.lines("DELETE") == []


async def test_a_bracket_with_a_refused_child(server: Server) -> None:
    """Submission is not atomic: the parent stands although a child was refused."""
    server.answers |= {
        ORDERS: [{"order_id": "-1", "order_status": "Failed", "text": "Bad stop."}, PARENT, child("3")],
        "GET /iserver/account/order/status/3": status(3, "LIMIT", 120.0),
    }
    tickets = bracket()
    outcome = await service(server).place(tickets)
    assert outcome.placed == (Placement(tickets[0], "1"), Placement(tickets[2], "3"))
    assert outcome.refusal is not None
    assert "Bad stop." in outcome.refusal.message


async def test_a_child_of_which_nothing_is_known_is_a_stray(server: Server) -> None:
    server.answers |= {
        ORDERS: [{"order_id": "-1", "order_status": "Failed", "text": "Bad stop."}, PARENT, child("3")],
        "GET /iserver/account/order/status/3": lambda _: web.json_response({"error": "busy"}, status=503),
    }
    outcome = await service(server).place(bracket())
    assert [one.order_id for one in outcome.placed] == ["1"]
    assert outcome.strays == ("3",)
    assert outcome.refusal is not None


async def test_what_stood_before_a_declined_question_is_told(server: Server) -> None:
    server.answers |= {
        ORDERS: [PARENT, *question("a", "o99999")],
        "POST /iserver/reply/a": {"error": "Order not confirmed "},
    }
    outcome = await service(server).place(bracket())
    assert [one.order_id for one in outcome.placed] == ["1"]
    assert outcome.refusal is not None
    assert "o99999" in outcome.refusal.message


async def test_a_bracket_whose_children_cannot_be_told_apart_is_no_refusal(server: Server) -> None:
    """All three stand; that their status could not be read must not look like a refusal."""
    server.answers |= {
        ORDERS: [child("2"), child("3"), PARENT],
        "GET /iserver/account/order/status/2": lambda _: web.json_response({"error": "busy"}, status=503),
    }
    assert await stage_of(service(server), *bracket()) is Stage.SENT


async def test_the_emulators_brackets(start_emulator: StartEmulator) -> None:
    emulator = await start_emulator()
    tickets = bracket(parent_price=150.0)
    placements = await placed(service(emulator), tickets)
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
async def test_a_lost_answer_may_stand(server: Server, loss: Any) -> None:
    server.answers[ORDERS] = loss
    assert await stage_of(service(server), ticket()) is Stage.SENT
    assert server.lines() == [ORDERS]


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_reply_may_stand(server: Server, loss: Any) -> None:
    """Documented: 503 to a reply, and the order is live all the same."""
    server.answers |= {ORDERS: question("a", "o163"), "POST /iserver/reply/a": loss}
    assert await stage_of(service(server), ticket()) is Stage.SENT
    assert server.lines() == [ORDERS, "POST /iserver/reply/a"]


async def test_a_stale_reply_was_never_confirmed(server: Server) -> None:
    server.answers |= {
        ORDERS: question("a", "o163"),
        "POST /iserver/reply/a": lambda _: error(400, "reply id not found: 'a'"),
    }
    assert await stage_of(service(server), ticket()) is Stage.ASKED


NOT_TAKEN = [
    pytest.param(401, "not authenticated", id="401"),
    pytest.param(410, "gone", id="410"),
    pytest.param(429, "slow", id="429"),
    pytest.param(500, "Please query /accounts first", id="accounts"),
    pytest.param(400, "Bad Request: no bridge", id="no bridge"),
    pytest.param(503, "not authenticated", id="not authenticated"),
]


@pytest.mark.parametrize(("code", "text"), NOT_TAKEN)
async def test_what_was_not_looked_at_was_not_sent(server: Server, code: int, text: str) -> None:
    """It may be sent again, but not here."""
    server.answers[ORDERS] = lambda _: error(code, text)
    assert await stage_of(service(server), ticket()) is Stage.UNSENT
    assert server.lines() == [ORDERS]


@pytest.mark.parametrize(("code", "text"), NOT_TAKEN)
async def test_a_reply_that_was_not_looked_at_confirmed_nothing(server: Server, code: int, text: str) -> None:
    server.answers |= {ORDERS: question("a", "o163"), "POST /iserver/reply/a": lambda _: error(code, text)}
    assert await stage_of(service(server), ticket()) is Stage.ASKED
    assert server.lines() == [ORDERS, "POST /iserver/reply/a"]


async def test_nobody_there(server: Server) -> None:
    await server._runner.cleanup()
    assert await stage_of(service(server), ticket()) is Stage.UNSENT


async def test_what_leaves_is_counted(server: Server) -> None:
    """Before and after each request: tests kill the process there."""
    server.answers |= {ORDERS: question("a", "o163"), "POST /iserver/reply/a": lose}
    steps: list[str] = []
    orders = OrderService(server.http, QuestionPolicy(), step=steps.append)
    assert await stage_of(orders, ticket()) is Stage.SENT
    assert steps == [
        "desk.post.before.unsent",
        "desk.post.after.unsent",
        "desk.post.before.asked",
        "desk.post.after.asked",
    ]


# --- found in a list --------------------------------------------------------------------------------------


def row(order_id: str, **changes: Any) -> OrderReport:
    """A row of the list of orders."""
    plain: dict[str, Any] = {
        "order_id": order_id, "account": "DU1", "conid": 265598, "side": Side.BUY, "order_type": "MARKET",
        "status": OrderStatus.SUBMITTED,
    }  # fmt: skip
    return OrderReport(**(plain | changes))


STOP_ROW: dict[str, Any] = {
    "order_type": "STOP",
    "side": Side.SELL,
    "stop_price": 90.0,
    "parent_id": "1",
}
LIMIT_ROW: dict[str, Any] = {
    "order_type": "LIMIT",
    "side": Side.SELL,
    "limit_price": 120.0,
    "parent_id": "1",
}


def test_a_single_order_is_found_by_its_reference() -> None:
    (one,) = found((ticket(),), (row("3", order_ref="other"), row("99", order_ref="mine")))
    assert one == Placement(ticket(), "99")
    assert found((ticket(),), (row("3", order_ref="other"), row("4"))) == ()


def test_an_order_without_a_reference_of_ours_is_never_matched() -> None:
    assert found((ticket(client_order_id=None),), (row("98"), row("99", order_ref="other"))) == ()


def test_a_bracket_is_found_by_its_parent() -> None:
    rows = (
        row("3", **LIMIT_ROW),
        row("2", **STOP_ROW),
        row("1", order_type="LIMIT", limit_price=100.0, order_ref="mine"),
        row("8", **LIMIT_ROW | {"parent_id": "7"}),
    )
    assert [one.order_id for one in found(bracket(), rows)] == ["1", "2", "3"]


def test_half_a_bracket_is_half_a_bracket() -> None:
    rows = (row("2", **STOP_ROW), row("1", order_type="LIMIT", limit_price=100.0, order_ref="mine"))
    tickets = bracket()
    assert found(tickets, rows) == (Placement(tickets[0], "1"), Placement(tickets[1], "2"))


def test_members_of_a_group_are_found_by_their_own_references() -> None:
    tickets = tuple(ticket(client_order_id=name, one_cancels_all=True) for name in "ab")
    rows = (row("5", order_ref="b"), row("4", order_ref="a"))
    assert [one.order_id for one in found(tickets, rows)] == ["4", "5"]


@given(st.permutations([0, 1, 2]), st.permutations([110.0, 120.0]))
@settings(deadline=None)
def test_children_of_one_type_are_found_by_price(order: list[int], prices: list[float]) -> None:
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
            for price in prices
        ),
    )
    rows = (
        row("1", order_ref="mine"),
        row("110", **LIMIT_ROW | {"limit_price": 110.0}),
        row("120", **LIMIT_ROW | {"limit_price": 120.0}),
    )
    placements = found(tickets, [rows[index] for index in order])
    assert [one.order_id for one in placements] == ["1", *(f"{price:g}" for price in prices)]


# --- modification -----------------------------------------------------------------------------------------

MODIFY = "POST /iserver/account/DU1/order/17"


async def test_a_modification_sends_the_whole_order(server: Server) -> None:
    server.answers |= {MODIFY: question("a", "o163"), "POST /iserver/reply/a": ACK}
    changed = ticket(order_type=OrderType.LIMIT, limit_price=99.5, quantity=Decimal(7))
    assert await service(server).modify("17", changed) == "17"
    body = server.seen[0].body
    assert (body["quantity"], body["price"], body["orderType"], body["side"]) == (7, 99.5, "LMT", "BUY")
    assert server.lines() == [MODIFY, "POST /iserver/reply/a"]


async def test_a_modified_order_may_get_another_id(server: Server) -> None:
    server.answers[MODIFY] = [{"order_id": "18", "order_status": "Submitted"}]
    assert await service(server).modify("17", ticket()) == "18"


async def test_a_refused_modification(server: Server) -> None:
    server.answers[MODIFY] = {"error": "Order 17 cannot be modified"}
    with pytest.raises(OrderRefusedError, match="cannot be modified"):
        await service(server).modify("17", ticket())


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_modification_with_a_lost_answer(server: Server, loss: Any) -> None:
    server.answers[MODIFY] = loss
    with pytest.raises(BrokenOffError) as caught:
        await service(server).modify("17", ticket())
    assert caught.value.stage is Stage.SENT
    assert server.lines() == [MODIFY]


async def test_a_modification_waits_for_a_submission(server: Server) -> None:
    """IBKR wants one conversation of an account at a time, of whatever kind."""
    server.answers |= {
        ORDERS: question("a", "o163"),
        "POST /iserver/reply/a": ACK,
        MODIFY: ACK,
    }
    orders = service(server)
    await asyncio.gather(orders.place((ticket(),)), orders.modify("17", ticket()))
    assert server.lines() == [ORDERS, "POST /iserver/reply/a", MODIFY]


async def test_modify_at_the_emulator(start_emulator: StartEmulator) -> None:
    emulator = await start_emulator()
    orders = service(emulator)
    first = ticket(order_type=OrderType.LIMIT, limit_price=100.0)
    (placement,) = await placed(orders, (first,))
    changed = ticket(order_type=OrderType.LIMIT, limit_price=101.0, quantity=Decimal(4))
    order_id = await orders.modify(placement.order_id, changed)
    report = await orders.status(order_id)
    assert (report.limit_price, report.total_quantity) == (101.0, Decimal(4))
    await orders.cancel(changed, order_id)
    with pytest.raises(OrderRefusedError):
        await orders.modify(order_id, changed)


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
    placements = await asyncio.gather(*(placed(orders, (ticket(client_order_id=name),)) for name in names))
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
    await service(server).cancel(ticket(), "17")
    assert server.lines() == [CANCEL]


@pytest.mark.parametrize(
    ("status_code", "body", "kind"),
    [
        (400, {"error": "Order is inactive"}, OrderRefusedError),
        (400, {"error": "OrderID 17 doesn't exist"}, OrderRefusedError),
        (200, {"error": "OrderID 17 doesn't exist"}, OrderRefusedError),
        (503, {"error": "Service Unavailable", "statusCode": 503}, BrokenOffError),
        (500, "<html>", BrokenOffError),
        (200, "<html>", BtIbkrError),
        (401, "not authenticated", BrokenOffError),
        (429, "slow", BrokenOffError),
    ],
)
async def test_cancel_that_is_not_taken(
    server: Server, status_code: int, body: Any, kind: type[BtIbkrError]
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    server.answers[CANCEL] = lambda _: web.Response(status=status_code, text=text)
    with pytest.raises(kind):
        await service(server).cancel(ticket(), "17")
    assert server.lines() == [CANCEL]


async def test_cancel_with_a_lost_answer(server: Server) -> None:
    server.answers[CANCEL] = cut
    with pytest.raises(BrokenOffError) as caught:
        await service(server).cancel(ticket(), "17")
    assert caught.value.stage is Stage.SENT


async def test_a_cancellation_that_nobody_receives(server: Server) -> None:
    await server._runner.cleanup()
    with pytest.raises(BrokenOffError) as caught:
        await service(server).cancel(ticket(), "17")
    assert caught.value.stage is Stage.UNSENT


async def test_a_cancellation_waits_for_nobody(server: Server) -> None:
    """It goes out while a question about another order is open."""
    asked = asyncio.Event()
    go_on = asyncio.Event()

    async def reply(_: object) -> Any:
        asked.set()
        await go_on.wait()
        return ACK

    server.answers |= {
        ORDERS: question("a", "o163"),
        "POST /iserver/reply/a": reply,
        CANCEL: {"msg": "Request was submitted", "order_id": 17},
    }
    orders = service(server)
    placing = asyncio.create_task(orders.place((ticket(),)))
    await asked.wait()
    await orders.cancel(ticket(), "17")
    go_on.set()
    await placing
    assert server.lines() == [ORDERS, "POST /iserver/reply/a", CANCEL]


async def test_cancel_at_the_emulator(start_emulator: StartEmulator) -> None:
    emulator = await start_emulator()
    orders = service(emulator)
    resting = ticket(order_type=OrderType.LIMIT, limit_price=100.0)
    (placement,) = await placed(orders, (resting,))
    await orders.cancel(resting, placement.order_id)
    report = await orders.status(placement.order_id)
    assert report.status is OrderStatus.CANCELLED
    for order_id in (placement.order_id, "999"):
        with pytest.raises(OrderRefusedError):
            await orders.cancel(resting, order_id)
