"""Bodies of contract answers, with every key of the recorded ones."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from bt_ibkr.emulator.chains import month_word
from bt_ibkr.emulator.exchange.algorithms import Definition, Parameter, offered
from bt_ibkr.emulator.market.sessions import local_date
from bt_ibkr.emulator.services import format as text
from bt_ibkr.emulator.services.marketdata.fields import mark_price
from bt_ibkr.emulator.types import Instrument
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


def future(one: Instrument) -> Row:
    day = int(one.contract.last_trade_date or 0)
    return {
        "symbol": one.contract.symbol,
        "conid": one.contract.conid,
        "underlyingConid": underlying(one),
        "expirationDate": day,
        "ltd": day,
        "shortFuturesCutOff": day,
        "longFuturesCutOff": day,
    }


def underlying(one: Instrument) -> int:
    """Of an option what it is on; of a future, whose underlying is not in the universe, a stable number."""
    if one.underlying_conid:
        return one.underlying_conid
    if one.contract.security_type is not SecurityType.FUTURE:
        return 0
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
        "ticker": _ticker(one),
        "undConid": underlying(one),
        "multiplier": contract.multiplier if contract.multiplier != 1.0 else 0.0,
        "type": "COMMON" if contract.security_type is SecurityType.STOCK else contract.security_type.value,
        "hasOptions": one.is_us and contract.security_type is SecurityType.STOCK,
        "fullName": full_name(one),
        "isUS": one.is_us,
        "isEventContract": False,
        "listingExchange": listing(one),
        "countryCode": "US" if one.is_us else "",
    }


def found(core: Core, one: Instrument) -> Row:
    """A row of ``secdef/search``: the conid is text, the exchange is called ``description``.

    As recorded a section names the months in which there are options and where they trade; a stock that has
    options can be part of combos, too.
    """
    contract = one.contract
    section: Row = {"secType": contract.security_type.value}
    sections = [section]
    if contract.security_type is SecurityType.FUTURE:
        section |= {"months": _month(contract.last_trade_date or ""), "exchange": contract.exchange}
    elif not one.is_us:
        section["exchange"] = f"{listing(one)};"
    kind = core.universe.chains.security_type(one)
    months = ";".join(month_word(day) for day in core.universe.chains.expiries(one, today(core, one)))
    if kind is SecurityType.OPTION and months:
        sections.append({"secType": "OPT", "months": months, "exchange": "SMART;AMEX;CBOE"})
        sections.append({"secType": "BAG"})
    elif kind is not None and months:
        sections.append({"secType": "FOP", "months": months, "exchange": contract.exchange})
    return {
        "conid": str(contract.conid),
        "companyHeader": f"{one.company_name} - {listing(one)}",
        "companyName": one.company_name,
        "symbol": _ticker(one),
        "description": listing(one),
        "restricted": None,
        "sections": sections,
    }


def details(one: Instrument) -> Row:
    """A row of ``secdef/info``."""
    contract = one.contract
    return {
        "conid": contract.conid,
        "symbol": _ticker(one),
        "secType": contract.security_type.value,
        "exchange": contract.exchange,
        "listingExchange": listing(one),
        "right": contract.right or "?",
        "strike": contract.strike or 0.0,
        "currency": contract.currency,
        "cusip": None,
        "coupon": "No Coupon",
        "desc1": contract.symbol,
        "desc2": option_text(one),
        "maturityDate": contract.last_trade_date,
        "multiplier": text.plain(contract.multiplier),
        "tradingClass": contract.symbol,
        "validExchanges": ",".join(one.valid_exchanges),
    }


def info(one: Instrument) -> Row:
    """``contract/{conid}/info``."""
    contract = one.contract
    option = contract.security_type in OPTIONS
    derivative = contract.security_type is SecurityType.FUTURE or option
    body: Row = {
        "cfi_code": "",
        "symbol": _ticker(one),
        "cusip": None,
        "expiry_full": (contract.last_trade_date if option else (contract.last_trade_date or "")[:6]) or None,
        "con_id": contract.conid,
        "maturity_date": contract.last_trade_date,
        "industry": "",
        "instrument_type": contract.security_type.value,
        "has_related_contracts": True,
        "trading_class": contract.symbol,
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
        "contract_month": (contract.last_trade_date or "")[:6] or None,
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


def local_symbol(one: Instrument) -> str:
    """Of an option as the Options Clearing Corporation writes it: ``IBM   240315C00187500``."""
    contract = one.contract
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
        "orderTypes": list(_ON_OPTIONS if option else ORDER_TYPES),
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


def listing(one: Instrument) -> str:
    return one.contract.listing_exchange or one.contract.exchange


def _ticker(one: Instrument) -> str:
    """A pair is listed under its first currency."""
    if one.contract.security_type is SecurityType.FOREX:
        return one.contract.symbol.partition(".")[0]
    return one.contract.symbol


def _month(day: str) -> str:
    """``20261218`` as ``DEC26``."""
    return f"{_MONTHS[int(day[4:6]) - 1]}{day[2:4]}" if len(day) == 8 else ""
