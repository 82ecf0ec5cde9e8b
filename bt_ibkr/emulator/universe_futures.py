"""Futures by rule: which months of a product are listed on a day, when each ends, and under which conid.

A product's contracts are made when they are asked for, so that no market, whatever its date, is without a front
month. Their conids are the emulator's own and mean the same in every run; those that are known from IBKR stand in
``_KNOWN``. The indices that hold a product together (IBKR's ``underlyingConid``) have no market; of ``ES`` and
``NQ`` their conids are IBKR's. Last trading days follow the exchanges' rule books, by the emulator's own holidays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import Literal

import msgspec

from bt_ibkr.emulator.market import holidays
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.contract import Contract, SecurityType

_BASE = 600_000_000
_PER_PRODUCT = 2_000
_FIRST_YEAR = 2000
_MONTHS_IN_ALL = 1_000
LETTERS = "FGHJKMNQUVXZ"
_QUARTERS = (3, 6, 9, 12)
_ALL = tuple(range(1, 13))
_FRIDAY, _WEDNESDAY, _SATURDAY = 4, 2, 5
_DAY = timedelta(days=1)
_CHICAGO, _NEW_YORK, _BERLIN = "America/Chicago", "America/New_York", "Europe/Berlin"

Rule = Literal[
    "third_friday", "third_last", "crude", "gas", "note", "month_end", "currency", "last_friday", "vix"
]


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A future of which there are many contracts.

    Attributes:
        index: IBKR's ``underlyingConid``.
        months: Calendar months of which there are contracts.
        listed: How many of them are listed at a time.
        rule: When a contract ends.
        strike_scale: Distance of option strikes relative to those of stocks.
        event_class: Trading class of event contracts on it; empty for none.
        has_options: Whether there are options on its contracts.
    """

    symbol: str
    name: str
    exchange: str
    index: int
    price: float
    tick: float
    multiplier: float
    rule: Rule
    months: tuple[int, ...] = _QUARTERS
    listed: int = 8
    currency: str = "USD"
    volatility: float = 0.18
    volume: float = 300_000.0
    hours: tuple[str, str, str, str] = ("08:30", "16:00", "17:00", "16:00")
    time_zone: str = _CHICAGO
    strike_scale: float = 1.0
    event_class: str = ""
    has_options: bool = True


_CURRENCY_HOURS = ("07:20", "16:00", "17:00", "16:00")
_ENERGY_HOURS = ("09:30", "17:00", "18:00", "17:00")
_EUREX_HOURS = ("09:00", "17:30", "01:10", "22:00")


def _equity(
    symbol: str, name: str, index: int, price: float, tick: float, size: float, **more: object
) -> Product:
    exchange = str(more.pop("exchange", "CME"))
    return Product(
        symbol=symbol, name=name, exchange=exchange, index=index, price=price, tick=tick, multiplier=size,
        rule="third_friday", **more,  # type: ignore[arg-type]
    )  # fmt: skip


def _metal(
    symbol: str, name: str, index: int, price: float, tick: float, size: float, months: tuple[int, ...]
) -> Product:
    return Product(
        symbol=symbol, name=name, exchange="COMEX", index=index, price=price, tick=tick, multiplier=size,
        rule="third_last", months=months, hours=_ENERGY_HOURS, time_zone=_NEW_YORK,
    )  # fmt: skip


def _note(symbol: str, name: str, index: int, price: float, tick: float, size: float, rule: Rule) -> Product:
    return Product(
        symbol=symbol, name=name, exchange="CBOT", index=index, price=price, tick=tick, multiplier=size,
        rule=rule, listed=3, volatility=0.06,
    )  # fmt: skip


def _currency(symbol: str, name: str, index: int, price: float, tick: float, size: float) -> Product:
    return Product(
        symbol=symbol, name=name, exchange="CME", index=index, price=price, tick=tick, multiplier=size,
        rule="currency", hours=_CURRENCY_HOURS, volatility=0.08, strike_scale=0.0001 if price < 0.1 else 0.01,
    )  # fmt: skip


#: New ones go to the end: conids follow from the place.
PRODUCTS = (
    _equity("ES", "E-mini S&P 500", 11004968, 6700.0, 0.25, 50.0, volume=1.5e6, event_class="ECES"),
    _equity("NQ", "E-mini NASDAQ 100", 11004958, 25000.0, 0.25, 20.0, volume=600e3, event_class="ECNQ"),
    _equity("RTY", "E-Mini Russell 2000 Index", 11005002, 2500.0, 0.1, 50.0),
    _equity("YM", "Mini Sized Dow Jones Industrial Average $5", 11005003, 47000.0, 1.0, 5.0, exchange="CBOT"),
    _equity("MES", "Micro E-Mini S&P 500 Stock Price Index", 11005004, 6700.0, 0.25, 5.0, volume=1e6),
    _equity("MNQ", "Micro E-Mini Nasdaq-100 Index", 11005005, 25000.0, 0.25, 2.0, volume=1e6),
    Product(
        symbol="CL", name="Light Sweet Crude Oil", exchange="NYMEX", index=11005006, price=70.0, tick=0.01,
        multiplier=1000.0, rule="crude", months=_ALL, listed=24, volatility=0.35, hours=_ENERGY_HOURS,
        time_zone=_NEW_YORK,
    ),
    Product(
        symbol="NG", name="Henry Hub Natural Gas", exchange="NYMEX", index=11005007, price=3.5, tick=0.001,
        multiplier=10_000.0, rule="gas", months=_ALL, listed=24, volatility=0.6, hours=_ENERGY_HOURS,
        time_zone=_NEW_YORK, strike_scale=0.1,
    ),
    _metal("GC", "Gold", 11005008, 4000.0, 0.1, 100.0, (2, 4, 6, 8, 10, 12)),
    _metal("SI", "Silver", 11005009, 50.0, 0.005, 5000.0, (3, 5, 7, 9, 12)),
    _metal("HG", "Copper", 11005010, 5.0, 0.0005, 25_000.0, (3, 5, 7, 9, 12)),
    _note("ZN", "10 Year US Treasury Note", 11005011, 112.0, 0.015625, 1000.0, "note"),
    _note("ZB", "30 Year US Treasury Bond", 11005012, 117.0, 0.03125, 1000.0, "note"),
    _note("ZF", "5 Year US Treasury Note", 11005013, 109.0, 0.0078125, 1000.0, "month_end"),
    _note("ZT", "2 Year US Treasury Note", 11005014, 104.0, 0.00390625, 2000.0, "month_end"),
    _currency("EUR", "European Monetary Union Euro", 11005015, 1.15, 0.00005, 125_000.0),
    _currency("GBP", "British pound", 11005016, 1.33, 0.0001, 62_500.0),
    _currency("JPY", "Japanese yen", 11005017, 0.0067, 0.0000005, 12_500_000.0),
    Product(
        symbol="MBT", name="Micro Bitcoin", exchange="CME", index=11005018, price=90_000.0, tick=5.0, multiplier=0.1,
        rule="last_friday", months=_ALL, listed=6, volatility=0.5, volume=50_000.0, strike_scale=10.0,
    ),
    Product(
        symbol="VIX", name="CBOE Volatility Index", exchange="CFE", index=13455763, price=18.0, tick=0.05,
        multiplier=1000.0, rule="vix", months=_ALL, listed=9, volatility=0.9,
        hours=("08:30", "15:00", "17:00", "16:00"),
        has_options=False,
    ),
    _equity(
        "DAX", "DAX Index", 11005020, 24_000.0, 1.0, 25.0, exchange="EUREX", currency="EUR", listed=3,
        hours=_EUREX_HOURS, time_zone=_BERLIN, volume=40_000.0,
    ),
    _equity(
        "ESTX50", "Dow Jones Euro STOXX50", 11005021, 5600.0, 1.0, 10.0, exchange="EUREX", currency="EUR", listed=3,
        hours=_EUREX_HOURS, time_zone=_BERLIN, volume=900_000.0,
    ),
)  # fmt: skip
#: IBKR's own conids, where they are known.
_KNOWN = {
    ("ES", 2024, 12): 495512557,
    ("ES", 2025, 12): 495512563,
    ("CL", 2026, 11): 304037511,
}
#: Trading classes that are not called as the symbol.
_CLASSES = {"EUR": "6E", "GBP": "6B", "JPY": "6J", "VIX": "VX", "DAX": "FDAX", "ESTX50": "FESX"}


class _Days:
    """Business days of an exchange: those with regular hours."""

    def __init__(self, exchange: str) -> None:
        self._calendar = holidays.of_exchange(exchange) or "weekdays"

    def is_one(self, day: date) -> bool:
        short = holidays.short_day(self._calendar, day)
        return holidays.trades_on(self._calendar, day) and (short is None or short.regular)

    def before(self, day: date, count: int) -> date:
        """The ``count``-th business day before a day."""
        while count:
            day -= _DAY
            count -= self.is_one(day)
        return day

    def at_or_before(self, day: date) -> date:
        return day if self.is_one(day) else self.before(day, 1)


def _next_month(year: int, month: int) -> tuple[int, int]:
    return (year, month + 1) if month < 12 else (year + 1, 1)


def _crude(days: _Days, year: int, month: int) -> date:
    """Three business days before the 25th of the month before; before the business day before it, if it is none."""
    before = date(year, month, 1) - _DAY
    return days.before(days.at_or_before(before.replace(day=25)), 3)


def _note_end(days: _Days, year: int, month: int) -> date:
    """The seventh business day before the last one of the month."""
    return days.before(_month_end(days, year, month), 7)


def _month_end(days: _Days, year: int, month: int) -> date:
    return days.before(date(*_next_month(year, month), 1), 1)


def _vix(days: _Days, year: int, month: int) -> date:
    """The Wednesday thirty days before the third Friday of the month after."""
    return days.at_or_before(holidays.nth(*_next_month(year, month), _FRIDAY, 3) - timedelta(days=30))


_RULES: dict[Rule, Callable[[_Days, int, int], date]] = {
    "third_friday": lambda days, year, month: days.at_or_before(holidays.nth(year, month, _FRIDAY, 3)),
    "third_last": lambda days, year, month: days.before(date(*_next_month(year, month), 1), 3),
    "crude": _crude,
    "gas": lambda days, year, month: days.before(date(year, month, 1), 3),
    "note": _note_end,
    "month_end": _month_end,
    "currency": lambda days, year, month: days.before(holidays.nth(year, month, _WEDNESDAY, 3), 2),
    "last_friday": lambda days, year, month: days.at_or_before(holidays.nth(year, month, _FRIDAY, -1)),
    "vix": _vix,
}


def last_trade_day(product: Product, year: int, month: int) -> date:
    """The last day on which the contract of a month trades."""
    return _RULES[product.rule](_Days(product.exchange), year, month)


class Futures:
    """The contracts of all products.

    Args:
        products: Each symbol once.
    """

    def __init__(self, products: Iterable[Product] = PRODUCTS) -> None:
        self.products = tuple(products)
        self._by_symbol = {one.symbol: one for one in self.products}
        self._by_index = {one.index: one for one in self.products}
        self._made: dict[int, Instrument] = {}
        self._by_known = {conid: key for key, conid in _KNOWN.items() if key[0] in self._by_symbol}

    def product(self, symbol: str) -> Product | None:
        """The product of a symbol, whatever the case it is written in."""
        return self._by_symbol.get(symbol.upper())

    def product_of(self, conid: int) -> Product | None:
        """The product of which a conid is a contract or the index."""
        product = self._by_index.get(conid)
        if product is None and (key := self._key(conid)) is not None:
            product = self._by_symbol[key[0]]
        return product

    def _key(self, conid: int) -> tuple[str, int, int] | None:
        if conid in self._by_known:
            return self._by_known[conid]
        place, rest = divmod(conid - _BASE, _PER_PRODUCT)
        if not (0 <= place < len(self.products) and rest < _MONTHS_IN_ALL):
            return None
        year, month = divmod(rest, 12)
        product = self.products[place]
        return (product.symbol, _FIRST_YEAR + year, month + 1) if month + 1 in product.months else None

    def by_conid(self, conid: int) -> Instrument | None:
        """The contract, or the index of a product, of that conid."""
        found = self._made.get(conid)
        if found is None:
            product, key = self._by_index.get(conid), self._key(conid)
            if product is not None:
                found = self._made[conid] = _index(product)
            elif key is not None:
                found = self._made[conid] = _contract(self._by_symbol[key[0]], conid, key[1], key[2])
        return found

    def contract(self, product: Product, year: int, month: int) -> Instrument | None:
        """The contract of a month; ``None`` if there is none of it."""
        conid = _KNOWN.get((product.symbol, year, month))
        if conid is None:
            number = (year - _FIRST_YEAR) * 12 + month - 1
            if not 0 <= number < _MONTHS_IN_ALL:
                return None
            conid = _BASE + self.products.index(product) * _PER_PRODUCT + number
        return self.by_conid(conid) if month in product.months else None

    def listed(self, product: Product, today: date) -> list[Instrument]:
        """The contracts that are listed on a day, the front month first."""
        found: list[Instrument] = []
        year, month = today.year, today.month
        while len(found) < product.listed:
            one = self.contract(product, year, month)
            if one is not None and (one.contract.last_trade_date or "") >= today.strftime("%Y%m%d"):
                found.append(one)
            elif one is None and month in product.months:
                break
            year, month = _next_month(year, month)
        return found

    def delivering(self, product: Product, day: date) -> Instrument | None:
        """The contract that an option which ends on a day is on: the first that trades until then."""
        return next(iter(self.listed(product, day)), None)

    def known(self) -> list[Instrument]:
        """Those whose conids are IBKR's."""
        return [one for conid in self._by_known if (one := self.by_conid(conid)) is not None]


def index_of(one: Instrument) -> int:
    """IBKR's ``underlyingConid`` of a contract of one of ``PRODUCTS``; 0 for any other instrument."""
    contract = one.contract
    for product in PRODUCTS:
        if (product.symbol, product.exchange) == (contract.symbol, contract.exchange):
            return product.index
    return 0


def cut_off(product: Product, day: date) -> date:
    """``ltd`` of ``trsrv/futures``: of index futures, which settle at the open, the day before the last one."""
    return _Days(product.exchange).before(day, 1) if product.rule == "third_friday" else day


def _contract(product: Product, conid: int, year: int, month: int) -> Instrument:
    opens, closes, early, late = product.hours
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=product.symbol,
            security_type=SecurityType.FUTURE,
            exchange=product.exchange,
            listing_exchange=product.exchange,
            currency=product.currency,
            company_name=product.name,
            multiplier=product.multiplier,
            tick_size=product.tick,
            last_trade_date=last_trade_day(product, year, month).strftime("%Y%m%d"),
        ),
        valid_exchanges=(product.exchange,),
        company_name=product.name,
        is_us=product.currency == "USD",
        reference_price=product.price,
        annual_volatility=product.volatility,
        average_daily_volume=product.volume,
        session_open=opens,
        session_close=closes,
        extended_open=early,
        extended_close=late,
        time_zone=product.time_zone,
        trading_class=_CLASSES.get(product.symbol, ""),
        local_symbol=f"{_CLASSES.get(product.symbol, product.symbol)}{LETTERS[month - 1]}{year % 10}",
        contract_month=f"{year}{month:02d}",
    )


def _index(product: Product) -> Instrument:
    opens, closes, _, _ = product.hours
    return Instrument(
        contract=Contract(
            conid=product.index,
            symbol=product.symbol,
            security_type=SecurityType.INDEX,
            exchange=product.exchange,
            listing_exchange=product.exchange,
            currency=product.currency,
            company_name=product.name,
            tick_size=product.tick,
        ),
        valid_exchanges=(product.exchange,),
        company_name=product.name,
        is_us=product.currency == "USD",
        reference_price=product.price,
        annual_volatility=product.volatility,
        session_open=opens,
        session_close=closes,
        time_zone=product.time_zone,
    )
