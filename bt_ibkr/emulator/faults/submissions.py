"""Faults between an order and its acknowledgement: questions, replies, brackets, ids."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bt_ibkr.emulator.faults.active import Active, Registry
from bt_ibkr.emulator.faults.order_specs import (
    Answers,
    Asked,
    Bracket,
    NewOrderId,
    QuestionEnds,
    Questions,
    Replies,
)
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.orders import rows
from bt_ibkr.emulator.services.orders.questions import Question
from bt_ibkr.emulator.services.session.state import Tier
from bt_ibkr.emulator.types import EmulatedOrder, OrderSpec, Placed

if TYPE_CHECKING:
    from bt_ibkr.emulator.faults.base import Spec
    from bt_ibkr.emulator.services.core import Core


class ScriptedQuestion(Question, frozen=True, kw_only=True):
    """What one answer of a ``questions`` fault asks: several at once, or one without an id."""

    asked: tuple[Asked, ...]

    def body(self, reply_id: str) -> list[dict[str, object]]:
        body: dict[str, object] = {
            "id": reply_id,
            "message": [one.text for one in self.asked],
            "isSuppressed": False,
        }
        ids = [one.id for one in self.asked if one.id is not None]
        if ids:
            body["messageIds"] = ids
        return [body]


class SubmissionFaults:
    """What happens to submissions and to the answers to their questions."""

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core = core
        self._registry = registry
        self._rules: list[Active] = []

    def begin(self, fault: Active) -> None:
        self._rules.append(fault)
        fault.lasts(lambda: self._rules.remove(fault))

    def _first(self, kind: type[Spec]) -> Active | None:
        return next((one for one in self._rules if one.armed and isinstance(one.spec, kind)), None)

    # --- questions ---------------------------------------------------------------------------------

    def questions(self, usual: tuple[Question, ...], *, modify: bool) -> tuple[Question, ...]:
        """What an order or a change is asked; ``usual`` unless a fault wants otherwise.

        An answer that asks one suppressed question only is not given; one that also asks another is.
        """
        on = "modify" if modify else "place"
        for fault in self._rules:
            spec = fault.spec
            if not fault.armed or not isinstance(spec, Questions) or spec.on not in ("any", on):
                continue
            self._registry.spend(fault, on=on)
            suppressed = self._core.session.suppressed
            chain = tuple(
                ScriptedQuestion(
                    message_id=step[0].id or "" if len(step) == 1 else "", message="", asked=step
                )
                for step in spec.chain
                if any(one.id is None or one.id not in suppressed for one in step)
            )
            return (*chain, *usual) if spec.usual else chain
        return usual

    def asked(self) -> None:
        """A question is on its way to the client."""
        fault = self._first(QuestionEnds)
        if fault is None or not isinstance(fault.spec, QuestionEnds):
            return
        tier, told = Tier(fault.spec.then), fault.spec.told
        self._registry.spend(fault)
        # The answer that asks is made before the session ends.
        asyncio.get_running_loop().call_soon(lambda: self._core.set_tier(tier, told=told))

    def reply(self) -> Replies | None:
        """The fault that happens to this answer to a question."""
        fault = self._first(Replies)
        if fault is None or not isinstance(fault.spec, Replies):
            return None
        self._registry.spend(fault)
        return fault.spec

    async def fail(self, fault: Replies, reply_id: str) -> None:
        """Answer the reply as the fault wants.

        Raises:
            ApiError: Always.
        """
        if fault.action == "unavailable":
            await asyncio.sleep(fault.delay_s)
            raise errors.unavailable()
        raise errors.error(400, f"reply id not found: '{reply_id}'")

    # --- answers -----------------------------------------------------------------------------------

    def half_bracket(self, specs: tuple[OrderSpec, ...]) -> object | None:
        """The answer to a bracket of which one child fails; ``None`` if there is no such fault or bracket."""
        fault = self._first(Bracket)
        children = [spec for spec in specs if spec.parent_client_id is not None]
        if fault is None or not isinstance(fault.spec, Bracket) or not children:
            return None
        spec = fault.spec
        lost = children[min(spec.child, len(children) - 1)]
        self._registry.spend(fault, shape=spec.shape)
        if not spec.stands:
            return {"error": spec.text} if spec.shape == "error" else self._inactive(specs, lost, spec.text)
        wanted = specs if spec.shape == "ids" else tuple(one for one in specs if one is not lost)
        placed = self._core.engine.place(list(wanted))
        self._core.orders.register(placed)
        if spec.shape == "error":
            return {"error": spec.text}
        answer = [rows.acknowledgement(one.order) for one in self.arranged(placed) if one.order is not None]
        if spec.shape == "sentinel":
            return [_sentinel(spec.text), *answer]
        if spec.shape == "ids":
            order = placed[wanted.index(lost)].order
            if order is not None:
                self._core.engine.exchange.drop(order.order_id, spec.text)
        return answer

    def _inactive(self, specs: tuple[OrderSpec, ...], lost: OrderSpec, text: str) -> object:
        """Nothing of the bracket is transmitted; the rest has ids all the same (recorded)."""
        answer = [_sentinel(text)]
        for one in reversed(specs):
            if one is not lost:
                order_id = self._core.engine.exchange.reserve_id()
                row: rows.Row = {
                    "order_id": str(order_id),
                    "order_status": "Inactive",
                    "encrypt_message": "1",
                }
                if one.client_order_id and one.parent_client_id is None:
                    row["local_order_id"] = one.client_order_id
                answer.append(row)
        return answer

    def arranged(self, placed: list[Placed]) -> list[Placed]:
        """The rows of an answer in their order: children before their parent, as recorded, unless a fault
        wants another."""
        usual = sorted(placed, key=lambda one: one.order is None or not one.order.parent_id)
        fault = self._first(Answers) if len(placed) > 1 else None
        if fault is None or not isinstance(fault.spec, Answers):
            return usual
        self._registry.spend(fault)
        if fault.spec.order == "shuffle":
            self._registry.random.shuffle(usual)
        elif fault.spec.order == "parent_first":
            usual.reverse()
        return usual

    def modified(self, order: EmulatedOrder) -> None:
        """An order was changed: it may have another id from now on."""
        fault = self._first(NewOrderId)
        if fault is not None:
            former = order.order_id
            new_id = self._core.engine.exchange.renumber(former)
            self._registry.spend(fault, former=former, order_id=new_id)
            self._core.engine.tell_order(order)


def _sentinel(text: str) -> rows.Row:
    return {
        "order_id": "-1",
        "order_status": "Failed",
        "text": text,
        "warning_message": "Order rejected by the exchange.",
    }
