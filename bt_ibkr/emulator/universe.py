"""The instruments the emulator knows, under IBKR's own conids.

Conids of real names were taken from recorded answers of the real server and from account statements; the
four foreign listings reproduce the ambiguity that the real server shows for ``AAPL`` and ``SPY``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bt_ibkr.emulator.chains import Chains
from bt_ibkr.emulator.combos import combo
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe_table import read_table
from bt_ibkr.errors import MarketFileError, UsageError
from bt_ibkr.model.contract import Contract, Leg, SecurityType, combo_key

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
# conid, symbol, last trade date, exchange, name, reference price, tick, multiplier
_FUTURES: tuple[tuple[int, str, str, str, str, float, float, float], ...] = (
    (495512557, "ES", "20241220", "CME", "E-mini S&P 500", 5900.0, 0.25, 50.0),
    (495512563, "ES", "20251219", "CME", "E-mini S&P 500", 6700.0, 0.25, 50.0),
    (304037511, "CL", "20261020", "NYMEX", "Light Sweet Crude Oil", 70.0, 0.01, 1000.0),
)
# conid, symbol, company name, reference price, tick: cryptocurrencies trade around the clock, in small parts
_COINS: tuple[tuple[int, str, str, float, float], ...] = (
    (479624278, "BTC", "Bitcoin cryptocurrency", 90_000.0, 0.25),
    (495759171, "ETH", "Ethereum cryptocurrency", 3_000.0, 0.01),
)
_US_ROUTES = ("SMART", "AMEX", "NYSE", "ARCA", "NASDAQ", "BATS", "IEX", "IBKRATS")


class Universe:
    """Instruments by conid and by symbol; the first of a symbol is its primary listing.

    Options and combos are found by their conids, too, but are not listed: there are too many of them.

    Args:
        instruments: In the order in which a search shows them.

    Attributes:
        chains: The options.
    """

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._by_conid: dict[int, Instrument] = {}
        self._by_symbol: dict[str, list[Instrument]] = {}
        self._combos: dict[int, Instrument] = {}
        self.chains = Chains()
        for instrument in instruments:
            self.add(instrument)

    def __len__(self) -> int:
        return len(self._by_conid)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._by_conid.values())

    def __contains__(self, conid: object) -> bool:
        return isinstance(conid, int) and self.by_conid(conid) is not None

    def by_conid(self, conid: int) -> Instrument | None:
        """The instrument with that conid, or ``None``; a combo's is below 0."""
        found = self._by_conid.get(conid)
        if found is not None:
            return found
        return self._combos.get(conid) if conid < 0 else self.chains.by_conid(conid)

    def combo(self, legs: tuple[Leg, ...]) -> Instrument:
        """The combo of these legs, from now on found by its conid.

        Raises:
            UsageError: As ``combos.combo``.
        """
        key = combo_key(legs)
        found = self._combos.get(key)
        if found is None:
            found = self._combos[key] = combo(legs, self.by_conid)
        return found

    def by_symbol(self, symbol: str) -> list[Instrument]:
        """All instruments of that symbol, whatever the case it is written in."""
        return list(self._by_symbol.get(symbol.upper(), ()))

    def all(self) -> list[Instrument]:
        """Every instrument, in order."""
        return list(self._by_conid.values())

    def add(self, instrument: Instrument) -> None:
        """Add an instrument.

        Raises:
            UsageError: Its conid is taken by another one.
        """
        conid = instrument.contract.conid
        held = self._by_conid.get(conid)
        if held == instrument:
            return
        if held is not None:
            raise UsageError(
                f"Conid {conid} is already taken by {held.contract.describe()}.",
                remedy="Give the instrument a conid of its own.",
            )
        self._by_conid[conid] = instrument
        self._by_symbol.setdefault(instrument.contract.symbol.upper(), []).append(instrument)
        self.chains.add(instrument)

    def replace(self, instrument: Instrument) -> None:
        """Put an instrument in the place of the one that has its conid, whatever that was called."""
        conid = instrument.contract.conid
        held = self._by_conid.get(conid)
        place = 0
        if held is not None:
            listed = self._by_symbol.get(held.contract.symbol.upper(), [])
            if held in listed:
                place = listed.index(held)
                listed.remove(held)
        self._by_conid[conid] = instrument
        self._by_symbol.setdefault(instrument.contract.symbol.upper(), []).insert(place, instrument)

    def retire(self, conid: int) -> None:
        """Let a conid be found by itself only, no longer by its symbol."""
        held = self._by_conid.get(conid)
        if held is not None:
            self._by_symbol[held.contract.symbol.upper()].remove(held)

    def remove(self, conid: int) -> None:
        """Forget an instrument."""
        self.retire(conid)
        self._by_conid.pop(conid, None)

    def extend_from_table(self, path: Path | str) -> int:
        """Add the rows of a CSV or Parquet table.

        Columns ``conid``, ``symbol``, ``security_type``, ``exchange`` and ``currency`` are required;
        ``listing_exchange``, ``company_name``, ``multiplier``, ``tick_size``, ``size_increment``,
        ``last_trade_date``, ``strike``, ``right``, ``valid_exchanges`` (separated by ``;``), ``is_us``,
        ``reference_price``, ``annual_volatility``, ``average_daily_volume``, ``quote_only``,
        ``session_open``, ``session_close`` and ``time_zone`` are optional.

        Returns:
            How many instruments were added.

        Raises:
            MarketFileError: The file is missing, unreadable, lacks a column, or a row of it is wrong; then
                no row was added.
        """
        table = Path(path)
        added = read_table(table)
        trial = Universe(self)
        for line, instrument in enumerate(added, start=1):
            try:
                trial.add(instrument)
            except UsageError as error:
                raise MarketFileError(
                    f"{table}, row {line}, column conid: {error.message}",
                    remedy="Give each row a conid of its own.",
                ) from None
        for instrument in added:
            self.add(instrument)
        return len(added)


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


def _future(
    conid: int,
    symbol: str,
    last_day: str,
    exchange: str,
    name: str,
    price: float,
    tick: float,
    multiplier: float,
) -> Instrument:
    return Instrument(
        contract=Contract(
            conid=conid,
            symbol=symbol,
            security_type=SecurityType.FUTURE,
            exchange=exchange,
            listing_exchange=exchange,
            company_name=name,
            multiplier=multiplier,
            tick_size=tick,
            last_trade_date=last_day,
        ),
        valid_exchanges=(exchange,),
        company_name=name,
        reference_price=price,
        annual_volatility=0.18,
        average_daily_volume=1.5e6,
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


def default_universe() -> Universe:
    """A few dozen well-known instruments, each time a new and separate universe."""
    return Universe(
        [
            *(_stock(*row) for row in _STOCKS),
            *(_foreign(*row) for row in _FOREIGN),
            *(_pair(*row) for row in _PAIRS),
            *(_future(*row) for row in _FUTURES),
            *(_coin(*row) for row in _COINS),
        ]
    )
