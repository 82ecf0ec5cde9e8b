"""Prompts: questions about an order that comes after it was taken, as an ``ntf`` frame.

The order waits until ``POST /iserver/notification`` chooses one of the options (wire facts, sections 4.3 and
7.3). The emulator has p12, which asks whether the price management algorithm is to be used for a limit order
whose price is far from the market, with the settings' ``questions`` at ``all``. An order that says
``useAdaptive``, yes or no, is not asked about, nor is any once p12 is suppressed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bt_ibkr.emulator.services.marketdata.fields import mark_price
from bt_ibkr.emulator.types import EmulatedOrder, OrderSpec, Placed
from bt_ibkr.model.order import DONE, OrderType

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

PRICE_MANAGEMENT = "p12"
_ALWAYS = "Always use"
#: As recorded.
_OPTIONS = ("Use on this order", _ALWAYS, "Do not use")
_TEXT = (
    "If your order is not immediately executable, our systems may, depending on market conditions, reject your "
    "order if its limit price is more that the allowed amount away from the reference price at that time. If "
    "this happens, you will not receive a fill. This is a control designed to ensure that we comply with our "
    "regulatory obligations to avoid submitting disruptive orders to the marketplace.\nUse the Price Management "
    "Algo?"
)
_FIRST_REQUEST = 22_170


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt that waits for an answer."""

    order_id: int
    request_id: str

    def body(self) -> dict[str, object]:
        """An element of ``args`` of the ``ntf`` frame."""
        return {
            "orderId": self.order_id,
            "reqId": self.request_id,
            "dismissable": [],
            "text": _TEXT,
            "options": list(_OPTIONS),
            "type": "M",
            "messageId": PRICE_MANAGEMENT,
            "prompt": True,
        }


class Prompts:
    """The prompts that wait."""

    def __init__(self) -> None:
        self._waiting: dict[str, Prompt] = {}
        self._next = _FIRST_REQUEST

    @property
    def state(self) -> tuple[dict[str, Prompt], int]:
        """What ``restore`` takes."""
        return dict(self._waiting), self._next

    def restore(self, state: tuple[dict[str, Prompt], int]) -> None:
        """Wait for the same answers as before the server was started again."""
        self._waiting, self._next = state

    def ask(self, core: Core, placed: list[Placed]) -> None:
        """Ask about the orders that want it; they wait from now on."""
        for order in (one.order for one in placed if one.order is not None):
            if order.status not in DONE and _wanted(core, order):
                prompt = Prompt(order_id=order.order_id, request_id=str(self._next))
                self._next += 1
                self._waiting[prompt.request_id] = prompt
                core.engine.exchange.hold(order.order_id)
                core.hub.prompt(prompt.body())

    def answer(self, core: Core, order_id: object, request_id: object, text: object) -> None:
        """Let the order go on, if the answer is one to a prompt; the server does not tell if it is not."""
        prompt = self._waiting.get(str(request_id))
        if prompt is None or str(prompt.order_id) != str(order_id) or text not in _OPTIONS:
            return
        del self._waiting[prompt.request_id]
        if text == _ALWAYS:
            core.session.suppressed.add(PRICE_MANAGEMENT)
        core.engine.exchange.release(prompt.order_id)


def _wanted(core: Core, order: EmulatedOrder) -> bool:
    spec: OrderSpec = order.spec
    if core.settings.questions != "all" or PRICE_MANAGEMENT in core.session.suppressed:
        return False
    if (
        spec.order_type is not OrderType.LIMIT
        or spec.price_management is not None
        or spec.limit_price is None
    ):
        return False
    quote = core.engine.quote(spec.conid)
    market = None if quote is None else mark_price(quote)
    if not market:
        return False
    away = (market - spec.limit_price) / abs(market) * spec.side.sign
    return away > core.settings.limits.price_percent / 100
