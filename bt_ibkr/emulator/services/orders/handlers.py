"""Submission, answers to questions, changes, cancellation, lists."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bt_ibkr.emulator.exchange.exchange import concerns
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.orders import groups, questions, rows, tickets
from bt_ibkr.emulator.services.orders.addressing import on_futures
from bt_ibkr.emulator.services.orders.recent import recent_executions
from bt_ibkr.emulator.services.orders.state import Submission
from bt_ibkr.emulator.services.orders.ticket_form import business
from bt_ibkr.emulator.types import EmulatedOrder, OrderSpec, Placed
from bt_ibkr.model.order import DONE

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

MAX_ROWS = 1000


async def place(core: Core, call: Call) -> object:
    """One order, a bracket or a group; answered by ids, by a question or by a refusal."""
    account = groups.account_or_group(core, call.path["account"])
    specs = _specs(core, account, call)
    for spec in specs:
        if spec.client_order_id in core.orders.client_ids:
            raise business(
                f"Order couldn't be submitted: Local order ID={spec.client_order_id} is already registered."
            )
    asked = core.faults.submissions.questions(questions.for_orders(core, specs), modify=False)
    return _ask_or_submit(core, Submission(account=account, specs=specs, questions=asked))


def _specs(core: Core, account: str, call: Call) -> tuple[OrderSpec, ...]:
    """The orders of the body, the parent of a bracket first."""
    listed = call.object().get("orders")
    if not isinstance(listed, list) or not listed:
        raise errors.bad_request("orders is required")
    specs = sorted(
        (tickets.parse(core, account, ticket) for ticket in listed),
        key=lambda spec: spec.parent_client_id is not None,
    )
    if any(spec.account != specs[0].account for spec in specs):
        raise business("All orders of one request must be of the same account")
    own = {spec.client_order_id for spec in specs}
    for spec in specs:
        parent = spec.parent_client_id
        if parent is not None and parent not in own and parent not in core.orders.client_ids:
            raise business(f"Invalid order: parent order {parent} not found")
    related = all(s.one_cancels_all for s in specs) or sum(s.parent_client_id is None for s in specs) <= 1
    if not related:
        raise business("Only orders of one bracket or of a single group may share a request")
    return tuple(specs)


def _ask_or_submit(core: Core, submission: Submission) -> object:
    faults = core.faults.submissions
    if submission.questions:
        body = submission.questions[0].body(core.orders.ask(submission))
        faults.asked()
        return body
    if submission.order_id:
        changed = core.engine.modify(submission.order_id, submission.specs[0])
        if changed.order is not None and changed.error is None:
            faults.modified(changed.order)
        return _answer([changed])
    half = faults.half_bracket(submission.specs)
    if half is not None:
        return half
    placed = core.engine.place(list(submission.specs))
    core.orders.register(placed)
    core.prompts.ask(core, placed)
    # Children come before their parent, as recorded: clients must not go by the index.
    return _answer(faults.arranged(placed))


def _answer(placed: list[Placed]) -> object:
    refused = [one for one in placed if one.error is not None]
    if not refused:
        return [rows.acknowledgement(one.order) for one in placed if one.order is not None]
    if all(one.order is None for one in placed):
        return {"error": refused[0].error}
    answer: list[dict[str, object]] = []
    for one in placed:
        if one.error is not None:
            answer.append({"order_id": "-1", "order_status": "Failed", "text": one.error})
        if one.order is not None:
            answer.append(rows.acknowledgement(one.order))
    return answer


async def reply(core: Core, call: Call) -> object:
    """The answer to a question: the next one, the orders' ids, or the end of it."""
    reply_id = call.path["reply"]
    confirmed = call.object().get("confirmed")
    submission = core.orders.answer(reply_id)
    if submission is not None and (fault := core.faults.submissions.reply()) is not None:
        if fault.taken:
            _confirm(core, submission, confirmed)
        await core.faults.submissions.fail(fault, reply_id)
    if submission is None:
        raise errors.error(400, f"reply id not found: '{reply_id}'")
    return _confirm(core, submission, confirmed)


def _confirm(core: Core, submission: Submission, confirmed: object) -> object:
    if confirmed is not True:
        return {"error": "Order not confirmed "}
    rest = tuple(q for q in submission.questions[1:] if q.message_id not in core.session.suppressed)
    return _ask_or_submit(
        core,
        Submission(
            account=submission.account,
            specs=submission.specs,
            questions=rest,
            order_id=submission.order_id,
        ),
    )


async def modify(core: Core, call: Call) -> object:
    """Replace an order by the complete one of the body."""
    account = groups.account_or_group(core, call.path["account"])
    order = _order(core, call)
    if order is None or order.spec.account != account:
        raise business(f"OrderID {call.path['order']} doesn't exist")
    if order.status in DONE:
        raise errors.error(400, "Order is inactive")
    spec = tickets.parse(core, account, call.json())
    asked = core.faults.submissions.questions(questions.for_orders(core, (spec,)), modify=True)
    return _ask_or_submit(
        core, Submission(account=account, specs=(spec,), questions=asked, order_id=order.order_id)
    )


async def cancel(core: Core, call: Call) -> object:
    """Ask for the end of one order, or of all with id -1."""
    account = groups.account_or_group(core, call.path["account"])
    order_id = call.integer("orderId", call.path["order"])
    if order_id == -1:
        for order in list(core.engine.orders(account)):
            if order.status not in DONE:
                core.engine.cancel(order.order_id)
    else:
        found = core.engine.order(order_id)
        if found is None or found.spec.account != account:
            raise errors.error(400, f"OrderID {order_id} doesn't exist")
        if found.status in DONE:
            raise errors.error(400, "Order is inactive")
        _check_operator(core, call, found)
        problem = core.engine.cancel(order_id)
        if problem is not None:
            raise errors.error(400, problem)
    return {"msg": "Request was submitted", "order_id": order_id, "conid": -1, "account": None}


def _check_operator(core: Core, call: Call, order: EmulatedOrder) -> None:
    """Who cancels an order on futures says so in the query (wire facts, section 7.5)."""
    instrument = core.instrument(order.spec.conid)
    if instrument is not None and on_futures(core, instrument):
        for name in ("manualIndicator", "extOperator"):
            if not call.query.get(name):
                raise errors.bad_request(f"{name} is required for orders on futures and futures options")


async def live_orders(core: Core, call: Call) -> object:
    """The selected account's orders. The first call, and one with ``force``, answer none."""
    if call.flag("force"):
        core.orders.primed_orders = True
        core.orders.filtered = False
        core.faults.listings.forced()
        return {"orders": [], "snapshot": False}
    filters = {one.strip() for one in call.query.get("filters", "").lower().split(",") if one.strip()}
    core.orders.filtered = core.orders.filtered or bool(filters)
    if not core.orders.primed_orders:
        core.orders.primed_orders = True
        return {"orders": [], "snapshot": False}
    account = core.account(call.query.get("accountId") or core.session.selected)
    wanted = filters - {"sort_by_time"}
    orders = core.engine.orders(groups.visible(core, account))
    listed = [rows.live_row(core, order) for order in (orders if wanted else orders[-MAX_ROWS:])]
    if wanted:
        listed = [row for row in listed if _snake(str(row["status"])) in wanted]
    if "sort_by_time" in filters:
        listed.sort(key=lambda row: str(row["lastExecutionTime"]), reverse=True)
    told, snapshot = core.faults.listings.live_orders(account, listed[-MAX_ROWS:])
    return {"orders": told, "snapshot": snapshot}


def _snake(status: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(status))


async def status(core: Core, call: Call) -> object:
    """One order of the selected account; 503 for any other, after a while."""
    order = _order(core, call)
    other = order is None or not _sees(core, order)
    if order is None or other or core.faults.listings.status_fails(order):
        await asyncio.sleep(core.settings.status_delay_s)
        raise errors.error(503, f"Order {call.path['order']} is not found", with_code=True)
    return rows.status_body(core, order)


def _sees(core: Core, order: EmulatedOrder) -> bool:
    account = groups.visible(core, core.session.selected)
    return account is None or concerns(order.spec, account)


def _order(core: Core, call: Call) -> EmulatedOrder | None:
    return core.engine.order(call.integer("orderId", call.path["order"]))


async def trades(core: Core, call: Call) -> object:
    """Executions of today, or of ``days`` trading days; the first call answers none."""
    days = call.integer("days", call.query.get("days") or "1")
    account = core.account(call.query.get("accountId") or core.session.selected)
    if not core.orders.primed_trades:
        core.orders.primed_trades = True
        return []
    listings = core.faults.listings
    told = listings.trades(recent_executions(core, groups.visible(core, account), days))
    return [rows.trade_row(core, one, commission=listings.priced(one)) for one in told]
