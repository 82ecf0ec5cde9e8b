"""Tags of market-data fields: the keys of ``smd`` frames and snapshots.

Values are text, but for tag 83 on the socket and the two conids. 85 is the *ask* size and 88 the *bid* size;
7059 is the size of the last trade. Tags that only a client library knows, and not IBKR's documents, are
``UNDOCUMENTED``.
"""

from __future__ import annotations

from typing import Final

LAST: Final = "31"
SYMBOL: Final = "55"
HIGH: Final = "70"
LOW: Final = "71"
CHANGE: Final = "82"
CHANGE_PERCENT: Final = "83"
BID: Final = "84"
ASK_SIZE: Final = "85"
ASK: Final = "86"
VOLUME_TEXT: Final = "87"
BID_SIZE: Final = "88"
MARKER: Final = "6119"
SERVICE_PARAMETERS: Final = "6508"
AVAILABILITY: Final = "6509"
LAST_EXCHANGE: Final = "7058"
LAST_SIZE: Final = "7059"
ASK_EXCHANGES: Final = "7057"
BID_EXCHANGES: Final = "7068"
OPEN: Final = "7295"
CLOSE: Final = "7296"
DELTA: Final = "7308"
GAMMA: Final = "7309"
THETA: Final = "7310"
VEGA: Final = "7311"
IMPLIED_VOLATILITY: Final = "7633"
MARK: Final = "7635"
SHORTABLE_SHARES: Final = "7636"
SHORTABLE: Final = "7644"
FUTURES_OPEN_INTEREST: Final = "7697"
PRIOR_CLOSE: Final = "7741"
VOLUME: Final = "7762"

#: What each known tag holds.
NAMES: Final[dict[str, str]] = {
    "31": "last price",
    "55": "symbol",
    "58": "text",
    "70": "high of the day",
    "71": "low of the day",
    "73": "market value of the position",
    "74": "average price of the position",
    "75": "unrealized profit",
    "76": "position, formatted",
    "77": "unrealized profit, formatted",
    "78": "profit of the day",
    "79": "realized profit",
    "80": "unrealized profit, %",
    "82": "change since the previous close",
    "83": "change, %",
    "84": "bid price",
    "85": "ask size",
    "86": "ask price",
    "87": "volume as text (12.2M)",
    "88": "bid size",
    "201": "right of an option",
    "6004": "exchange",
    "6008": "conid",
    "6070": "security type",
    "6072": "months",
    "6073": "regular expiry",
    "6119": "delivery marker",
    "6457": "conid of the underlying",
    "6508": "service parameters",
    "6509": "availability of the data",
    "7051": "company name",
    "7057": "exchanges of the ask",
    "7058": "exchange of the last trade",
    "7059": "last size",
    "7068": "exchanges of the bid",
    "7084": "implied over historical volatility, %",
    "7085": "put/call interest",
    "7086": "put/call volume",
    "7087": "historical volatility, %",
    "7088": "historical volatility at the close, %",
    "7089": "option volume",
    "7094": "conid and exchange",
    "7184": "can be traded",
    "7219": "contract description",
    "7220": "contract description, other form",
    "7221": "listing exchange",
    "7280": "industry",
    "7281": "category",
    "7282": "average volume of 90 days",
    "7283": "implied volatility of options, %",
    "7284": "historical volatility, % (older tag)",
    "7285": "put/call ratio",
    "7286": "dividend amount",
    "7287": "dividend yield, %",
    "7288": "ex-dividend date",
    "7289": "market capitalization",
    "7290": "price/earnings",
    "7291": "earnings per share",
    "7292": "cost basis",
    "7293": "high of 52 weeks",
    "7294": "low of 52 weeks",
    "7295": "open of the day",
    "7296": "close of the day",
    "7308": "delta",
    "7309": "gamma",
    "7310": "theta",
    "7311": "vega",
    "7607": "option volume change, %",
    "7633": "implied volatility of the option, %",
    "7635": "mark price",
    "7636": "shortable shares",
    "7637": "fee rate for borrowing",
    "7638": "option open interest",
    "7639": "share of the mark value, %",
    "7644": "ease of borrowing",
    "7655": "Morningstar rating",
    "7671": "dividends",
    "7672": "dividends of 12 months",
    "7674": "EMA of 200 days",
    "7675": "EMA of 100 days",
    "7676": "EMA of 50 days",
    "7677": "EMA of 20 days",
    "7678": "price over EMA of 200 days, %",
    "7679": "price over EMA of 100 days, %",
    "7681": "price over EMA of 20 days, %",
    "7682": "change since the open",
    "7683": "next event",
    "7684": "date of the next event",
    "7685": "next analyst meeting",
    "7686": "next earnings",
    "7687": "next other event",
    "7688": "latest analyst meeting",
    "7689": "latest earnings",
    "7690": "latest other event",
    "7694": "probability of the greatest return",
    "7695": "break-even",
    "7696": "delta in terms of SPX",
    "7697": "futures open interest",
    "7698": "yield of the last trade",
    "7699": "yield of the bid",
    "7700": "probability of the greatest return (second tag)",
    "7702": "probability of the greatest loss",
    "7703": "probability of a profit",
    "7704": "type of organization",
    "7705": "class of debt",
    "7706": "ratings",
    "7707": "state code of a bond",
    "7708": "type of bond",
    "7714": "last trading date",
    "7715": "issue date",
    "7718": "beta",
    "7720": "yield of the ask",
    "7724": "price over EMA of 50 days, %",
    "7741": "previous close",
    "7762": "volume as a number",
    "7768": "trading permission",
    "7899": "type of stock",
    "7920": "profit of the day, raw",
    "7921": "cost basis, raw",
    "7943": "rebate rate",
}

#: Tags whose values are JSON integers.
INTEGERS: Final = frozenset({"6008", "6457"})

#: Not in IBKR's documents.
UNDOCUMENTED: Final = frozenset({"7286", "7287", "7288", "7289", "7290", "7291", "7655", "7718"})

#: Most fields in one snapshot request, and most conids.
MAX_FIELDS: Final = 50
MAX_CONIDS: Final = 100

#: Lines of a tick itself: every stream asks for their fields.
TICK_LINES: Final[dict[str, str]] = {
    "last": LAST,
    "bid": BID,
    "ask": ASK,
    "bid_size": BID_SIZE,
    "ask_size": ASK_SIZE,
    "last_size": LAST_SIZE,
    "volume": VOLUME,
}

#: Lines of numbers that a feed can have beside price and volume, and their fields. Those of ``TICK_LINES`` are
#: attributes of a tick, the others are in its ``extras``. Percentages are per cent: 24.5 is 24.5 %.
EXTRA_LINES: Final[dict[str, str]] = {
    "bid": BID,
    "ask": ASK,
    "bid_size": BID_SIZE,
    "ask_size": ASK_SIZE,
    "last_size": LAST_SIZE,
    # No field: counted from what trades since the stream or the day began (its price and the growth of the volume).
    "vwap": VOLUME,
    "mark": MARK,
    "day_open": OPEN,
    "day_high": HIGH,
    "day_low": LOW,
    "day_close": CLOSE,
    "prior_close": PRIOR_CLOSE,
    "change": CHANGE,
    "change_percent": CHANGE_PERCENT,
    "average_volume": "7282",
    "high_52w": "7293",
    "low_52w": "7294",
    "open_interest": "7638",
    "option_volume": "7089",
    "put_call_interest": "7085",
    "put_call_volume": "7086",
    "implied_vol": IMPLIED_VOLATILITY,
    "hist_vol": "7087",
    "hist_vol_close": "7088",
    "implied_hist_vol": "7084",
    "delta": DELTA,
    "gamma": GAMMA,
    "theta": THETA,
    "vega": VEGA,
    "shortable_shares": SHORTABLE_SHARES,
    "fee_rate": "7637",
    "rebate_rate": "7943",
    "position": "76",
    "average_price": "74",
    "market_value": "73",
    "daily_pnl": "7920",
    "unrealized_pnl": "75",
    "unrealized_pnl_percent": "80",
    "realized_pnl": "79",
    "dividends": "7671",
    "dividends_ttm": "7672",
    "last_yield": "7698",
    "bid_yield": "7699",
    "ask_yield": "7720",
}

#: Fields of text that ``Quote.texts`` can have.
TEXT_FIELDS: Final[dict[str, str]] = {
    "shortable": SHORTABLE,
    "last_exchange": LAST_EXCHANGE,
    "bid_exchanges": BID_EXCHANGES,
    "ask_exchanges": ASK_EXCHANGES,
}

#: Lines whose field goes by the type of the contract.
_BY_TYPE: Final[dict[tuple[str, str], str]] = {
    ("open_interest", "FUT"): FUTURES_OPEN_INTEREST,
    ("implied_vol", "STK"): "7283",
    ("implied_vol", "IND"): "7283",
    ("implied_vol", "FUND"): "7283",
    ("implied_vol", "FUT"): "7283",
}


def field_of(line: str, security_type: str = "") -> str:
    """The field that tells ``line`` of a contract of ``security_type`` (``STK``, ``OPT`` …).

    Raises:
        KeyError: There is no such line or text.
    """
    found = _BY_TYPE.get((line, security_type)) or EXTRA_LINES.get(line)
    return found or TEXT_FIELDS[line]
