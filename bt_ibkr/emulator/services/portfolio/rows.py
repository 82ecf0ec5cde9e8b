"""Bodies of the portfolio's answers, with every key of the recorded ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.services import format as text
from bt_ibkr.emulator.services.contracts import bodies as contracts
from bt_ibkr.emulator.services.portfolio.figures import Figures
from bt_ibkr.model.portfolio import LedgerLine, Position

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

Row = dict[str, object]
PAGE = 100
#: Day the accounts were opened, ms.
_OPENED_MS = 1_769_922_000_000
_SEGMENTS = ("total", "Crypto at Paxos", "commodities", "securities")


def account(core: Core, account_id: str, *, brokerage: bool) -> Row:
    """One account as ``/portfolio/accounts`` and ``meta`` show it."""
    return {
        "id": account_id,
        "PrepaidCrypto-Z": False,
        "PrepaidCrypto-P": False,
        "brokerageAccess": brokerage,
        "accountId": account_id,
        "accountVan": account_id,
        "accountTitle": "Emulated Account",
        "displayName": "Emulated Account",
        "accountAlias": None,
        "accountStatus": _OPENED_MS,
        "currency": core.engine.account(account_id).currency,
        "type": "DEMO" if core.settings.is_paper else "INDIVIDUAL",
        "tradingType": "STKNOPT",
        "businessType": "INDEPENDENT",
        "category": "",
        "ibEntity": "IBLLC-US",
        "faclient": _advised(core, account_id),
        "clearingStatus": "O",
        "covestor": False,
        "noClientTrading": False,
        "trackVirtualFXPortfolio": False,
        "acctCustType": "INDIVIDUAL",
        "parent": {
            "mmc": [],
            "accountId": core.settings.fa_master if _advised(core, account_id) else "",
            "isMParent": False,
            "isMChild": False,
            "isMultiplex": False,
        },
        "desc": account_id,
    }


def _advised(core: Core, account_id: str) -> bool:
    """Whether the account is an adviser's client's."""
    return core.settings.fa_master not in ("", account_id)


def position(one: Position) -> Row:
    """A position as the paged list has it at first: without names."""
    return {
        "acctId": one.account,
        "conid": one.conid,
        "contractDesc": one.symbol,
        "position": float(one.quantity),
        "mktPrice": one.market_price or 0.0,
        "mktValue": round(one.market_value or 0.0, 2),
        "currency": one.currency,
        "avgCost": round(one.average_cost, 8),
        "avgPrice": round(one.average_price, 8),
        "realizedPnl": round(one.realized_pnl or 0.0, 2),
        "unrealizedPnl": round(one.unrealized_pnl or 0.0, 2),
        "exchs": None,
        "expiry": None,
        "putOrCall": None,
        "multiplier": None,
        "strike": 0.0,
        "exerciseStyle": None,
        "conExchMap": [],
        "assetClass": one.security_type,
        "undConid": 0,
        "model": "",
    }


def named_position(core: Core, one: Position) -> Row:
    """A position with what the server adds from the second read on."""
    row = position(one)
    instrument = core.instrument(one.conid)
    if instrument is None:
        return row
    contract = instrument.contract
    return row | {
        "contractDesc": contracts.description(instrument),
        "undConid": instrument.underlying_conid,
        "expiry": contract.last_trade_date,
        "putOrCall": contract.right,
        "multiplier": contract.multiplier if contract.multiplier != 1.0 else 0.0,
        "strike": text.plain(contract.strike or 0.0),
        "ticker": contract.symbol,
        "name": instrument.company_name,
        "isUS": instrument.is_us,
        "isEventContract": False,
        "fullName": contracts.full_name(instrument),
        "listingExchange": contract.listing_exchange or contract.exchange,
        "countryCode": "US" if instrument.is_us else "",
        "type": "COMMON" if contract.security_type.value == "STK" else contract.security_type.value,
        "hasOptions": False,
        "pageSize": PAGE,
    }


def position2(one: Position, time_ns: int) -> Row:
    """A position as ``portfolio2`` has it: other names, and a conid in text."""
    return {
        "position": float(one.quantity),
        "conid": str(one.conid),
        "avgCost": one.average_cost,
        "avgPrice": one.average_price,
        "currency": one.currency,
        "description": one.symbol,
        "isLastToLoq": False,
        "marketPrice": one.market_price or 0.0,
        "marketValue": one.market_value or 0.0,
        "realizedPnl": one.realized_pnl or 0.0,
        "secType": one.security_type,
        "timestamp": time_ns // NS_PER_S,
        "unrealizedPnl": one.unrealized_pnl or 0.0,
        "assetClass": one.security_type,
        "sector": None,
        "group": None,
        "model": "",
    }


def ledger(found: Figures) -> dict[str, Row]:
    """One entry per currency, ``BASE`` among them."""
    return {line.currency: _ledger_row(found, line) for line in found.ledger}


def _ledger_row(found: Figures, line: LedgerLine) -> Row:
    amounts = dict.fromkeys(
        (
            "commoditymarketvalue",
            "futuremarketvalue",
            "corporatebondsmarketvalue",
            "warrantsmarketvalue",
            "interest",
            "moneyfunds",
            "funds",
            "issueroptionsmarketvalue",
            "stockoptionmarketvalue",
            "futuresonlypnl",
            "tbondsmarketvalue",
            "futureoptionmarketvalue",
            "cashbalancefxsegment",
            "tbillsmarketvalue",
            "dividends",
            "cryptocurrencyvalue",
        ),
        0.0,
    )
    row: Row = {
        **amounts,
        **found.values.get(line.currency, {}),
        "settledcash": line.settled_cash or 0.0,
        "exchangerate": line.exchange_rate,
        "sessionid": 1,
        "cashbalance": line.cash,
        "netliquidationvalue": line.net_liquidation or 0.0,
        "unrealizedpnl": line.unrealized_pnl or 0.0,
        "stockmarketvalue": line.stock_value or 0.0,
        "currency": line.currency,
        "realizedpnl": line.realized_pnl or 0.0,
        "acctcode": found.account,
        "key": "LedgerList",
        "timestamp": found.time_ns // NS_PER_S,
        "severity": 0,
        "secondkey": line.currency,
    }
    if line is found.ledger[-1]:
        row["endofbundle"] = 1
    return row


def allocation(found: tuple[Figures, ...]) -> Row:
    """Market values by class, and cash; amounts below 0 are on the short side."""
    classes: dict[str, float] = {}
    others = 0.0
    cash = 0.0
    for one in found:
        cash += one.cash
        rates = {line.currency: line.exchange_rate for line in one.ledger}
        for held in one.positions:
            value = (held.market_value or 0.0) * rates.get(held.currency, 1.0)
            if held.security_type != "CASH":
                classes[held.security_type] = classes.get(held.security_type, 0.0) + value
                others += value
    return {
        "assetClass": _sides(classes | {"CASH": cash}),
        "sector": _sides({"Others": others} if others else {}),
        "group": _sides({"Others": others} if others else {}),
    }


def _sides(amounts: dict[str, float]) -> Row:
    return {
        "long": {key: round(value, 2) for key, value in amounts.items() if value >= 0},
        "short": {key: round(value, 2) for key, value in amounts.items() if value < 0},
    }


def account_summary(found: Figures) -> Row:
    """``/iserver/account/{id}/summary``: numbers."""
    return {
        "accountType": "",
        "status": "",
        "balance": found.available_funds,
        "SMA": found.available_funds,
        "buyingPower": found.buying_power,
        "availableFunds": found.available_funds,
        "excessLiquidity": found.excess_liquidity,
        "netLiquidationValue": found.net_liquidation,
        "equityWithLoanValue": found.net_liquidation,
        "regTLoan": 0.0,
        "securitiesGVP": found.gross_value,
        "totalCashValue": found.cash,
        "accruedInterest": 0.0,
        "regTMargin": found.initial_margin,
        "initialMargin": found.initial_margin,
        "maintenanceMargin": found.maintenance_margin,
        "cashBalances": [
            {"currency": line.currency, "balance": line.cash, "settledCash": line.settled_cash or 0.0}
            for line in found.ledger
            if line.currency != "BASE"
        ],
    }


def segments(found: Figures, part: str) -> Row:
    """``available_funds``, ``balances`` and ``margins``: text with the unit, by segment."""
    amounts: dict[str, dict[str, float]] = {
        "available_funds": {
            "current_available": found.available_funds,
            "current_excess": found.excess_liquidity,
            "buying_power": found.buying_power,
            "leverage": 0.0,
            "look_ahead_available": found.available_funds,
            "look_ahead_excess": found.excess_liquidity,
        },
        "balances": {
            "net_liquidation": found.net_liquidation,
            "equity_with_loan": found.net_liquidation,
            "cash": found.cash,
            "MTD Interest": 0.0,
            "previous_day_equity_with_loan": found.net_liquidation - found.daily_pnl,
        },
        "margins": {
            "current_initial": found.initial_margin,
            "current_maint": found.maintenance_margin,
            "look_ahead_initial": found.initial_margin,
            "look_ahead_maint": found.maintenance_margin,
            "RegT Margin": found.initial_margin,
        },
    }
    leverage = found.gross_value / found.net_liquidation if found.net_liquidation else 0.0
    answer: Row = {}
    for segment in _SEGMENTS:
        used = segment in ("total", "securities")
        answer[segment] = {
            key: f"{leverage if used else 0.0:.2f}"
            if key == "leverage"
            else f"{text.money(value if used else 0.0)} {found.currency}"
            for key, value in amounts[part].items()
        }
    return answer


def market_value(found: Figures) -> Row:
    """Market value by currency: text without a unit."""
    return {
        line.currency: {
            "total_cash": text.money(line.cash),
            "stock": text.money(line.stock_value or 0.0),
            "options": text.money(
                sum(
                    found.values[line.currency][name]
                    for name in ("stockoptionmarketvalue", "futureoptionmarketvalue")
                )
            ),
            "futures": "0",
            "net_liquidation": text.money(line.net_liquidation or 0.0),
            "unrealized_pnl": text.money(line.unrealized_pnl or 0.0),
            "realized_pnl": text.money(line.realized_pnl or 0.0),
        }
        for line in found.ledger
        if line.currency != "BASE"
    }


def pnl(found: Figures) -> Row:
    """Profit and loss as ``pnl/partitioned`` and ``spl`` have it, keyed by account and ``Core``."""
    return {
        f"{found.account}.Core": {
            "rowType": 1,
            "dpl": round(found.daily_pnl, 2),
            "nl": round(found.net_liquidation, 2),
            "upl": round(found.unrealized_pnl, 2),
            "el": round(found.excess_liquidity, 2),
            "uel": round(found.available_funds, 2),
            "mv": round(found.stock_value, 2),
        }
    }
