"""Bodies of contract answers, with every key of the recorded ones."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from bt_ibkr.emulator.exchange.algorithms import Definition, Parameter, offered
from bt_ibkr.emulator.market.sessions import local_date
from bt_ibkr.emulator.services import format as text
from bt_ibkr.emulator.services.marketdata.fields import mark_price
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe_futures import Product, cut_off, index_of
from bt_ibkr.model.contract import SecurityType

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

Row = dict[str, object]
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
ORDER_TYPES = (
    "limit",
    "midprice",
    "market",
    "stop",
    "stop_limit",
    "mit",
    "lit",
    "trailing_stop",
    "trailing_stop_limit",
    "relative",
    "marketonclose",
    "limitonclose",
)
#: IBKR's specification has these for a stock, without ``OPG`` for an option.
TIMES_IN_FORCE = (
    "IOC/MARKET,LIMIT,RELATIVE,MARKETONCLOSE,MIDPRICE,LIMITONCLOSE,MKT_PROTECT,STPPRT,a",
    "GTC/o,a",
    "OPG/LIMIT,MARKET,a",
    "DAY/o,a",
)
_ON_OPTIONS = tuple(word for word in ORDER_TYPES if word not in ("midprice", "marketonclose", "limitonclose"))
_BY_CASH = ["limit", "market"]
_CASH_KINDS = frozenset({SecurityType.STOCK, SecurityType.FOREX, SecurityType.CRYPTO})
OPTIONS = frozenset({SecurityType.OPTION, SecurityType.FUTURE_OPTION})


def stock_company(instruments: list[Instrument]) -> Row:
    """One company of ``trsrv/stocks``: its name and where it is listed."""
    return {
        "name": instruments[0].company_name,
        "chineseName": instruments[0].company_name,
        "assetClass": "STK",
        "contracts": [
            {"conid": one.contract.conid, "exchange": listing(one), "isUS": one.is_us} for one in instruments
        ],
    }


def future(one: Instrument, product: Product | None) -> Row:
    """A row of ``trsrv/futures``; index futures have their last day before they expire, as IBKR shows them."""
    day = date.fromisoformat(one.contract.last_trade_date or "20991231")
    last = int((day if product is None else cut_off(product, day)).strftime("%Y%m%d"))
    return {
        "symbol": one.contract.symbol,
        "conid": one.contract.conid,
        "underlyingConid": underlying(one),
        "expirationDate": int(day.strftime("%Y%m%d")),
        "ltd": last,
        "shortFuturesCutOff": last,
        "longFuturesCutOff": last,
    }


def underlying(one: Instrument) -> int:
    """Of an option what it is on; of a future, whose underlying is not in the universe, a stable number."""
    if one.underlying_conid:
        return one.underlying_conid
    if one.contract.security_type is not SecurityType.FUTURE:
        return 0
    known = index_of(one)
    if known:
        return known
    number = 0
    for letter in one.contract.symbol:
        number = number * 131 + ord(letter)
    return 11_000_000 + number % 1_000_000


def security(one: Instrument) -> Row:
    """A row of ``trsrv/secdef``."""
    contract = one.contract
    return {
        "incrementRules": [{"lowerEdge": 0.0, "increment": contract.tick_size}],
        "displayRule": {
            "magnification": 0,
            "displayRuleStep": [
                {"decimalDigits": text.decimals(contract.tick_size), "lowerEdge": 0.0, "wholeDigits": 4}
            ],
        },
        "conid": contract.conid,
        "currency": contract.currency,
        "time": 1,
        "chineseName": one.company_name,
        "allExchanges": ",".join(one.valid_exchanges),
        "name": one.company_name,
        "assetClass": contract.security_type.value,
        "expiry": contract.last_trade_date,
        "lastTradingDay": contract.last_trade_date,
        "group": None,
        "putOrCall": contract.right,
        "sector": None,
        "sectorGroup": None,
        "strike": text.plain(contract.strike or 0.0),
        "ticker": ticker(one),
        "undConid": underlying(one),
        "multiplier": contract.multiplier if contract.multiplier != 1.0 else 0.0,
        "type": "COMMON" if contract.security_type is SecurityType.STOCK else contract.security_type.value,
        "hasOptions": one.is_us and contract.security_type in (SecurityType.STOCK, SecurityType.INDEX),
        "fullName": full_name(one),
        "isUS": one.is_us,
        "isEventContract": one.digital,
        "listingExchange": listing(one),
        "countryCode": "US" if one.is_us else "",
    }


def details(one: Instrument) -> Row:
    """A row of ``secdef/info``."""
    contract = one.contract
    return {
        "conid": contract.conid,
        "symbol": ticker(one),
        "secType": contract.security_type.value,
        "exchange": contract.exchange,
        "listingExchange": listing(one),
        "right": contract.right or "?",
        "strike": contract.strike or 0.0,
        "currency": contract.currency,
        "cusip": None,
        "coupon": "No Coupon" if one.coupon is None else text.plain(one.coupon),
        "desc1": contract.symbol,
        "desc2": description_of(one),
        "maturityDate": contract.last_trade_date,
        "multiplier": text.plain(contract.multiplier),
        "tradingClass": one.trading_class or contract.symbol,
        "validExchanges": ",".join(one.valid_exchanges),
    }


def info(one: Instrument) -> Row:
    """``contract/{conid}/info``."""
    contract = one.contract
    option = contract.security_type in OPTIONS
    derivative = contract.security_type is SecurityType.FUTURE or option
    body: Row = {
        "cfi_code": "",
        "symbol": ticker(one),
        "cusip": None,
        "expiry_full": (contract.last_trade_date if option else month_of_contract(one)) or None,
        "con_id": contract.conid,
        "maturity_date": contract.last_trade_date,
        "industry": "",
        "instrument_type": contract.security_type.value,
        "has_related_contracts": True,
        "trading_class": one.trading_class or contract.symbol,
        "valid_exchanges": ",".join(one.valid_exchanges),
        "allow_sell_long": False,
        "is_zero_commission_security": False,
        "local_symbol": local_symbol(one),
        "contract_clarification_type": None,
        "classifier": None,
        "currency": contract.currency,
        "text": option_text(one),
        "underlying_con_id": underlying(one),
        "r_t_h": not option,
        "multiplier": text.plain(contract.multiplier) if derivative else None,
        "underlying_issuer": None,
        "contract_month": month_of_contract(one) or None,
        "company_name": one.company_name,
        "smart_available": "SMART" in one.valid_exchanges,
        "exchange": contract.exchange,
        "category": "",
    }
    if option:
        body |= {"right": _RIGHTS[contract.right or "C"], "strike": text.plain(contract.strike or 0.0)}
        body["cfi_code"] = f"O{contract.right}XXXS"
    return body


_RIGHTS = {"C": "CALL", "P": "PUT"}


def month_of_contract(one: Instrument) -> str:
    """``202612``; of crude oil the month of delivery, not that in which it ends."""
    return one.contract_month or (one.contract.last_trade_date or "")[:6]


def month_text(month: str) -> str:
    """``202612`` as ``DEC26``."""
    return f"{_MONTHS[int(month[4:6]) - 1]}{month[2:4]}"


def month_name(month: str) -> str:
    """``202612`` as ``Dec 2026``."""
    return f"{_MONTHS[int(month[4:6]) - 1].capitalize()} {month[:4]}"


def description_of(one: Instrument) -> str | None:
    """``desc2``: ``MAR 15 '24 187.5 Call``, ``(ECNQ) Aug20'24 19800 Put Fut.Option @CME``; of a bond its terms."""
    contract = one.contract
    if contract.security_type is SecurityType.BOND and contract.last_trade_date:
        day = date.fromisoformat(contract.last_trade_date)
        return f"{contract.symbol} {text.plain(one.coupon or 0.0)} {day:%m/%d/%y}"
    if contract.security_type is not SecurityType.FUTURE_OPTION or not contract.last_trade_date:
        return option_text(one)
    day = date.fromisoformat(contract.last_trade_date)
    size = "" if contract.multiplier == 1.0 else f"({text.plain(contract.multiplier)})"
    return (
        f"({one.trading_class or contract.symbol}) {day:%b%d'%y} {text.plain(contract.strike or 0.0)} "
        f"{_RIGHTS[contract.right or 'C'].capitalize()} Fut.Option{size} @{contract.exchange}"
    )


def local_symbol(one: Instrument) -> str:
    """Of an option as the Options Clearing Corporation writes it: ``IBM   240315C00187500``."""
    contract = one.contract
    if one.local_symbol:
        return one.local_symbol
    if contract.strike is None or not contract.last_trade_date:
        return contract.symbol
    return f"{contract.symbol:<6}{contract.last_trade_date[2:]}{contract.right}{round(contract.strike * 1000):08d}"


def option_text(one: Instrument) -> str | None:
    """``MAR 15 '24 187.5 Call``."""
    contract = one.contract
    if contract.strike is None or not contract.last_trade_date:
        return None
    day = date.fromisoformat(contract.last_trade_date)
    word = _RIGHTS[contract.right or "C"].capitalize()
    return (
        f"{_MONTHS[day.month - 1]} {day.day:02d} '{day.year % 100:02d} {text.plain(contract.strike)} {word}"
    )


def full_name(one: Instrument) -> str:
    """``SPY Jan17'25 440 Call``; of anything else the symbol."""
    contract = one.contract
    if contract.strike is None or not contract.last_trade_date:
        return contract.symbol
    day = date.fromisoformat(contract.last_trade_date)
    month, word = _MONTHS[day.month - 1].capitalize(), _RIGHTS[contract.right or "C"].capitalize()
    return f"{contract.symbol} {month}{day.day:02d}'{day.year % 100:02d} {text.plain(contract.strike)} {word}"


def description(one: Instrument) -> str:
    """How a position is called: ``SPY    JAN2025 440 C [SPY   250117C00440000 100]``; else the symbol."""
    contract = one.contract
    if contract.strike is None or not contract.last_trade_date:
        return contract.symbol
    day = date.fromisoformat(contract.last_trade_date)
    return (
        f"{contract.symbol:<7}{_MONTHS[day.month - 1]}{day.year} {text.plain(contract.strike)} {contract.right} "
        f"[{local_symbol(one)} {text.plain(contract.multiplier)}]"
    )


def algorithm(one: Definition, *, described: bool, parameters: bool) -> Row:
    """A row of ``contract/{conid}/algos``."""
    row: Row = {"name": one.name, "id": one.id}
    if described:
        row["description"] = one.description
    if parameters:
        row["parameters"] = [_parameter(parameter) for parameter in one.parameters]
    return row


def _parameter(one: Parameter) -> Row:
    row: Row = {"guiRank": one.rank, "name": one.name, "id": one.id, "valueClassName": one.kind}
    optional: Row = {
        "defaultValue": one.default,
        "description": one.description or None,
        "minValue": one.least,
        "maxValue": one.most,
        "legalStrings": list(one.legal) or None,
        # text, as recorded
        "required": "true" if one.required else None,
    }
    return row | {key: value for key, value in optional.items() if value is not None}


def today(core: Core, one: Instrument) -> date:
    """The day at the instrument's exchange."""
    return local_date(one, core.now_ns)


def rules(core: Core, one: Instrument) -> Row:
    """``contract/rules``, and ``rules`` inside ``info-and-rules``."""
    contract = one.contract
    quote = core.engine.quote(contract.conid)
    option = contract.security_type in OPTIONS
    price = (mark_price(quote) if quote is not None else None) or (0.0 if option else one.reference_price)
    algorithms = offered(one)
    digits = text.decimals(contract.tick_size)
    return {
        "algoEligible": bool(algorithms),
        "allOrNoneEligible": True,
        "costReport": False,
        "canTradeAcctIds": list(core.session.accounts),
        "error": None,
        "orderTypes": _order_types(contract.security_type),
        "ibAlgoTypes": ["limit", "market"] if algorithms else [],
        "orderTypesOutside": [] if option else ["limit", "stop_limit"],
        "cqtTypes": _BY_CASH if contract.security_type in _CASH_KINDS else [],
        "tifTypes": [word for word in TIMES_IN_FORCE if not (option and word.startswith("OPG"))],
        "tifDefaults": {"TIF": "DAY", "SIZE": "100.00"},
        "defaultSize": 100,
        "cashSize": 0.0,
        "sizeIncrement": contract.size_increment
        if contract.size_increment % 1
        else int(contract.size_increment),
        "limitPrice": round(price, digits),
        "stopprice": round(price, digits),
        "preview": True,
        "forceOrderPreview": False,
        "cashCcy": contract.currency,
        "increment": contract.tick_size,
        "incrementDigits": digits,
        "incrementType": 1,
        "incrementRules": [{"lowerEdge": 0.0, "increment": contract.tick_size}],
        "hasSecondary": True,
        "negativeCapable": bool(contract.legs),
    }


def _order_types(kind: SecurityType) -> list[str]:
    """What the exchange takes of each kind; an index is not traded."""
    few = {SecurityType.INDEX: [], SecurityType.FUND: ["market"], SecurityType.BOND: ["limit", "market"]}
    return few.get(kind, list(_ON_OPTIONS if kind in OPTIONS else ORDER_TYPES))


def listing(one: Instrument) -> str:
    return one.contract.listing_exchange or one.contract.exchange


def ticker(one: Instrument) -> str:
    """A pair is listed under its first currency."""
    if one.contract.security_type is SecurityType.FOREX:
        return one.contract.symbol.partition(".")[0]
    return one.contract.symbol
