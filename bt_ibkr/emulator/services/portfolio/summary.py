"""``/portfolio/{account}/summary`` and the values of topic ``ssd``."""

from __future__ import annotations

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.services.portfolio.figures import Figures

#: Amounts the server has for each account: key, its spelling on the socket, whether it has segments.
_ZEROS = (
    "AccruedCash",
    "AccruedDividend",
    "Guarantee",
    "IncentiveCoupons",
    "IndianStockHaircut",
    "NetLiquidationUncertainty",
    "NLVAndMarginInReview",
    "PASharesValue",
    "PhysicalCertificateValue",
    "PostExpirationExcess",
    "PostExpirationMargin",
    "TotalDebitCardPendingCharges",
    "Billable",
)


def amounts(found: Figures) -> dict[str, float]:
    """Amounts by the socket's key, ``NetLiquidation`` and the like, segments ``-S`` and ``-C`` included."""
    values = {
        "AvailableFunds": found.available_funds,
        "EquityWithLoanValue": found.net_liquidation,
        "ExcessLiquidity": found.excess_liquidity,
        "FullAvailableFunds": found.available_funds,
        "FullExcessLiquidity": found.excess_liquidity,
        "FullInitMarginReq": found.initial_margin,
        "FullMaintMarginReq": found.maintenance_margin,
        "GrossPositionValue": found.gross_value,
        "InitMarginReq": found.initial_margin,
        "LookAheadAvailableFunds": found.available_funds,
        "LookAheadExcessLiquidity": found.excess_liquidity,
        "LookAheadInitMarginReq": found.initial_margin,
        "LookAheadMaintMarginReq": found.maintenance_margin,
        "MaintMarginReq": found.maintenance_margin,
        "NetLiquidation": found.net_liquidation,
        "TotalCashValue": found.cash,
        **dict.fromkeys(_ZEROS, 0.0),
    }
    spread: dict[str, float] = {"BuyingPower": found.buying_power}
    for key, value in values.items():
        spread |= {key: value, f"{key}-S": value, f"{key}-C": 0.0}
    return spread


def texts(found: Figures) -> dict[str, str]:
    """What is no amount."""
    leverage = found.gross_value / found.net_liquidation if found.net_liquidation else 0.0
    cushion = found.excess_liquidity / found.net_liquidation if found.net_liquidation else 0.0
    return {
        "AccountCode": found.account,
        "AccountReady": "true",
        "AccountType": "INDIVIDUAL",
        "Cushion": f"{cushion:.6g}",
        "DepositOnCreditHold": "0",
        "HighestSeverity": "0",
        "Leverage-S": f"{leverage:.2f}",
        "LookAheadNextChange": "0",
        "SegmentTitle-S": "US Securities",
        "TradingType-S": "STKNOPT",
        "ColumnPrio-S": "1",
        "SettledCashByDate": "",
    }


def body(found: Figures) -> dict[str, object]:
    """The REST answer: keys in lower case, each number doubled as text."""
    seconds = found.time_ns // NS_PER_S
    rows: dict[str, object] = {}
    for key, word in texts(found).items():
        rows[key.lower()] = _row(0.0, None, word, seconds)
    for key, value in amounts(found).items():
        shown = round(value, 2)
        rows[key.lower()] = _row(shown, found.currency, f"{shown:g}" if shown == 0 else str(shown), seconds)
    return dict(sorted(rows.items()))


def _row(amount: float, currency: str | None, value: str, seconds: int) -> dict[str, object]:
    return {
        "amount": amount,
        "currency": currency,
        "isNull": False,
        "timestamp": seconds,
        "value": value,
        "severity": 0,
    }
