"""What an order would change, without placing it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services import format as text
from bt_ibkr.emulator.services.call import Call
from bt_ibkr.emulator.services.orders import groups, questions, tickets
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.contract import SecurityType

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_ZERO = Decimal(0)


async def whatif(core: Core, call: Call) -> object:
    """The first order of the body as it would change equity, margins and position.

    An order that would be refused has ``error`` and no figures, with status 200, as recorded.
    """
    account = groups.account_or_group(core, call.path["account"])
    listed = call.object().get("orders")
    if not isinstance(listed, list) or not listed:
        raise errors.bad_request("orders is required")
    spec = tickets.parse(core, account, listed[0])
    found = core.engine.what_if(spec)
    asked = questions.for_orders(core, (spec,))
    warnings = [f"21/{one.message}" for one in asked]
    instrument = core.instrument(spec.conid)
    currency = instrument.contract.currency if instrument is not None else core.settings.currency
    unit = _unit(instrument)
    before, after = found.before, found.after
    if found.error is not None or before is None or after is None:
        return {
            "amount": _amount(spec.quantity, unit, found.value, found.commission, currency),
            "equity": None,
            "initial": None,
            "maintenance": None,
            "position": None,
            "warn": f"23/{found.error}",
            "error": found.error,
        }
    commission = found.commission or _ZERO
    return {
        "amount": _amount(spec.quantity, unit, found.value, commission, currency),
        "equity": _change(before.equity, before.equity - commission),
        "initial": _change(before.initial, after.initial),
        "maintenance": _change(before.maintenance, after.maintenance),
        "position": _position(found.position_before or _ZERO, found.position_after or _ZERO),
        "warn": warnings[0] if warnings else None,
        "error": None,
    }


def _unit(instrument: Instrument | None) -> str:
    """What is counted; ``Shares`` is recorded, the rest of the words are the emulator's own."""
    kind = SecurityType.STOCK if instrument is None else instrument.contract.security_type
    if kind in (SecurityType.STOCK, SecurityType.FUND):
        return "Shares"
    if instrument is not None and kind is SecurityType.FOREX:
        return instrument.contract.symbol.partition(".")[0]
    return "Combos" if kind is SecurityType.COMBO else "Contracts"


def _amount(
    quantity: Decimal, unit: str, value: Decimal | None, commission: Decimal | None, currency: str
) -> dict[str, str]:
    worth, cost = value or _ZERO, commission or _ZERO
    return {
        "amount": f"{worth:,.2f} {currency} ({text.plain(quantity)} {unit})",
        "commission": f"{cost.normalize() + 0:f} {currency}",
        "total": f"{worth + cost:,.2f} {currency}",
    }


def _change(before: Decimal, after: Decimal) -> dict[str, str]:
    return {
        "current": text.money(float(before)),
        "change": text.money(float(after - before)),
        "after": text.money(float(after)),
    }


def _position(before: Decimal, after: Decimal) -> dict[str, str]:
    return {
        "current": text.plain(before),
        "change": text.plain(after - before),
        "after": text.plain(after),
    }
