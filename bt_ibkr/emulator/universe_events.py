"""Event contracts: they pay 1 if something happens, and nothing else. They are bought only.

IBKR models those of ForecastEx as options on an index that has no value (right C is Yes, P is No), those of CME
Group as options on a product of futures, told apart by their trading class (``ECES``). All are made by rule, so
that there are some on any day. Conids of indices and products are IBKR's, so are those of the contracts in
``_KNOWN``; the rest are the emulator's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from bt_ibkr.emulator.market import holidays
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe_futures import Futures, Product
from bt_ibkr.model.contract import Contract, SecurityType

FORECASTEX = "FORECASTX"
ZONE = "America/Chicago"
_BASE, _PER_MARKET, _PER_MONTH = 640_000_000, 200_000, 200
_EC_BASE, _EC_PER_PRODUCT, _EC_PER_DAY = 740_000_000, 20_000_000, 1_000
_FIRST_YEAR = 2000
_FIRST_DAY = date(_FIRST_YEAR, 1, 1)
_WEDNESDAY = 2
_LAST_TRADE = time(13)
#: Months ahead in which there are contracts of a market, and days ahead of a product of CME.
LISTED_MONTHS, LISTED_DAYS = 13, 5
_REACH = 10
_DAY = timedelta(days=1)


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """What ForecastEx has contracts about.

    Attributes:
        index, product: ``conid`` and ``product_conid`` of the category tree.
        strikes: All of them.
        label: Of a strike, in words.
        question: With ``{label}`` and ``{day}``.
        months: In which contracts end.
        end: The day on which one ends.
        measured: The day that one is about.
        category: The branch of the tree that it hangs on.
        logo: The branch above that.
    """

    symbol: str
    name: str
    index: int
    product: int
    strikes: tuple[float, ...]
    label: Callable[[float], str]
    question: str
    description: str
    source: str
    link: str
    months: tuple[int, ...]
    end: Callable[[int, int], date]
    measured: Callable[[date], date]
    category: str
    logo: str


#: Id, name and the id of what it is a part of.
CATEGORIES: tuple[tuple[str, str, str], ...] = (
    ("g13834", "Economics", ""),
    ("g1003", "Interest Rates", "g13834"),
    ("g17457", "Inflation", "g13834"),
    ("g78664", "Northeast", "g17457"),
    ("g17465", "Growth", "g13834"),
    ("g78668", "Germany", "g17465"),
    ("g5351", "Environmental", ""),
    ("g22973", "Agriculture", "g5351"),
    ("g7369", "Climate Change", "g5351"),
    ("g17490", "United States", "g7369"),
)
MARKETS = (
    Market(
        symbol="FF",
        name="US Fed Funds Target Rate",
        index=658663572,
        product=658663579,
        strikes=tuple(2.125 + step / 4 for step in range(11)),
        label=lambda strike: f"Above {strike:g}%",
        question="Will the US Fed Funds Target Rate be set above {strike}% at the FOMC meeting ending {day}?",
        description="The target range of the federal funds rate that the FOMC sets.",
        source="U.S. Federal Reserve",
        link="https://www.federalreserve.gov/monetarypolicy/openmarket.htm",
        months=(1, 3, 4, 6, 7, 9, 10, 12),
        end=lambda year, month: holidays.nth(year, month, _WEDNESDAY, -1),
        measured=lambda day: day + _DAY,
        category="g1003",
        logo="g13834",
    ),
    Market(
        symbol="RCNET",
        name="Northeastern US CPI",
        index=831072285,
        product=831072289,
        strikes=tuple(1.5 + step / 4 for step in range(13)),
        label=lambda strike: f"Above {strike:g}%",
        question="Will consumer prices in the US Northeast have risen by more than {strike}% by {day}?",
        description="Yearly change of the consumer price index of the US Northeast.",
        source="Bureau of Labor Statistics",
        link="https://www.bls.gov/cpi/",
        months=tuple(range(1, 13)),
        end=lambda year, month: date(year, month, 12),
        measured=lambda day: day.replace(day=1) - _DAY,
        category="g78664",
        logo="g17457",
    ),
    Market(
        symbol="USCE",
        name="United States Carbon Dioxide Emissions",
        index=732764706,
        product=732764711,
        strikes=tuple(float(strike) for strike in range(4500, 5101, 50)),
        label=lambda strike: f"Above {strike:,.0f}",
        question="Will US carbon dioxide emissions exceed {strike} million metric tons in {day}?",
        description="Carbon dioxide that was emitted in the United States in a year, in million metric tons.",
        source="Energy Information Administration",
        link="https://www.eia.gov/environment/emissions/carbon/",
        months=(4,),
        end=lambda year, month: date(year, month, 30),
        measured=lambda day: date(day.year - 1, 12, 31),
        category="g17490",
        logo="g7369",
    ),
    Market(
        symbol="GDPGE",
        name="Germany GDP",
        index=831072111,
        product=831072113,
        strikes=tuple(step / 4 for step in range(1, 13)),
        label=lambda strike: f"Above {strike:g}%",
        question="Will Germany's gross domestic product have grown by more than {strike}% by {day}?",
        description="Growth of Germany's gross domestic product over a year.",
        source="Statistisches Bundesamt",
        link="https://www.destatis.de/",
        months=(1, 4, 7, 10),
        end=lambda year, month: date(year, month, 30),
        measured=lambda day: day.replace(day=1) - _DAY,
        category="g78668",
        logo="g17465",
    ),
)
#: Market, last day, strike, right.
_KNOWN: dict[int, tuple[str, date, float, str]] = {
    722489372: ("FF", date(2027, 1, 27), 3.125, "C"),
    722489376: ("FF", date(2027, 1, 27), 3.125, "P"),
    732957192: ("USCE", date(2026, 4, 30), 4700.0, "C"),
    732957197: ("USCE", date(2026, 4, 30), 4700.0, "P"),
}
_CONIDS = {key: conid for conid, key in _KNOWN.items()}


class Events:
    """All event contracts.

    Args:
        futures: The products of which CME's are.
    """

    def __init__(self, futures: Futures) -> None:
        self._futures = futures
        self.markets = MARKETS
        self._by_index = {market.index: market for market in MARKETS}
        self._by_symbol = {market.symbol: market for market in MARKETS}
        self._products = [product for product in futures.products if product.event_class]
        self._made: dict[int, Instrument] = {}

    def market(self, conid: int) -> Market | None:
        """The market of which a conid is the index or a contract."""
        market = self._by_index.get(conid)
        if market is None and (key := self._key(conid)) is not None:
            market = self._by_symbol[key[0]]
        return market

    def by_symbol(self, symbol: str) -> Instrument | None:
        """The index of the market of that symbol."""
        market = self._by_symbol.get(symbol.upper())
        return None if market is None else self.by_conid(market.index)

    def by_conid(self, conid: int) -> Instrument | None:
        """The contract, or a market's index, of that conid."""
        found = self._made.get(conid)
        if found is None:
            found = self._make(conid)
            if found is not None:
                self._made[conid] = found
        return found

    def _make(self, conid: int) -> Instrument | None:
        if conid in self._by_index:
            return _index(self._by_index[conid])
        key = self._key(conid)
        if key is not None:
            return _contract(self._by_symbol[key[0]], conid, *key[1:])
        return self._of_product(conid)

    def _key(self, conid: int) -> tuple[str, date, float, str] | None:
        if conid in _KNOWN:
            return _KNOWN[conid]
        place, rest = divmod(conid - _BASE, _PER_MARKET)
        if not 0 <= place < len(MARKETS):
            return None
        market, (months, rest) = MARKETS[place], divmod(rest, _PER_MONTH)
        year, month = _FIRST_YEAR + months // 12, months % 12 + 1
        index, no = divmod(rest, 2)
        if month not in market.months or index >= len(market.strikes):
            return None
        return market.symbol, market.end(year, month), market.strikes[index], "P" if no else "C"

    def _conid(self, market: Market, day: date, strike: float, right: str) -> int:
        known = _CONIDS.get((market.symbol, day, strike, right))
        if known is not None:
            return known
        months = (day.year - _FIRST_YEAR) * 12 + day.month - 1
        place = MARKETS.index(market)
        return (
            _BASE
            + place * _PER_MARKET
            + months * _PER_MONTH
            + market.strikes.index(strike) * 2
            + (right == "P")
        )

    def days(self, market: Market, today: date) -> list[date]:
        """On which the contracts of a market end that are listed on a day."""
        found = []
        for ahead in range(LISTED_MONTHS):
            years, month = divmod(today.month - 1 + ahead, 12)
            if month + 1 in market.months:
                day = market.end(today.year + years, month + 1)
                if day >= today:
                    found.append(day)
        return found

    def contracts(self, market: Market, today: date) -> Iterator[Instrument]:
        """Those of a market that are listed on a day, Yes before No."""
        for day in self.days(market, today):
            for strike in market.strikes:
                for right in ("C", "P"):
                    one = self.by_conid(self._conid(market, day, strike, right))
                    if one is not None:
                        yield one

    def other_side(self, conid: int) -> Instrument | None:
        """No for Yes, Yes for No, of ForecastEx."""
        key = self._key(conid)
        if key is None:
            return None
        symbol, day, strike, right = key
        return self.by_conid(self._conid(self._by_symbol[symbol], day, strike, "P" if right == "C" else "C"))

    def on_product(self, product: Product, today: date, price: float) -> list[Instrument]:
        """CME's on a product, around its price, that are listed on a day; none on most products."""
        if product not in self._products:
            return []
        calendar = holidays.of_exchange(product.exchange) or "weekdays"
        middle = round(price / _step(product))
        place = self._products.index(product)
        found: list[Instrument] = []
        day, listed = today, 0
        while listed < LISTED_DAYS:
            short = holidays.short_day(calendar, day)
            if holidays.trades_on(calendar, day) and (short is None or short.regular):
                listed += 1
                base = _EC_BASE + place * _EC_PER_PRODUCT + (day - _FIRST_DAY).days * _EC_PER_DAY
                for index in range(middle - _REACH, middle + _REACH + 1):
                    both = (self.by_conid(base + index * 2 + no) for no in (0, 1))
                    found += [one for one in both if one is not None]
            day += _DAY
        return found

    def _of_product(self, conid: int) -> Instrument | None:
        place, rest = divmod(conid - _EC_BASE, _EC_PER_PRODUCT)
        if not 0 <= place < len(self._products):
            return None
        product, (days, rest) = self._products[place], divmod(rest, _EC_PER_DAY)
        index, no = divmod(rest, 2)
        day = _FIRST_DAY + days * _DAY
        on = self._futures.delivering(product, day)
        return (
            None if on is None or not index else _digital(product, on, conid, day, index * _step(product), no)
        )


def _step(product: Product) -> float:
    """Distance of strikes: 50 points of a price below 10,000, else 100."""
    return 50.0 if product.price < 10_000 else 100.0


def last_trade_s(market: Market, day: date) -> int:
    """When trading of a contract ends, epoch seconds."""
    return int(datetime.combine(day, _LAST_TRADE, tzinfo=ZoneInfo(ZONE)).timestamp())


def _index(market: Market) -> Instrument:
    return Instrument(
        contract=Contract(
            conid=market.index,
            symbol=market.symbol,
            security_type=SecurityType.INDEX,
            exchange=FORECASTEX,
            listing_exchange=FORECASTEX,
            company_name=market.name,
        ),
        valid_exchanges=(FORECASTEX,),
        company_name=market.name,
        session_open="00:00",
        session_close="00:00",
        time_zone=ZONE,
    )


def _likelihood(market: Market, strike: float) -> float:
    """What a Yes is worth to begin with: less, the higher its strike."""
    share = (market.strikes.index(strike) + 1) / (len(market.strikes) + 1)
    return round(1 - share, 2)


def _contract(market: Market, conid: int, day: date, strike: float, right: str) -> Instrument:
    yes = _likelihood(market, strike)
    word = "YES" if right == "C" else "NO"
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=market.symbol,
            security_type=SecurityType.OPTION,
            exchange=FORECASTEX,
            listing_exchange=FORECASTEX,
            company_name=market.name,
            multiplier=1.0,
            tick_size=0.01,
            last_trade_date=day.strftime("%Y%m%d"),
            strike=strike,
            right=right,
        ),
        valid_exchanges=(FORECASTEX,),
        company_name=market.name,
        reference_price=yes if right == "C" else round(1 - yes, 2),
        annual_volatility=0.5,
        average_daily_volume=20_000.0,
        session_open="00:00",
        session_close="00:00",
        time_zone=ZONE,
        underlying_conid=market.index,
        local_symbol=f"{market.symbol} {day:%b%d'%y} {strike:g} {word}",
        digital=True,
    )


def _digital(product: Product, on: Instrument, conid: int, day: date, strike: float, no: int) -> Instrument:
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=product.symbol,
            security_type=SecurityType.FUTURE_OPTION,
            exchange=product.exchange,
            listing_exchange=product.exchange,
            currency=product.currency,
            company_name=product.name,
            multiplier=1.0,
            tick_size=0.01,
            last_trade_date=day.strftime("%Y%m%d"),
            strike=strike,
            right="P" if no else "C",
        ),
        valid_exchanges=(product.exchange,),
        company_name=product.name,
        annual_volatility=product.volatility,
        quote_only=True,
        session_open=on.session_open,
        session_close=on.session_close,
        extended_open=on.extended_open,
        extended_close=on.extended_close,
        time_zone=on.time_zone,
        underlying_conid=on.contract.conid,
        trading_class=product.event_class,
        local_symbol=f"{product.event_class} {day:%b%d'%y} {strike:g} {'NO' if no else 'YES'}",
        digital=True,
    )
