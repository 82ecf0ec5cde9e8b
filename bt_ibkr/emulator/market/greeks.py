"""How an option's value moves, by Black's model as in ``pricing``: without interest and dividends."""

from __future__ import annotations

import math

import msgspec

from bt_ibkr.emulator.market.pricing import intrinsic


class Greeks(msgspec.Struct, frozen=True, gc=False):
    """Per unit of the underlying.

    Attributes:
        delta: Value for one point of the underlying.
        gamma: Delta for one point of the underlying.
        theta: Value for one day; below 0.
        vega: Value for one per cent of volatility.
    """

    delta: float
    gamma: float
    theta: float
    vega: float


def greeks(price: float, strike: float, left_years: float, volatility: float, *, call: bool) -> Greeks:
    """Of one option; at its end it is worth what exercising brings, or nothing."""
    root = math.sqrt(left_years)
    spread = volatility * root
    if spread <= 0 or price <= 0:
        pays = 1.0 if intrinsic(price, strike, call=call) > 0 else 0.0
        return Greeks(pays if call else -pays, 0.0, 0.0, 0.0)
    above = math.log(price / strike) / spread + spread / 2
    density = math.exp(-above * above / 2) / math.sqrt(2 * math.pi)
    chance = (1 + math.erf(above / math.sqrt(2))) / 2
    return Greeks(
        delta=chance if call else chance - 1,
        gamma=density / (price * spread),
        theta=-price * density * volatility / (2 * root) / 365,
        vega=price * density * root / 100,
    )
