"""Options on the stocks and futures of the universe: which exist, and under which conids.

The conids are the emulator's own and say what they stand for (underlying, month, strike, right), so that they
mean the same in every run. Months end on their third Friday. Strikes stand on one grid: 0.5 apart up to 25,
1 up to 200, 5 up to 1000, 25 beyond.
"""

from __future__ import annotations

from datetime import date, timedelta

from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.contract import Contract, SecurityType

_BASE = 800_000_000
_PER_UNDERLYING = 2_000_000
_PER_MONTH = 2_000
_FIRST_YEAR = 2000
#: IBKR's conids are 32-bit numbers.
_END = 2**31
_GRID = (
    *(half / 2 for half in range(1, 50)),
    *(float(whole) for whole in range(25, 200)),
    *(float(five) for five in range(200, 1000, 5)),
    *(float(many) for many in range(1000, 10_001, 25)),
)
_INDEX = {strike: index for index, strike in enumerate(_GRID)}
_OPTION_ROUTES = ("SMART", "AMEX", "BATS", "BOX", "CBOE", "ISE", "NASDAQOM", "PHLX", "PSE")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
#: Months that are listed at a time, and how far from the price strikes go.
LISTED_MONTHS = 4
_REACH = 0.25


def third_friday(year: int, month: int) -> date:
    """The last day of options of that month."""
    first = date(year, month, 1)
    return first + timedelta(days=(4 - first.weekday()) % 7 + 14)


def month_word(day: date) -> str:
    """``MAR26``."""
    return f"{_MONTHS[day.month - 1]}{day.year % 100:02d}"


def month_of(word: str) -> tuple[int, int] | None:
    """Year and month of ``MAR26``; ``None`` of anything else."""
    name, digits = word[:3].upper(), word[3:]
    if name not in _MONTHS or len(digits) != 2 or not (digits.isascii() and digits.isdigit()):
        return None
    return _FIRST_YEAR + int(digits), _MONTHS.index(name) + 1


class Chains:
    """The options of all underlyings."""

    def __init__(self) -> None:
        self._underlyings: list[Instrument] = []
        self._places: dict[int, int] = {}
        self._made: dict[int, Instrument] = {}

    def add(self, instrument: Instrument) -> None:
        """Let an instrument have options, if its kind has: US stocks, and futures."""
        contract = instrument.contract
        stock = contract.security_type is SecurityType.STOCK and instrument.is_us
        if (stock or contract.security_type is SecurityType.FUTURE) and contract.conid not in self._places:
            self._places[contract.conid] = len(self._underlyings)
            self._underlyings.append(instrument)

    def security_type(self, underlying: Instrument) -> SecurityType | None:
        """What options on it are called; ``None`` if it has none."""
        if underlying.contract.conid not in self._places:
            return None
        is_future = underlying.contract.security_type is SecurityType.FUTURE
        return SecurityType.FUTURE_OPTION if is_future else SecurityType.OPTION

    def expiries(self, underlying: Instrument, today: date) -> list[date]:
        """Last days of the months that are listed on a day, the nearest first."""
        if underlying.contract.conid not in self._places:
            return []
        last = underlying.contract.last_trade_date or "99991231"
        found: list[date] = []
        year, month = today.year, today.month
        while len(found) < LISTED_MONTHS:
            day = third_friday(year, month)
            if day.strftime("%Y%m%d") > last:
                break
            if day >= today:
                found.append(day)
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return found

    @staticmethod
    def strikes(price: float) -> list[float]:
        """The strikes listed around a price."""
        return [strike for strike in _GRID if abs(strike - price) <= _REACH * price]

    def option(self, underlying: Instrument, expiry: date, strike: float, right: str) -> Instrument | None:
        """One option; ``None`` if there is no such strike, right or underlying."""
        place, index = self._places.get(underlying.contract.conid), _INDEX.get(strike)
        if place is None or index is None or right not in ("C", "P"):
            return None
        month = (expiry.year - _FIRST_YEAR) * 12 + expiry.month - 1
        conid = _BASE + place * _PER_UNDERLYING + month * _PER_MONTH + index * 2 + (right == "P")
        return self.by_conid(conid)

    def by_conid(self, conid: int) -> Instrument | None:
        """The option of that conid; ``None`` if it is none."""
        found = self._made.get(conid)
        if found is None and _BASE <= conid < _END:
            place, rest = divmod(conid - _BASE, _PER_UNDERLYING)
            month, rest = divmod(rest, _PER_MONTH)
            index, put = divmod(rest, 2)
            if place < len(self._underlyings) and index < len(_GRID):
                year, number = divmod(month, 12)
                expiry = third_friday(_FIRST_YEAR + year, number + 1)
                found = self._made[conid] = _option(
                    conid, self._underlyings[place], expiry, _GRID[index], "P" if put else "C"
                )
        return found


def _option(conid: int, underlying: Instrument, expiry: date, strike: float, right: str) -> Instrument:
    contract = underlying.contract
    on_future = contract.security_type is SecurityType.FUTURE
    exchange = contract.exchange if on_future else "SMART"
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=contract.symbol,
            security_type=SecurityType.FUTURE_OPTION if on_future else SecurityType.OPTION,
            exchange=exchange,
            currency=contract.currency,
            company_name=contract.company_name,
            multiplier=contract.multiplier if on_future else 100.0,
            tick_size=0.05 if contract.tick_size >= 0.25 else 0.01,
            last_trade_date=expiry.strftime("%Y%m%d"),
            strike=strike,
            right=right,
        ),
        valid_exchanges=(exchange,) if on_future else _OPTION_ROUTES,
        company_name=underlying.company_name,
        is_us=underlying.is_us,
        annual_volatility=underlying.annual_volatility,
        quote_only=True,
        session_open=underlying.session_open,
        session_close=underlying.session_close,
        time_zone=underlying.time_zone,
        underlying_conid=contract.conid,
    )
