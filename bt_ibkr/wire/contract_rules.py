"""Trading rules of a contract: ``contract/rules`` and the ``rules`` of ``info-and-rules``."""

from __future__ import annotations

import msgspec

from bt_ibkr.wire import fields
from bt_ibkr.wire.json import parsed


class ContractRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a contract may be traded.

    Attributes:
        order_types: IBKR's words of the order form (``limit``, ``stop_limit`` …).
        time_in_force_types: As ``DAY/o,a``: after the slash, letters of what goes with it.
        default_size: The quantity an order form begins with; no rule.
        size_increment: The step of an order form's quantity. It is no lot: 40 and 100 were recorded for
            stocks of which single shares trade.
        tick_size: Price step; ``increment_steps`` has the steps that depend on the price, as (from, step).
        limit_price: A price near the market.
        error: The server's reason for giving no rules.
    """

    order_types: tuple[str, ...] = ()
    time_in_force_types: tuple[str, ...] = ()
    default_size: float | None = None
    size_increment: float | None = None
    tick_size: float | None = None
    increment_digits: int | None = None
    increment_steps: tuple[tuple[float, float], ...] = ()
    cash_currency: str | None = None
    limit_price: float | None = None
    stop_price: float | None = None
    tradeable_accounts: tuple[str, ...] = ()
    force_preview: bool | None = None
    error: str | None = None


class _Rules(msgspec.Struct, rename="camel"):
    order_types: object = None
    tif_types: object = None
    default_size: object = None
    size_increment: object = None
    increment: object = None
    increment_digits: object = None
    increment_rules: object = None
    cash_ccy: object = None
    limit_price: object = None
    stopprice: object = None
    can_trade_acct_ids: object = None
    force_order_preview: object = None
    error: object = None


def contract_rules(body: object) -> ContractRules:
    """``/iserver/contract/rules``, or the rules inside an ``info-and-rules`` answer.

    Raises:
        WireError: Not an object.
    """
    value = parsed(body)
    inner = value.get("rules") if isinstance(value, dict) else None
    return rules_in(inner if isinstance(inner, dict) else value)


def rules_in(value: object) -> ContractRules:
    """Rules from the object that holds them; what cannot be understood is left out.

    Raises:
        WireError: Not an object.
    """
    row = fields.payload(value, _Rules, "contract rules")
    return ContractRules(
        order_types=fields.words(row.order_types),
        time_in_force_types=fields.words(row.tif_types),
        default_size=fields.lenient(fields.amount, row.default_size, "defaultSize"),
        size_increment=_positive(row.size_increment, "sizeIncrement"),
        tick_size=_positive(row.increment, "increment"),
        increment_digits=fields.lenient(fields.integer, row.increment_digits, "incrementDigits"),
        increment_steps=increment_steps(row.increment_rules),
        cash_currency=fields.text(row.cash_ccy),
        limit_price=fields.lenient(fields.amount, row.limit_price, "limitPrice"),
        stop_price=fields.lenient(fields.amount, row.stopprice, "stopprice"),
        tradeable_accounts=fields.words(row.can_trade_acct_ids),
        force_preview=fields.lenient(fields.flag, row.force_order_preview, "forceOrderPreview"),
        error=fields.text(row.error),
    )


def increment_steps(value: object) -> tuple[tuple[float, float], ...]:
    """Price steps as (from this price, step), lowest first: ``[{"lowerEdge": 0.0, "increment": 0.01}]``."""
    steps = []
    for item in fields.rows(value):
        row = item if isinstance(item, dict) else {}
        edge = fields.lenient(fields.amount, row.get("lowerEdge"), "lowerEdge")
        step = _positive(row.get("increment"), "increment")
        if step is not None:
            steps.append((edge or 0.0, step))
    return tuple(sorted(steps))


def _positive(value: object, what: str) -> float | None:
    number = fields.lenient(fields.amount, value, what)
    return number if number is not None and number > 0 else None
