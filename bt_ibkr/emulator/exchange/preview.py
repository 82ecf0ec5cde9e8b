"""What an order would change, were it to fill at once."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from bt_ibkr.emulator.accounts.account import Account
from bt_ibkr.emulator.accounts.margin import Intended, Margin, MarginFigures
from bt_ibkr.emulator.types import OrderSpec

ZERO = Decimal(0)


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """What an order would change, were it to fill at once.

    ``error`` is the refusal that placing it would meet; without figures if the order's form is wrong.
    """

    error: str | None
    price: Decimal | None = None
    value: Decimal | None = None
    commission: Decimal | None = None
    before: MarginFigures | None = None
    after: MarginFigures | None = None
    position_before: Decimal | None = None
    position_after: Decimal | None = None


def preview(
    spec: OrderSpec,
    intended: Intended,
    held: Sequence[tuple[Account, Decimal]],
    margin: Margin,
    *,
    multiplier: Decimal,
    error: str | None,
) -> WhatIf:
    """The figures of all accounts that the order is for, together.

    Args:
        spec: The order.
        intended: The order as margin sees it.
        held: Accounts with their weights; of an ordinary order the one that it is for.
        margin: What positions require.
        multiplier: Of the instrument.
        error: The refusal that placing the order would meet.
    """
    total = sum((weight for _, weight in held), ZERO)
    before = after = MarginFigures(equity=ZERO, initial=ZERO, maintenance=ZERO)
    position = ZERO
    for account, weight in held:
        own = msgspec.structs.replace(intended, quantity=intended.quantity * weight / total)
        position += account.quantity(spec.conid)
        before = before.plus(margin.figures(account))
        after = after.plus(margin.figures(account, [own]))
    return WhatIf(
        error=error,
        price=intended.price,
        value=None if intended.price is None else intended.price * spec.quantity * multiplier,
        commission=intended.commission,
        before=before,
        after=after,
        position_before=position,
        position_after=position + spec.side.sign * spec.quantity,
    )
