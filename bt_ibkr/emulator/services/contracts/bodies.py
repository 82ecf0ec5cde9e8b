"""Bodies of contract answers, with every key of the recorded ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bt_ibkr.emulator.services import format as text
from bt_ibkr.emulator.services.marketdata.fields import mark_price
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.contract import SecurityType

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

Row = dict[str, object]
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
TIMES_IN_FORCE = ("IOC/MARKET,LIMIT,RELATIVE,MARKETONCLOSE", "DAY/o,a", "GTC/o,a")


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
    """The emulator knows no underlyings of futures; a stable number stands for it."""
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
        "hasOptions": False,
        "fullName": contract.symbol,
        "isUS": one.is_us,
        "isEventContract": False,
        "listingExchange": listing(one),
        "countryCode": "US" if one.is_us else "",
    }


def found(one: Instrument) -> Row:
    """A row of ``secdef/search``: the conid is text, the exchange is called ``description``."""
    contract = one.contract
    section: Row = {"secType": contract.security_type.value}
    if contract.security_type is SecurityType.FUTURE:
        section |= {"months": _month(contract.last_trade_date or ""), "exchange": contract.exchange}
    elif not one.is_us:
        section["exchange"] = f"{listing(one)};"
    return {
        "conid": str(contract.conid),
        "companyHeader": f"{one.company_name} - {listing(one)}",
        "companyName": one.company_name,
        "symbol": _ticker(one),
        "description": listing(one),
        "restricted": None,
        "sections": [section],
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
        "desc2": None,
        "maturityDate": contract.last_trade_date,
        "multiplier": text.plain(contract.multiplier),
        "tradingClass": contract.symbol,
        "validExchanges": ",".join(one.valid_exchanges),
    }


def info(one: Instrument) -> Row:
    """``contract/{conid}/info``."""
    contract = one.contract
    derivative = contract.security_type is SecurityType.FUTURE
    return {
        "cfi_code": "",
        "symbol": _ticker(one),
        "cusip": None,
        "expiry_full": (contract.last_trade_date or "")[:6] or None,
        "con_id": contract.conid,
        "maturity_date": contract.last_trade_date,
        "industry": "",
        "instrument_type": contract.security_type.value,
        "has_related_contracts": True,
        "trading_class": contract.symbol,
        "valid_exchanges": ",".join(one.valid_exchanges),
        "allow_sell_long": False,
        "is_zero_commission_security": False,
        "local_symbol": contract.symbol,
        "contract_clarification_type": None,
        "classifier": None,
        "currency": contract.currency,
        "text": None,
        "underlying_con_id": underlying(one),
        "r_t_h": True,
        "multiplier": text.plain(contract.multiplier) if derivative else None,
        "underlying_issuer": None,
        "contract_month": (contract.last_trade_date or "")[:6] or None,
        "company_name": one.company_name,
        "smart_available": "SMART" in one.valid_exchanges,
        "exchange": contract.exchange,
        "category": "",
    }


def rules(core: Core, one: Instrument) -> Row:
    """``contract/rules``, and ``rules`` inside ``info-and-rules``."""
    contract = one.contract
    quote = core.engine.quote(contract.conid)
    price = (mark_price(quote) if quote is not None else None) or one.reference_price
    digits = text.decimals(contract.tick_size)
    return {
        "algoEligible": False,
        "allOrNoneEligible": True,
        "costReport": False,
        "canTradeAcctIds": list(core.session.accounts),
        "error": None,
        "orderTypes": list(ORDER_TYPES),
        "orderTypesOutside": ["limit", "stop_limit"],
        "cqtTypes": [],
        "tifTypes": list(TIMES_IN_FORCE),
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
        "negativeCapable": False,
    }


def listing(one: Instrument) -> str:
    return one.contract.listing_exchange or one.contract.exchange


def _ticker(one: Instrument) -> str:
    """A pair is listed under its first currency."""
    if one.contract.security_type is SecurityType.FOREX:
        return one.contract.symbol.partition(".")[0]
    return one.contract.symbol


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def _month(day: str) -> str:
    """``20261218`` as ``DEC26``."""
    return f"{_MONTHS[int(day[4:6]) - 1]}{day[2:4]}" if len(day) == 8 else ""
