"""Options on the stocks, indices and futures of the universe: which exist, and under which conids.

The conids are the emulator's own and say what they stand for (underlying, month, strike, right), so that they
mean the same in every run. Months end on their third Friday, or the trading day before. Strikes stand on one grid:
0.5 apart up to 25, 1 up to 200, 5 up to 1000, 25 up to 10,000, 100 beyond; of products with small or large prices
on a multiple of it. An option on a product of futures is on the first contract that trades until the option ends.
"""

from __future__ import annotations

from datetime import date, timedelta

from bt_ibkr.emulator.market.sessions import calendar_of, has_regular_hours
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe_futures import Futures, Product
from bt_ibkr.model.contract import Contract, SecurityType

_BASE = 800_000_000
_PER_UNDERLYING = 2_000_000
_PER_MONTH = 2_000
_FIRST_YEAR = 2000
#: IBKR's conids are 32-bit numbers.
_END = 2**31
#: Products of futures have the last places, the first product the very last.
_LAST_PLACE = (_END - _BASE) // _PER_UNDERLYING - 1
_INDEX_OPTIONS = frozenset({"CBOE", "NASDAQ", "RUSSELL"})
_GRID = (
    *(half / 2 for half in range(1, 50)),
    *(float(whole) for whole in range(25, 200)),
    *(float(five) for five in range(200, 1000, 5)),
    *(float(many) for many in range(1000, 10_001, 25)),
    *(float(many) for many in range(10_100, 35_001, 100)),
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


def _last_day(underlying: Instrument, year: int, month: int) -> date:
    """The month's third Friday, or the trading day before a holiday."""
    day = third_friday(year, month)
    while not has_regular_hours(underlying, day):
        day -= timedelta(days=1)
    return day


class Chains:
    """The options of all underlyings.

    Args:
        futures: The products of futures; options are found by their indices, too.
    """

    def __init__(self, futures: Futures | None = None) -> None:
        self._futures = futures or Futures(())
        self._underlyings: list[Instrument] = []
        self._places: dict[int, int] = {}
        self._made: dict[int, Instrument] = {}

    def add(self, instrument: Instrument) -> None:
        """Let an instrument have options, if its kind has: US stocks, indices of US exchanges, and futures."""
        contract = instrument.contract
        match contract.security_type:
            case SecurityType.STOCK:
                has = instrument.is_us
            case SecurityType.INDEX:
                has = contract.listing_exchange in _INDEX_OPTIONS
            case kind:
                has = kind is SecurityType.FUTURE
        if has and contract.conid not in self._places:
            self._places[contract.conid] = len(self._underlyings)
            self._underlyings.append(instrument)

    def _product(self, underlying: Instrument) -> Product | None:
        """The product that an instrument belongs to, unless it has options of its own."""
        if underlying.contract.conid in self._places:
            return None
        product = self._futures.product_of(underlying.contract.conid)
        return product if product is not None and product.has_options else None

    def security_type(self, underlying: Instrument) -> SecurityType | None:
        """What options on it are called; ``None`` if it has none."""
        if self._product(underlying) is not None:
            return SecurityType.FUTURE_OPTION
        if underlying.contract.conid not in self._places:
            return None
        is_future = underlying.contract.security_type is SecurityType.FUTURE
        return SecurityType.FUTURE_OPTION if is_future else SecurityType.OPTION

    def expiries(self, underlying: Instrument, today: date) -> list[date]:
        """Last days of the months that are listed on a day, the nearest first."""
        if self.security_type(underlying) is None:
            return []
        product, conid = self._product(underlying), underlying.contract.conid
        last = underlying.contract.last_trade_date or "99991231"
        found: list[date] = []
        year, month = today.year, today.month
        while len(found) < LISTED_MONTHS:
            day = _last_day(underlying, year, month)
            if day.strftime("%Y%m%d") > last:
                break
            if day >= today and (product is None or self._is_on(product, conid, day)):
                found.append(day)
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return found

    def _is_on(self, product: Product, conid: int, day: date) -> bool:
        """Whether options of a product that end on a day are on the contract, or it is the product's index."""
        if conid == product.index:
            return True
        delivered = self._futures.delivering(product, day)
        return delivered is not None and delivered.contract.conid == conid

    def strikes(self, price: float, scale: float = 1.0) -> list[float]:
        """The strikes listed around a price, of a grid ``scale`` times as wide as that of stocks."""
        listed = (round(strike * scale, 10) for strike in _GRID)
        return [strike for strike in listed if abs(strike - price) <= _REACH * price]

    def strikes_of(self, underlying: Instrument, price: float) -> list[float]:
        """The strikes of an underlying at its price."""
        product = self._futures.product_of(underlying.contract.conid)
        return self.strikes(price, 1.0 if product is None else product.strike_scale)

    def option(self, underlying: Instrument, expiry: date, strike: float, right: str) -> Instrument | None:
        """One option; ``None`` if there is no such strike, right or underlying."""
        product = self._product(underlying)
        if product is not None:
            return self._of_product(product, expiry, strike, right)
        place, index = self._places.get(underlying.contract.conid), _INDEX.get(strike)
        owner = self._futures.product_of(underlying.contract.conid)
        if owner is not None:
            index = _INDEX.get(round(strike / owner.strike_scale, 6))
        if place is None or index is None or right not in ("C", "P"):
            return None
        return self.by_conid(_conid(place, expiry, index, right))

    def _of_product(self, product: Product, expiry: date, strike: float, right: str) -> Instrument | None:
        on = self._futures.delivering(product, expiry)
        index = _INDEX.get(round(strike / product.strike_scale, 6))
        if on is None or index is None or right not in ("C", "P"):
            return None
        if on.contract.conid in self._places:
            return self.option(on, expiry, strike, right)
        place = _LAST_PLACE - self._futures.products.index(product)
        return self.by_conid(_conid(place, expiry, index, right))

    def by_conid(self, conid: int) -> Instrument | None:
        """The option of that conid; ``None`` if it is none."""
        found = self._made.get(conid)
        if found is None and _BASE <= conid < _END:
            place, rest = divmod(conid - _BASE, _PER_UNDERLYING)
            month, rest = divmod(rest, _PER_MONTH)
            index, put = divmod(rest, 2)
            year, number = divmod(month, 12)
            underlying = self._at(place, _FIRST_YEAR + year, number + 1)
            if underlying is not None and index < len(_GRID):
                owner = self._futures.product_of(underlying.contract.conid)
                strike = round(_GRID[index] * (1.0 if owner is None else owner.strike_scale), 10)
                expiry = _last_day(underlying, _FIRST_YEAR + year, number + 1)
                found = self._made[conid] = _option(conid, underlying, expiry, strike, "P" if put else "C")
        return found

    def _at(self, place: int, year: int, month: int) -> Instrument | None:
        """The underlying at a place; of a product's the contract that delivers on options of a month."""
        if place < len(self._underlyings):
            return self._underlyings[place]
        if 0 <= _LAST_PLACE - place < len(self._futures.products):
            product = self._futures.products[_LAST_PLACE - place]
            index = self._futures.by_conid(product.index)
            return index and self._futures.delivering(product, _last_day(index, year, month))
        return None


def _conid(place: int, expiry: date, index: int, right: str) -> int:
    month = (expiry.year - _FIRST_YEAR) * 12 + expiry.month - 1
    return _BASE + place * _PER_UNDERLYING + month * _PER_MONTH + index * 2 + (right == "P")


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
            tick_size=0.05 if contract.tick_size >= 0.25 else min(0.01, contract.tick_size),
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
        extended_open=underlying.extended_open if on_future else "",
        extended_close=underlying.extended_close if on_future else "",
        calendar=calendar_of(underlying),
        time_zone=underlying.time_zone,
        underlying_conid=contract.conid,
    )
