"""Questions an order is answered with, by IBKR's message ids (wire facts, section 7.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bt_ibkr.emulator.services import format as text
from bt_ibkr.emulator.services.marketdata.fields import mark_price
from bt_ibkr.emulator.types import OrderSpec
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import OrderType, Side

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_SURE = "Are you sure you want to submit this order?"
_STOPS = frozenset({OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAIL, OrderType.TRAIL_LIMIT})
_LIMITS = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT, OrderType.LIMIT_ON_CLOSE})


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question: its id at IBKR and its words."""

    message_id: str
    message: str

    def body(self, reply_id: str) -> list[dict[str, object]]:
        """The answer to the submission that asks this."""
        body: dict[str, object] = {
            "id": reply_id,
            "message": [self.message],
            "isSuppressed": False,
            "messageIds": [self.message_id],
            "messageOptions": ["Yes", "No"],
        }
        if self.message_id == "o10153":
            body |= {
                "messageOptions": ["Decline", "Accept and Continue"],
                "isSuppressible": True,
                "defaultSuppressionOption": "Accept and Continue",
            }
        return [body]


def for_orders(core: Core, specs: tuple[OrderSpec, ...]) -> tuple[Question, ...]:
    """All questions about ``specs``, in the order they are asked; none twice, none that is suppressed."""
    if core.settings.questions == "none":
        return ()
    found: dict[str, Question] = {}
    for spec in specs:
        for question in _for_order(core, spec):
            found.setdefault(question.message_id, question)
    return tuple(found[key] for key in found if key not in core.session.suppressed)


def _for_order(core: Core, spec: OrderSpec) -> list[Question]:
    limits = core.settings.limits
    instrument = core.instrument(spec.conid)
    if instrument is None:
        return []
    contract = instrument.contract
    name = f"{contract.symbol} {contract.listing_exchange or contract.exchange}"
    what = f"{spec.side.value} {text.plain(spec.quantity)} {name}"
    quote = core.engine.quote(spec.conid)
    market = None if quote is None else mark_price(quote)
    digits = text.decimals(contract.tick_size)
    asked: list[Question] = []
    price = spec.limit_price if spec.order_type in _LIMITS else None
    if price is not None and market and _through(spec.side, price, market) > limits.price_percent / 100:
        asked.append(
            Question(
                message_id="o163",
                message=f'The following order "{what} @ {price:.{digits}f}" price exceeds the Percentage '
                f"constraint of {text.plain(limits.price_percent)}%.\n{_SURE}",
            )
        )
    if not core.has_market_data(spec.conid):
        asked.append(
            Question(
                message_id="o354",
                message="You are submitting an order without market data. We strongly recommend against this "
                f"as it may result in erroneous and unexpected trades.\n{_SURE}",
            )
        )
    if limits.size and float(spec.quantity) > limits.size:
        asked.append(
            Question(
                message_id="o383",
                message=f'The following order "{what}" size exceeds the Size Limit of '
                f"{text.plain(limits.size)}.\n{_SURE}",
            )
        )
    value = float(spec.quantity) * abs(price or market or 0.0) * contract.multiplier
    if limits.value and value > limits.value:
        asked.append(
            Question(
                message_id="o451",
                message=f'The following order "{what}" value estimate of {value:,.2f} {contract.currency} '
                "exceeds \nthe Total Value Limit of "
                f"{text.money(limits.value)} {contract.currency}.\n{_SURE}",
            )
        )
    asked += _kinds(spec)
    if core.settings.questions == "all":
        asked += _risks(spec)
        if spec.order_type is OrderType.MARKET and contract.security_type is SecurityType.CRYPTO:
            asked.append(Question(message_id="o10288", message=f"<h4>Market Order Confirmation</h4>{_SURE}"))
    return asked


def _kinds(spec: OrderSpec) -> list[Question]:
    """What is asked of orders for an amount of cash and of orders for groups (recorded ids; the words of o10164
    and o10223 as IBKR lists them)."""
    asked: list[Question] = []
    if spec.cash_quantity is not None or spec.currency_conversion:
        asked.append(
            Question(
                message_id="o10164",
                message="Traders are responsible for understanding cash quantity details, which are provided on "
                "a best efforts basis only.",
            )
        )
    if spec.cash_quantity is not None and not spec.currency_conversion:
        asked.append(
            Question(
                message_id="o10223",
                message="<h4>Cash Quantity Order Confirmation</h4>Orders that express size using a monetary "
                "value (cash quantity) are provided on a non-guaranteed basis. The system simulates the order "
                "by cancelling it once the specified amount is spent (for buy orders) or collected (for sell "
                "orders).",
            )
        )
    if spec.allocation:
        asked.append(
            Question(
                message_id="p6",
                message="This order will be distributed over multiple accounts. We strongly suggest you "
                "familiarize yourself with our allocation facilities before submitting orders.",
            )
        )
    return asked


def _risks(spec: OrderSpec) -> list[Question]:
    asked: list[Question] = []
    if spec.order_type is OrderType.MARKET:
        asked.append(
            Question(
                message_id="o10151",
                message="<h4>Market Order Confirmation</h4>A Market Order is an instruction to trade your "
                f"order at any available price in the market.\n{_SURE}",
            )
        )
    if spec.order_type in _STOPS:
        asked.append(
            Question(
                message_id="o10152",
                message="<h4>Stop Variant Order Confirmation</h4>A Stop Order - i.e. a Stop (Market) Order - "
                'is an instruction to buy or sell at the market price once your trigger ("stop") price is '
                f"reached.\n{_SURE}",
            )
        )
    asked.append(
        Question(
            message_id="o10153",
            message="<h4>Confirm Mandatory Cap Price</h4>To avoid trading at a price that is not consistent "
            "with a fair and orderly market, IB may set a cap (for a buy order) or a floor (for a sell "
            "order).",
        )
    )
    return asked


def _through(side: Side, price: float, market: float) -> float:
    """How far the limit is on the paying side of the market, as a fraction of the market's price."""
    return (price - market) / abs(market) * side.sign
