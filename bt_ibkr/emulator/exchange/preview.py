"""What an order would change, were it to fill at once."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from bt_ibkr.emulator.accounts.margin import MarginFigures


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
