"""Whether the market is one to trade on now: its data, its hours."""

from __future__ import annotations

from typing import Final

from bt_ibkr.model.market import DataQuality
from bt_ibkr.risk.controls import Control
from bt_ibkr.risk.limits import RiskLimits, Scope
from bt_ibkr.risk.submission import Case, plain
from bt_ibkr.risk.view import decimal

_DELAYED: Final = frozenset({DataQuality.DELAYED, DataQuality.FROZEN_DELAYED})
_FROZEN: Final = frozenset({DataQuality.FROZEN, DataQuality.FROZEN_DELAYED})
#: What IBKR says where it gives no data.
_NONE: Final = frozenset(DataQuality) - _DELAYED - _FROZEN - {q for q in DataQuality if q.live}


class MarketData(Control):
    """Instruments whose market data is missing, delayed, frozen, halted or old.

    While the exchange is closed for the order, its data is frozen and old by nature: neither is looked at then.
    """

    name = "market_data"
    fields = ("allow_no_data", "allow_delayed_data", "allow_frozen_data", "allow_halted", "max_quote_age_s")

    def active(self, limits: RiskLimits) -> bool:
        return limits.max_quote_age_s is not None or not all(getattr(limits, f) for f in self.fields[:-1])

    def check(self, case: Case, scope: Scope) -> None:
        limits, quote = scope.limits, case.quote
        if quote is None:
            if not limits.allow_no_data:
                self._bad(case, scope, "allow_no_data", "none", "there is no market data of")
            return
        quality = quote.quality
        code = f"(code {quality.value})"
        if quality in _NONE and not limits.allow_no_data:
            self._bad(case, scope, "allow_no_data", quality.value, f"IBKR gives no market data {code} of")
        if quality in _DELAYED and not limits.allow_delayed_data:
            self._bad(
                case, scope, "allow_delayed_data", quality.value, f"delayed {code} is the market data of"
            )
        if quote.halted and not limits.allow_halted:
            self._bad(case, scope, "allow_halted", "halted", "halted is trading in")
        if case.waits:
            return
        if quality in _FROZEN and not limits.allow_frozen_data:
            self._bad(case, scope, "allow_frozen_data", quality.value, f"frozen {code} is the market data of")
        oldest, age = limits.max_quote_age_s, decimal(quote.age_s)
        if oldest is not None and age > oldest:
            self.refuse(
                case,
                scope,
                "max_quote_age_s",
                value=age,
                why=f"the quote of {case.symbol} is {age:.1f} s old, more than max_quote_age_s {plain(oldest)}",
                remedy="Wait for the next quote",
            )

    def _bad(self, case: Case, scope: Scope, field: str, value: str, why: str) -> None:
        self.refuse(
            case,
            scope,
            field,
            value=value,
            limit=f"{field} = false",
            why=f"{why} {case.symbol}",
            remedy="Wait for market data" if field == "allow_no_data" else "Wait for live market data",
            change=f"set {scope.place(field)} to true",
        )


class TradingHours(Control):
    """Orders outside the trading hours of their exchange, or where those are not known."""

    name = "trading_hours"
    fields = ("only_when_open",)

    def check(self, case: Case, scope: Scope) -> None:
        if not scope.limits.only_when_open:
            return
        rules = case.rules
        regular = None if rules is None else rules.open
        extended = rules.open_extended if rules is not None and case.extended else False
        if regular or extended:
            return
        known = regular is False and extended is False
        self.refuse(
            case,
            scope,
            "only_when_open",
            value="closed" if known else "not known",
            limit="open",
            why=f"the exchange of {case.symbol} is closed for it"
            if known
            else f"the trading hours of {case.symbol} are not known",
            remedy="Wait for the opening" if known else "Wait until the hours are read",
            change=f"set {scope.place('only_when_open')} to false",
        )
