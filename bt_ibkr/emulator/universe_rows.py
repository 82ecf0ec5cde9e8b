"""The instruments that are built in, other than futures, options and event contracts, which are made by rule.

Conids of stocks, pairs, coins, indices and of the CFDs on SPY and AAPL are IBKR's: they were taken from recorded
answers of the real server and from account statements. Those of bonds, funds and warrants are the emulator's own.
The four foreign listings reproduce the ambiguity that the real server shows for ``AAPL`` and ``SPY``.
"""

from __future__ import annotations

from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.contract import Contract, SecurityType

# conid, symbol, listing exchange, company name, reference price, annual volatility, daily volume
_STOCKS: tuple[tuple[int, str, str, str, float, float, float], ...] = (
    (265598, "AAPL", "NASDAQ", "APPLE INC", 230.0, 0.26, 50e6),
    (8314, "IBM", "NYSE", "INTL BUSINESS MACHINES CORP", 182.0, 0.22, 4e6),
    (756733, "SPY", "ARCA", "SPDR S&P 500 ETF TRUST", 600.0, 0.16, 60e6),
    (272093, "MSFT", "NASDAQ", "MICROSOFT CORP", 420.0, 0.24, 20e6),
    (320227571, "QQQ", "NASDAQ", "INVESCO QQQ TRUST SERIES 1", 520.0, 0.20, 35e6),
    (4391, "AMD", "NASDAQ", "ADVANCED MICRO DEVICES", 140.0, 0.48, 40e6),
    (4815747, "NVDA", "NASDAQ", "NVIDIA CORP", 180.0, 0.45, 180e6),
    (76792991, "TSLA", "NASDAQ", "TESLA INC", 320.0, 0.55, 90e6),
    (107113386, "META", "NASDAQ", "META PLATFORMS INC-CLASS A", 650.0, 0.32, 12e6),
    (3691937, "AMZN", "NASDAQ", "AMAZON.COM INC", 210.0, 0.30, 40e6),
    (208813719, "GOOGL", "NASDAQ", "ALPHABET INC-CL A", 190.0, 0.28, 25e6),
    (208813720, "GOOG", "NASDAQ", "ALPHABET INC-CL C", 191.0, 0.28, 18e6),
    (15124833, "NFLX", "NASDAQ", "NETFLIX INC", 90.0, 0.36, 30e6),
    (6459, "DIS", "NYSE", "WALT DISNEY CO/THE", 110.0, 0.28, 10e6),
    (9599491, "F", "NYSE", "FORD MOTOR CO", 11.0, 0.32, 60e6),
    (10291, "NKE", "NYSE", "NIKE INC -CL B", 70.0, 0.32, 14e6),
    (49462172, "V", "NYSE", "VISA INC-CLASS A SHARES", 340.0, 0.20, 6e6),
    (43645865, "IBKR", "NASDAQ", "INTERACTIVE BROKERS GRO-CL A", 65.0, 0.38, 6e6),
    (36285627, "GME", "NYSE", "GAMESTOP CORP-CLASS A", 24.0, 0.70, 10e6),
    (6478131, "TTWO", "NASDAQ", "TAKE-TWO INTERACTIVE SOFTWRE", 230.0, 0.30, 2e6),
    (732440574, "LRCX", "NASDAQ", "LAM RESEARCH CORP", 100.0, 0.42, 12e6),
    (365207014, "UBER", "NYSE", "UBER TECHNOLOGIES INC", 80.0, 0.38, 18e6),
    (109911821, "NOW", "NYSE", "SERVICENOW INC", 140.0, 0.36, 8e6),
    (312496724, "SPOT", "NYSE", "SPOTIFY TECHNOLOGY SA", 480.0, 0.40, 2e6),
    (9579970, "IWM", "ARCA", "ISHARES RUSSELL 2000 ETF", 220.0, 0.22, 30e6),
    (15547841, "TLT", "NASDAQ", "ISHARES 20+ YEAR TREASURY BD", 88.0, 0.15, 35e6),
    (51529211, "GLD", "ARCA", "SPDR GOLD SHARES", 380.0, 0.18, 9e6),
    (39039301, "SLV", "ARCA", "ISHARES SILVER TRUST", 50.0, 0.32, 25e6),
    (4215217, "XLE", "ARCA", "ENERGY SELECT SECTOR SPDR", 60.0, 0.24, 18e6),
    (136155102, "VOO", "ARCA", "VANGUARD S&P 500 ETF", 550.0, 0.16, 6e6),
    (72539702, "TQQQ", "NASDAQ", "PROSHARES ULTRAPRO QQQ", 90.0, 0.60, 60e6),
)
# conid, symbol, exchange, company name, currency, reference price, time zone, open, close
_FOREIGN: tuple[tuple[int, str, str, str, str, float, str, str, str], ...] = (
    (38708077, "AAPL", "MEXI", "APPLE INC", "MXN", 4200.0, "America/Mexico_City", "08:30", "15:00"),
    (273982664, "AAPL", "EBS", "APPLE INC", "CHF", 205.0, "Europe/Zurich", "09:00", "17:30"),
    (532640894, "AAPL", "TSE", "APPLE INC-CDR", "CAD", 33.0, "America/Toronto", "09:30", "16:00"),
    (
        38709152,
        "SPY",
        "MEXI",
        "SPDR S&P 500 ETF TRUST",
        "MXN",
        11000.0,
        "America/Mexico_City",
        "08:30",
        "15:00",
    ),
)
# conid, base, quote, reference price, tick
_PAIRS: tuple[tuple[int, str, str, float, float], ...] = (
    (12087792, "EUR", "USD", 1.15, 0.00005),
    (12087797, "GBP", "USD", 1.33, 0.00005),
    (15016059, "USD", "JPY", 150.0, 0.005),
    (12087820, "USD", "CHF", 0.80, 0.00005),
    (15016062, "USD", "CAD", 1.38, 0.00005),
    (14433401, "AUD", "USD", 0.65, 0.00005),
    (39453441, "NZD", "USD", 0.58, 0.00005),
    (14321016, "EUR", "JPY", 172.0, 0.005),
    (37928772, "USD", "SGD", 1.29, 0.00005),
)
# conid, symbol, company name, reference price, tick: cryptocurrencies trade around the clock, in small parts
_COINS: tuple[tuple[int, str, str, float, float], ...] = (
    (479624278, "BTC", "Bitcoin cryptocurrency", 90_000.0, 0.25),
    (495759171, "ETH", "Ethereum cryptocurrency", 3_000.0, 0.01),
)
_US_ROUTES = ("SMART", "AMEX", "NYSE", "ARCA", "NASDAQ", "BATS", "IEX", "IBKRATS")
# conid, symbol, listing exchange, name, currency, level, volatility, open, close, time zone
_INDICES: tuple[tuple[int, str, str, str, str, float, float, str, str, str], ...] = (
    (416904, "SPX", "CBOE", "S&P 500 Stock Index", "USD", 6700.0, 0.16, "08:30", "15:00", "America/Chicago"),
    (13455763, "VIX", "CBOE", "CBOE Volatility Index", "USD", 18.0, 0.9, "08:30", "15:15", "America/Chicago"),
    (
        416843,
        "NDX",
        "NASDAQ",
        "NASDAQ 100 Stock Index",
        "USD",
        25000.0,
        0.2,
        "09:30",
        "16:00",
        "America/New_York",
    ),
    (
        416888,
        "RUT",
        "RUSSELL",
        "Russell 2000 Stock Index",
        "USD",
        2500.0,
        0.22,
        "09:30",
        "16:00",
        "America/New_York",
    ),
    (825711, "DAX", "EUREX", "DAX 40 Index", "EUR", 24000.0, 0.18, "09:00", "17:30", "Europe/Berlin"),
    (
        4356500,
        "ESTX50",
        "EUREX",
        "Dow Jones Euro STOXX50",
        "EUR",
        5600.0,
        0.18,
        "09:00",
        "17:30",
        "Europe/Berlin",
    ),
)
# conid, symbol, name, conid of what it is on, price, volatility
_CFDS: tuple[tuple[int, str, str, int, float, float], ...] = (
    (134770228, "SPY", "SPDR S&P 500 ETF TRUST", 756733, 600.0, 0.16),
    (120549942, "AAPL", "APPLE INC", 265598, 230.0, 0.26),
    (111987422, "IBUS500", "US 500", 416904, 6700.0, 0.16),
)
# conid, symbol, issuer's id, issuer, coupon, maturity, price in percent
_BONDS: tuple[tuple[int, str, str, str, float, str, float], ...] = (
    (701000001, "IBM", "e1359061", "International Business Machines Corp", 4.5, "20350515", 98.5),
    (701000002, "IBM", "e1359061", "International Business Machines Corp", 3.3, "20281101", 97.2),
    (701000003, "IBM", "e1359061", "International Business Machines Corp", 7.0, "20451030", 121.4),
    (701000011, "AAPL", "e1356543", "Apple Inc", 3.25, "20290801", 97.9),
    (701000012, "AAPL", "e1356543", "Apple Inc", 4.65, "20460223", 92.6),
    (701000021, "US-T", "e1400715", "United States Treasury", 4.25, "20351115", 100.2),
    (701000022, "US-T", "e1400715", "United States Treasury", 4.75, "20550815", 99.1),
)
# conid, symbol, name, price
_FUNDS: tuple[tuple[int, str, str, float], ...] = (
    (702000001, "VFIAX", "VANGUARD 500 INDEX FUND - ADMIRAL SHARES", 620.0),
    (702000002, "VTSAX", "VANGUARD TOTAL STOCK MARKET INDEX FUND - ADMIRAL SHARES", 160.0),
)
# conid, symbol, listing exchange, name, conid of what it is on, last trade date, strike, right, price
_WARRANTS: tuple[tuple[int, str, str, str, int, str, float, str, float], ...] = (
    (703000001, "IBM", "NYSE", "INTL BUSINESS MACHINES CORP", 8314, "20301220", 200.0, "C", 30.0),
)
_US_ROUTES = ("SMART", "AMEX", "NYSE", "ARCA", "NASDAQ", "BATS", "IEX", "IBKRATS")


def _stock(
    conid: int, symbol: str, exchange: str, name: str, price: float, volatility: float, volume: float
) -> Instrument:
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=symbol,
            security_type=SecurityType.STOCK,
            listing_exchange=exchange,
            company_name=name,
        ),
        valid_exchanges=_US_ROUTES,
        company_name=name,
        reference_price=price,
        annual_volatility=volatility,
        average_daily_volume=volume,
    )


def _foreign(
    conid: int,
    symbol: str,
    exchange: str,
    name: str,
    currency: str,
    price: float,
    time_zone: str,
    opens: str,
    closes: str,
) -> Instrument:
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=symbol,
            security_type=SecurityType.STOCK,
            exchange=exchange,
            listing_exchange=exchange,
            currency=currency,
            company_name=name,
        ),
        valid_exchanges=(exchange,),
        company_name=name,
        is_us=False,
        reference_price=price,
        average_daily_volume=20_000.0,
        session_open=opens,
        session_close=closes,
        time_zone=time_zone,
    )


def _pair(conid: int, base: str, quote: str, price: float, tick: float) -> Instrument:
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=f"{base}.{quote}",
            security_type=SecurityType.FOREX,
            exchange="IDEALPRO",
            currency=quote,
            company_name=f"{base}.{quote}",
            tick_size=tick,
        ),
        valid_exchanges=("IDEALPRO", "SMART"),
        company_name=f"{base}.{quote}",
        is_us=False,
        reference_price=price,
        annual_volatility=0.08,
        average_daily_volume=1e9,
        quote_only=True,
        session_open="17:15",
        session_close="17:00",
    )


def _coin(conid: int, symbol: str, name: str, price: float, tick: float) -> Instrument:
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=symbol,
            security_type=SecurityType.CRYPTO,
            exchange="PAXOS",
            listing_exchange="PAXOS",
            company_name=name,
            tick_size=tick,
            size_increment=1e-8,
        ),
        valid_exchanges=("PAXOS",),
        company_name=name,
        reference_price=price,
        annual_volatility=0.5,
        average_daily_volume=5_000.0,
        session_open="00:00",
        session_close="00:00",
    )


def _index(
    conid: int,
    symbol: str,
    exchange: str,
    name: str,
    currency: str,
    level: float,
    volatility: float,
    opens: str,
    closes: str,
    time_zone: str,
) -> Instrument:
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=symbol,
            security_type=SecurityType.INDEX,
            exchange=exchange,
            listing_exchange=exchange,
            currency=currency,
            company_name=name,
        ),
        valid_exchanges=(exchange,),
        company_name=name,
        is_us=currency == "USD",
        reference_price=level,
        annual_volatility=volatility,
        average_daily_volume=0.0,
        session_open=opens,
        session_close=closes,
        calendar="new_york" if currency == "USD" else "",
        time_zone=time_zone,
    )


def _cfd(conid: int, symbol: str, name: str, underlying: int, price: float, volatility: float) -> Instrument:
    return Instrument(
        contract=Contract(
            conid=conid, symbol=symbol, security_type=SecurityType.CFD, company_name=name, tick_size=0.01
        ),
        company_name=name,
        reference_price=price,
        annual_volatility=volatility,
        quote_only=True,
        underlying_conid=underlying,
    )


def _bond(
    conid: int, symbol: str, issuer: str, name: str, coupon: float, maturity: str, price: float
) -> Instrument:
    """Prices are percent of the face value; a unit has a face value of 1,000."""
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=symbol,
            security_type=SecurityType.BOND,
            company_name=name,
            multiplier=10.0,
            tick_size=0.001,
            last_trade_date=maturity,
        ),
        company_name=name,
        reference_price=price,
        annual_volatility=0.05,
        average_daily_volume=5_000.0,
        session_open="08:00",
        session_close="17:00",
        coupon=coupon,
        issuer=issuer,
    )


def _fund(conid: int, symbol: str, name: str, price: float) -> Instrument:
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=symbol,
            security_type=SecurityType.FUND,
            exchange="FUNDSERV",
            listing_exchange="FUNDSERV",
            company_name=name,
            size_increment=0.001,
        ),
        valid_exchanges=("FUNDSERV",),
        company_name=name,
        reference_price=price,
        annual_volatility=0.16,
        average_daily_volume=10_000.0,
    )


def _warrant(
    conid: int,
    symbol: str,
    exchange: str,
    name: str,
    underlying: int,
    last_day: str,
    strike: float,
    right: str,
    price: float,
) -> Instrument:
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=symbol,
            security_type=SecurityType.WARRANT,
            exchange=exchange,
            listing_exchange=exchange,
            company_name=name,
            last_trade_date=last_day,
            strike=strike,
            right=right,
        ),
        valid_exchanges=(exchange,),
        company_name=name,
        reference_price=price,
        annual_volatility=0.22,
        quote_only=True,
        underlying_conid=underlying,
    )


def before_futures() -> list[Instrument]:
    """Stocks and pairs; a new row changes the conids of options on the stocks after it."""
    return [
        *(_stock(*row) for row in _STOCKS),
        *(_foreign(*row) for row in _FOREIGN),
        *(_pair(*row) for row in _PAIRS),
    ]


def after_futures() -> list[Instrument]:
    """Coins, indices, CFDs, bonds, funds and warrants."""
    return [
        *(_coin(*row) for row in _COINS),
        *(_index(*row) for row in _INDICES),
        *(_cfd(*row) for row in _CFDS),
        *(_bond(*row) for row in _BONDS),
        *(_fund(*row) for row in _FUNDS),
        *(_warrant(*row) for row in _WARRANTS),
    ]
