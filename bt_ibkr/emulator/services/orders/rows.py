"""Orders and executions as rows of live orders, ``sor``, order status, trades and ``str``."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from bt_ibkr.emulator.chains import month_word
from bt_ibkr.emulator.combos import conidex, wire_conid
from bt_ibkr.emulator.services import format as text
from bt_ibkr.emulator.types import EmulatedExecution, EmulatedOrder, Instrument
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.model.order import DONE, OrderStatus, OrderType, Side, TimeInForce

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

Row = dict[str, object]
#: Words of an order type: in lists, in ``origOrderType`` and order status.
_TYPE_WORDS = {
    OrderType.MARKET: ("Market", "MARKET"),
    OrderType.LIMIT: ("Limit", "LIMIT"),
    OrderType.STOP: ("Stop", "STOP"),
    OrderType.STOP_LIMIT: ("Stop Limit", "STOP_LIMIT"),
    OrderType.TRAIL: ("Trailing Stop", "TRAILING_STOP"),
    OrderType.TRAIL_LIMIT: ("Trailing Stop Limit", "TRAILING_STOP_LIMIT"),
    OrderType.MARKET_ON_CLOSE: ("Market on Close", "MARKETONCLOSE"),
    OrderType.LIMIT_ON_CLOSE: ("Limit on Close", "LIMITONCLOSE"),
    OrderType.MIDPRICE: ("Midprice", "MIDPRICE"),
    OrderType.MARKET_IF_TOUCHED: ("Market If Touched", "MKT_IF_TOUCHED"),
    OrderType.LIMIT_IF_TOUCHED: ("Limit If Touched", "LMT_IF_TOUCHED"),
    OrderType.RELATIVE: ("Relative", "RELATIVE"),
}
#: Background and foreground of each status (recorded where the wire facts say so).
_COLOURS = {
    OrderStatus.INACTIVE: ("#000000", "#AFAFAF"),
    OrderStatus.PENDING_SUBMIT: ("#000000", "#3399CC"),
    OrderStatus.PRE_SUBMITTED: ("#FFFFFF", "#997EE5"),
    OrderStatus.SUBMITTED: ("#000000", "#00F000"),
    OrderStatus.PENDING_CANCEL: ("#000000", "#FF64FF"),
    OrderStatus.PRE_CANCELLED: ("#000000", "#FF64FF"),
    OrderStatus.CANCELLED: ("#FFFFFF", "#AA0000"),
    OrderStatus.FILLED: ("#FFFFFF", "#000000"),
    OrderStatus.WARN_STATE: ("#000000", "#AFAFAF"),
    OrderStatus.FAILED: ("#000000", "#AFAFAF"),
}
_CCP_WORDS = {
    OrderStatus.INACTIVE: "Pending Submit",
    OrderStatus.PENDING_SUBMIT: "Pending Submit",
    OrderStatus.PRE_SUBMITTED: "Pending Submit",
    OrderStatus.SUBMITTED: "Submitted",
    OrderStatus.PENDING_CANCEL: "Pending Cancel",
    OrderStatus.PRE_CANCELLED: "Pending Cancel",
    OrderStatus.CANCELLED: "Cancelled",
    OrderStatus.FILLED: "Filled",
}
_CCP_CODES = {
    OrderStatus.FILLED: "2",
    OrderStatus.CANCELLED: "4",
    OrderStatus.PENDING_CANCEL: "6",
    OrderStatus.PRE_CANCELLED: "6",
    OrderStatus.SUBMITTED: "0",
    OrderStatus.PRE_SUBMITTED: "0",
    OrderStatus.FAILED: "8",
}


def exact(price: float, digits: int) -> str:
    """A price with the digits of its tick, or all of them if those would round it."""
    rounded = f"{price:.{digits}f}"
    return rounded if float(rounded) == price else repr(round(price, 10))


def live_row(core: Core, order: EmulatedOrder, status: OrderStatus | None = None) -> Row:
    """The full row; ``status`` instead of the order's own for the first frames of its life."""
    spec, instrument = order.spec, _instrument(core, order.spec.conid)
    contract = instrument.contract
    status = order.status if status is None else status
    digits = text.decimals(contract.tick_size)
    background, foreground = _COLOURS[status]
    shown, original = _TYPE_WORDS[spec.order_type]
    row: Row = {
        "acct": spec.account,
        "conidex": conidex(instrument, spec.exchange),
        "conid": wire_conid(instrument),
        "account": spec.account,
        "orderId": order.order_id,
        "cashCcy": contract.currency,
        "sizeAndFills": sizes(order, contract.currency),
        "orderDesc": describe(order, instrument, with_symbol=True),
        "description1": contract.symbol,
        "ticker": contract.symbol,
        "secType": contract.security_type.value,
        "listingExchange": contract.listing_exchange or contract.exchange,
        "remainingQuantity": float(order.remaining),
        "filledQuantity": float(order.filled),
        "totalSize": float(spec.quantity),
        "companyName": instrument.company_name,
        "status": status.value,
        "order_ccp_status": _ccp_word(order, status),
        "outsideRTH": spec.outside_regular_hours,
        "origOrderType": original,
        "supportsTaxOpt": "1",
        "lastExecutionTime": text.short_stamp(order.updated_ns),
        "orderType": shown,
        "bgColor": background,
        "fgColor": foreground,
        "isEventTrading": "0",
        "price": _shown_price(order, digits),
        "timeInForce": "CLOSE" if spec.time_in_force is TimeInForce.DAY else spec.time_in_force.value,
        "lastExecutionTime_r": text.whole_second_ms(order.updated_ns),
        "side": spec.side.value,
    }
    row |= _description(instrument, "description2")
    if spec.cash_quantity is not None:
        # IBKR's sample of such an order: the money, not the units, is what is filled of it
        spent, total = _cash(order)
        row |= {"totalCashSize": total, "filledQuantity": spent, "remainingQuantity": max(total - spent, 0.0)}
        if order.status is OrderStatus.FILLED:
            row["remainingQuantity"] = 0.0
    if order.filled:
        row["avgPrice"] = exact(order.average_price, digits)
    if spec.client_order_id:
        row["order_ref"] = spec.client_order_id
    if order.stop_price is not None and spec.limit_price is not None:
        row["auxPrice"] = exact(order.stop_price, digits)
    if order.parent_id:
        row["parentId"] = str(order.parent_id)
        row["ocaGroupId"] = str(order.parent_id)
    elif order.oca_group:
        row["ocaGroupId"] = order.oca_group
    if order.reason:
        row["order_cancellation_by_system_reason"] = order.reason
    return row


def status_body(core: Core, order: EmulatedOrder) -> Row:
    """``order/status``: numbers are text, ``size`` is what remains, side is one letter."""
    spec, instrument = order.spec, _instrument(core, order.spec.conid)
    contract = instrument.contract
    digits = text.decimals(contract.tick_size)
    done = order.status in DONE
    foreground, background = _COLOURS[order.status]
    body: Row = {
        "sub_type": None,
        "request_id": str(order.order_id),
        "server_id": "1",
        "order_id": order.order_id,
        "conidex": conidex(instrument, spec.exchange),
        "conid": wire_conid(instrument),
        "symbol": contract.symbol,
        "side": spec.side.value[0],
        "contract_description_1": contract.symbol,
        "listing_exchange": contract.listing_exchange or contract.exchange,
        "option_acct": "c",
        "company_name": instrument.company_name,
        "size": text.pointed(order.remaining),
        "total_size": text.pointed(spec.quantity),
        "currency": contract.currency,
        "account": spec.account,
        "order_type": _TYPE_WORDS[spec.order_type][1],
        "limit_price": "" if spec.limit_price is None else exact(spec.limit_price, digits),
        "cum_fill": text.pointed(order.filled),
        "order_status": order.status.value,
        "order_ccp_status": _CCP_CODES.get(order.status, "A"),
        "order_status_description": f"Order {order.status.value}",
        "tif": spec.time_in_force.value,
        "fg_color": foreground,
        "bg_color": background,
        "order_not_editable": done,
        "editable_fields": "\u001e",
        "cannot_cancel_order": done,
        "deactivate_order": False,
        "sec_type": contract.security_type.value,
        "available_chart_periods": "#R|1",
        "order_description": describe(order, instrument, with_symbol=False),
        "order_description_with_contract": describe(order, instrument, with_symbol=True),
        "clearing_id": "IB",
        "clearing_name": "IB",
        "alert_active": 1,
        "child_order_type": "3" if order.parent_id else "0",
        "order_clearing_account": spec.account,
        "size_and_fills": sizes(order, contract.currency),
        "exit_strategy_display_price": exact(order.average_price, digits) if order.filled else "",
        "exit_strategy_chart_description": _chart_description(order, digits),
        "average_price": exact(order.average_price, digits) if order.filled else "",
        "exit_strategy_tool_availability": "1",
        "allowed_duplicate_opposite": True,
        "order_time": text.short_stamp(order.created_ns),
    }
    body |= _description(instrument, "contract_description_2")
    if spec.cash_quantity is not None:
        body["total_cash_size"] = text.pointed(spec.cash_quantity)
    if order.stop_price is not None:
        body["stop_price"] = exact(order.stop_price, digits)
    if spec.client_order_id:
        body["order_ref"] = spec.client_order_id
    if order.parent_id:
        body["parent_order_id"] = order.parent_id
        body["oca_group_id"] = str(order.parent_id)
    elif order.oca_group:
        body["oca_group_id"] = order.oca_group
    if order.reason:
        body["order_cancellation_by_system_reason"] = order.reason
    return body


def trade_row(core: Core, execution: EmulatedExecution, *, commission: bool = True) -> Row:
    """One execution; without its commission as ``str`` sends it first."""
    instrument = _instrument(core, execution.conid)
    contract = instrument.contract
    price = exact(execution.price, text.decimals(contract.tick_size))
    word = "Bot" if execution.side is Side.BUY else "Sold"
    row: Row = {
        "execution_id": execution.execution_id,
        "symbol": contract.symbol,
        "supports_tax_opt": "1",
        "side": execution.side.value[0],
        "order_description": f"{word} {text.plain(execution.quantity)} @ {price} on {execution.exchange}",
        "trade_time": text.stamp(execution.time_ns),
        "trade_time_r": text.whole_second_ms(execution.time_ns),
        "size": float(execution.quantity),
        "price": price,
        "exchange": execution.exchange,
        "net_amount": round(float(execution.quantity) * execution.price * contract.multiplier, 8),
        "account": execution.account,
        "accountCode": execution.account,
        "account_allocation_name": execution.account,
        "company_name": instrument.company_name,
        "contract_description_1": contract.symbol,
        "sec_type": contract.security_type.value,
        "listing_exchange": contract.listing_exchange or contract.exchange,
        "conid": wire_conid(instrument),
        "conidEx": conidex(instrument),
        "position": text.plain(execution.position_after),
        "clearing_id": "IB",
        "clearing_name": "IB",
        "liquidation_trade": "1" if _liquidates(core, execution) else "0",
        "is_event_trading": "0",
        "order_id": execution.order_id,
    }
    row |= _description(instrument, "contract_description_2")
    if execution.client_order_id:
        row["order_ref"] = execution.client_order_id
    if commission and not execution.envelope:
        row["commission"] = repr(float(execution.commission))
    return row


def _liquidates(core: Core, execution: EmulatedExecution) -> bool:
    order = core.engine.order(execution.order_id)
    return order is not None and order.spec.origin == "liquidation"


def acknowledgement(order: EmulatedOrder, status: OrderStatus | None = None) -> Row:
    """What a submission is answered with once the order stands."""
    row: Row = {
        "order_id": str(order.order_id),
        "order_status": (status or order.status).value,
        "encrypt_message": "1",
    }
    if order.parent_id:
        row["parent_order_id"] = str(order.parent_id)
    elif order.spec.client_order_id:
        row["local_order_id"] = order.spec.client_order_id
    return row


def _cash(order: EmulatedOrder) -> tuple[float, float]:
    """Spent or collected so far, and altogether, of an order for an amount of cash."""
    spent = round(float(order.filled) * order.average_price, 2)
    return spent, float(order.spec.cash_quantity or 0)


def _description(instrument: Instrument, key: str) -> Row:
    """What tells an option from others of its underlying; no key for anything else.

    Recorded of an option on a future: ``(EX2) OCT23 4300 Put Fut. Option``; the class is the symbol here.
    """
    contract = instrument.contract
    if contract.strike is None or not contract.last_trade_date:
        return {}
    what = f"{month_word(date.fromisoformat(contract.last_trade_date))} {text.plain(contract.strike)} "
    what += "Call" if contract.right == "C" else "Put"
    on_future = contract.security_type is SecurityType.FUTURE_OPTION
    return {key: f"({contract.symbol}) {what} Fut. Option" if on_future else what}


def sizes(order: EmulatedOrder, currency: str = "") -> str:
    """Filled and remaining, ``100/622``; filled alone once nothing remains.

    Of an order for an amount of cash with the currency, ``2.4K CAD`` (IBKR's sample; figures are cut).
    """
    if order.spec.cash_quantity is not None:
        spent, total = _cash(order)
        if order.status is OrderStatus.FILLED:
            return f"{text.short(spent)} {currency}"
        return f"{text.short(spent)}/{text.short(total - spent)} {currency}"
    if not order.remaining:
        return text.plain(order.filled)
    return f"{text.plain(order.filled)}/{text.plain(order.remaining)}"


def describe(order: EmulatedOrder, instrument: Instrument, *, with_symbol: bool) -> str:
    """``Buy 1 AAPL Limit 1.00, Day``; in the past tense once it is filled."""
    spec = order.spec
    filled = order.status is OrderStatus.FILLED
    words = {Side.BUY: ("Buy", "Bought"), Side.SELL: ("Sell", "Sold")}[spec.side]
    parts = [words[filled], text.plain(spec.quantity)]
    if with_symbol:
        parts.append(instrument.contract.symbol)
    parts.append(_TYPE_WORDS[spec.order_type][0])
    price = _shown_price(order, text.decimals(instrument.contract.tick_size))
    if price:
        parts.append(price)
    day = "Day" if spec.time_in_force is TimeInForce.DAY else spec.time_in_force.value
    return f"{' '.join(parts)}, {day}"


def _shown_price(order: EmulatedOrder, digits: int) -> str:
    """The limit, else the working stop, else nothing."""
    price = order.spec.limit_price if order.spec.limit_price is not None else order.stop_price
    return "" if price is None else exact(price, digits)


def _chart_description(order: EmulatedOrder, digits: int) -> str:
    if not order.filled:
        return ""
    word = "Bought" if order.spec.side is Side.BUY else "Sold"
    return f"{word} {text.plain(order.filled)} @ {exact(order.average_price, digits)}"


def _ccp_word(order: EmulatedOrder, status: OrderStatus) -> str:
    if status is OrderStatus.PRE_SUBMITTED and order.parent_id:
        return "Submitted"
    return _CCP_WORDS.get(status, status.value)


def _instrument(core: Core, conid: int) -> Instrument:
    found = core.instrument(conid)
    if found is None:
        raise LookupError(f"An order stands for conid {conid}, which the universe does not hold.")
    return found
