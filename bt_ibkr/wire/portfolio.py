"""Portfolio: positions, ledger, summary, profit and loss."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from bt_ibkr.errors import WireError
from bt_ibkr.model.portfolio import AccountPnl, LedgerLine, Position
from bt_ibkr.wire import fields, values
from bt_ibkr.wire.json import parsed

_CORE = ".Core"
_LEDGER_LIST = "ledgerlist"


class SummaryValue(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of the account summary.

    Attributes:
        key: IBKR's name in lower case: ``netliquidation``, ``initmarginreq-s`` …
        amount: ``None`` for texts.
        text: What the figure says as text, also for numbers.
        currency: ``None`` for texts.
    """

    key: str
    amount: float | None
    text: str | None
    currency: str | None
    time_ns: int | None


class _Position(msgspec.Struct, rename="camel"):
    acct_id: object = None
    conid: object = None  # number; text in portfolio2
    ticker: object = None  # missing in the first, sparse answer
    contract_desc: object = None
    description: object = None  # portfolio2
    position: object = None  # units, short below 0
    mkt_price: object = None
    market_price: object = None  # portfolio2
    mkt_value: object = None
    market_value: object = None  # portfolio2
    currency: object = None
    avg_cost: object = None  # per unit, times the multiplier
    avg_price: object = None  # per unit
    realized_pnl: object = None
    unrealized_pnl: object = None
    asset_class: object = None
    sec_type: object = None  # portfolio2
    multiplier: object = None  # 0.0 and null stand for 1


def positions(body: object, *, refused: fields.Refuser | None = None) -> tuple[Position, ...]:
    """A page of ``/portfolio/{account}/positions/{page}``, or an answer by conid, keyed by account.

    Flat positions are kept, so that the length of a page can be counted.

    Args:
        refused: Told of a row that cannot be read; the others are returned.

    Raises:
        WireError: Not an array of objects, an error, or (without ``refused``) a row that cannot be read.
    """
    value = parsed(body)
    if isinstance(value, dict):
        by_account = fields.mapping(value, "positions")
        items = [item for rows in by_account.values() for item in fields.array(rows, "positions")]
    else:
        items = fields.array(value, "positions")
    return fields.each(items, lambda item: _position(item, None), refused)


def positions2(
    body: object, account: str = "", *, refused: fields.Refuser | None = None
) -> tuple[Position, ...]:
    """``/portfolio2/{account}/positions``, whose rows do not name the account.

    Raises:
        WireError: As ``positions``.
    """
    items = fields.array(body, "portfolio2/positions")
    return fields.each(items, lambda item: _position(item, account), refused)


def _position(item: object, account: str | None) -> Position:
    row = fields.payload(item, _Position, "position")
    owner = fields.text(row.acct_id) or account
    number = fields.required(fields.conid(row.conid), "position: conid")
    quantity = fields.required(fields.quantity(row.position, "position"), f"position of {number}")
    price, cost = _averages(row, number, quantity)
    description = fields.text(row.contract_desc) or fields.text(row.description)
    return Position(
        account=fields.required(owner, f"position of {number}: the account"),
        conid=number,
        symbol=fields.text(row.ticker) or description or "",
        quantity=quantity,
        average_price=price,
        average_cost=cost,
        market_price=fields.amount(_either(row.mkt_price, row.market_price), "mktPrice"),
        market_value=fields.amount(_either(row.mkt_value, row.market_value), "mktValue"),
        currency=fields.text(row.currency) or "",
        security_type=fields.text(row.asset_class) or fields.text(row.sec_type) or "",
        realized_pnl=fields.amount(row.realized_pnl, "realizedPnl"),
        unrealized_pnl=fields.amount(row.unrealized_pnl, "unrealizedPnl"),
    )


def _either(first: object, second: object) -> object:
    return second if first is None else first


def _averages(row: _Position, conid: int, quantity: Decimal) -> tuple[float, float]:
    """Average price and cost; each follows from the other, since cost is price times multiplier."""
    price, cost = fields.amount(row.avg_price, "avgPrice"), fields.amount(row.avg_cost, "avgCost")
    multiplier = fields.amount(row.multiplier, "multiplier") or 1.0
    if price is None and cost is None:
        if quantity:
            raise WireError(f"position of {conid}: neither avgPrice nor avgCost.")
        return 0.0, 0.0
    if price is None:
        price = (cost or 0.0) / multiplier
    if cost is None:
        cost = price * multiplier
    return price, cost


class _Ledger(msgspec.Struct):
    """The REST names; the stream's are the same in camelCase."""

    cashbalance: object = None  # in the line's currency, as all amounts
    settledcash: object = None
    netliquidationvalue: object = None
    stockmarketvalue: object = None
    realizedpnl: object = None
    unrealizedpnl: object = None
    exchangerate: object = None  # units of base currency per unit
    currency: object = None
    secondkey: object = None  # the currency
    key: object = None  # LedgerList; in the stream LedgerListUSD
    timestamp: object = None  # epoch s


def ledger(body: object) -> dict[str, LedgerLine]:
    """``/portfolio/{account}/ledger``: one line per currency, and ``BASE``.

    Raises:
        WireError: Not a map of objects, an error, or a line without cash or exchange rate.
    """
    found = {}
    for name, item in fields.mapping(body, "ledger").items():
        row = fields.payload(item, _Ledger, "ledger")
        cash = fields.required(
            fields.amount(row.cashbalance, "cashbalance"), f"ledger of {name}: cashbalance"
        )
        rate = fields.required(_rate(row), f"ledger of {name}: exchangerate")
        found[name] = _ledger_line(row, name, cash, rate)
    return found


def ledger_update(item: object) -> LedgerLine | None:
    """One line of topic ``sld``; ``None`` for a blank one, which says that nothing changed.

    Raises:
        WireError: Not an object, or a number that is none.
    """
    if not isinstance(item, dict):
        raise WireError(f"sld: {fields.show(item)} where an object was expected.")
    row = fields.payload({key.lower(): value for key, value in item.items()}, _Ledger, "sld")
    cash, rate = fields.amount(row.cashbalance, "cashBalance"), _rate(row)
    name = fields.text(row.secondkey) or fields.text(row.currency)
    key = fields.text(row.key)
    if name is None and key is not None and key.lower().startswith(_LEDGER_LIST):
        name = key[len(_LEDGER_LIST) :] or None
    if cash is None or rate is None or name is None:
        return None
    return _ledger_line(row, name, cash, rate)


def _rate(row: _Ledger) -> float | None:
    rate = fields.amount(row.exchangerate, "exchangerate")
    if rate is not None and rate <= 0:
        raise WireError(f"ledger: an exchange rate of {rate:g}.")
    return rate


def _ledger_line(row: _Ledger, currency: str, cash: float, rate: float) -> LedgerLine:
    return LedgerLine(
        currency=currency,
        cash=cash,
        settled_cash=fields.amount(row.settledcash, "settledcash"),
        net_liquidation=fields.amount(row.netliquidationvalue, "netliquidationvalue"),
        stock_value=fields.amount(row.stockmarketvalue, "stockmarketvalue"),
        realized_pnl=fields.amount(row.realizedpnl, "realizedpnl"),
        unrealized_pnl=fields.amount(row.unrealizedpnl, "unrealizedpnl"),
        exchange_rate=rate,
        time_ns=fields.lenient(fields.epoch_ns, row.timestamp, "timestamp") or 0,
    )


class _Summary(msgspec.Struct, rename="camel"):
    amount: object = None
    monetary_value: object = None  # topic ssd
    value: object = None  # text
    currency: object = None
    is_null: object = None
    timestamp: object = None  # epoch s or ms


def summary(body: object) -> dict[str, SummaryValue]:
    """``/portfolio/{account}/summary``, by key in lower case.

    Raises:
        WireError: Not a map of objects, or an error.
    """
    found = (summary_value(name, item) for name, item in fields.mapping(body, "summary").items())
    return {value.key: value for value in found}


def summary_value(name: str, item: object) -> SummaryValue:
    """One figure, of the REST answer or of topic ``ssd``.

    Raises:
        WireError: Not an object.
    """
    row = fields.payload(item, _Summary, "summary")
    currency = fields.text(row.currency)
    null = fields.lenient(fields.flag, row.is_null, "isNull") is True
    number = fields.lenient(fields.amount, _either(row.amount, row.monetary_value), "amount")
    text = row.value if isinstance(row.value, str) else None
    if text is None and isinstance(row.value, (int, float)) and number is None:
        number = fields.lenient(fields.amount, row.value, "value")
    # A text such as the account's code comes with amount 0.0 and without a currency.
    worded = text is not None and fields.lenient(values.number, text, "value") is None
    return SummaryValue(
        key=name.lower(),
        amount=None if null or worded else number,
        text=text,
        currency=currency,
        time_ns=fields.lenient(fields.epoch_ns, row.timestamp, "timestamp"),
    )


class _Pnl(msgspec.Struct):
    dpl: object = None  # daily
    upl: object = None  # unrealised
    nl: object = None  # net liquidation
    el: object = None  # excess liquidity
    mv: object = None  # market value


def pnl_partitioned(body: object) -> tuple[AccountPnl, ...]:
    """``/iserver/account/pnl/partitioned``; empty in the first answer of a session.

    Raises:
        WireError: Not that, an error, or a figure that is no number.
    """
    return account_pnl(fields.mapping(body, "pnl/partitioned").get("upnl"))


def account_pnl(value: object) -> tuple[AccountPnl, ...]:
    """Figures by ``{account}.Core``, as REST and topic ``spl`` have them.

    Raises:
        WireError: Not a map of objects, or a figure that is no number.
    """
    found = []
    for name, item in ({} if value is None else fields.mapping(value, "profit and loss")).items():
        row = fields.payload(item, _Pnl, "profit and loss")
        found.append(
            AccountPnl(
                account=name.removesuffix(_CORE),
                daily=fields.amount(row.dpl, "dpl"),
                unrealized=fields.amount(row.upl, "upl"),
                net_liquidation=fields.amount(row.nl, "nl"),
                excess_liquidity=fields.amount(row.el, "el"),
                market_value=fields.amount(row.mv, "mv"),
            )
        )
    return tuple(found)
