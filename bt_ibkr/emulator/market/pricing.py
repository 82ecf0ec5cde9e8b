"""What an option is worth by Black's model, without interest and dividends.

The volatility is the underlying's yearly one, the same for all strikes and months. Interest is left out, so
that the price of a future and the price of a stock stand in the same place of the formula.
"""

from __future__ import annotations

import math

_YEAR_NS = 365 * 86_400 * 10**9


def years(from_ns: int, until_ns: int) -> float:
    """The time between two moments in years; 0 if the second has passed."""
    return max(until_ns - from_ns, 0) / _YEAR_NS


def intrinsic(price: float, strike: float, *, call: bool) -> float:
    """What exercising it at once would bring."""
    return max(price - strike if call else strike - price, 0.0)


def value(price: float, strike: float, left_years: float, volatility: float, *, call: bool) -> float:
    """Value of the option per unit of its underlying, never below what exercising it would bring."""
    spread = volatility * math.sqrt(left_years)
    if spread <= 0 or price <= 0:
        return intrinsic(price, strike, call=call)
    middle = math.log(price / strike) / spread
    above, below = middle + spread / 2, middle - spread / 2
    worth = price * _normal(above) - strike * _normal(below)
    return max(worth if call else worth - price + strike, intrinsic(price, strike, call=call))


def likelihood(price: float, strike: float, left_years: float, volatility: float) -> float:
    """How likely the price is to end above the strike, by the same model."""
    spread = volatility * math.sqrt(left_years)
    if spread <= 0 or price <= 0:
        return float(price > strike)
    return _normal(math.log(price / strike) / spread - spread / 2)


def _normal(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2
