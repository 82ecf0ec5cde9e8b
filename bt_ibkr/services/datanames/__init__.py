"""Names of instruments as users write them, taken apart and written again.

The forms of backtrader's own IBStore, so that its users keep their datanames, and shorter ones::

    AAPL    AAPL@NASDAQ    AAPL@EBS CHF      stock; exchange and currency where they matter
    AAPL-STK-SMART-USD                       the same, spelt out
    SPX-IND-CBOE    SPX@CBOE index           index; likewise CFD, FUND, BOND, CRYPTO, CMDTY
    EUR.USD    EUR.USD-CASH-IDEALPRO         currency pair
    ES DEC26@CME    ES 2026-12-18@CME        future by month or day
    ES-202612-CME-USD-50                     the same; multiplier optional
    ES@CME front    ES@CME front+1 days=5    the continuous front, and the one after it, by a roll rule
    ES-CONTFUT-CME                           the same
    AAPL 2026-12-18 C 250                    option
    AAPL-20261218-SMART-USD-250-C-100        the same
    ES-202612-CME-USD-6000-C                 option on a future
    SPX[SPXW] 2026-12-18 P 6000              of one trading class
    FF 2027-01-27 YES 3.125                  event contract of ForecastEx
    IBM-BOND-SMART-USD-203505-4.5            bond by issuer, maturity, coupon
    conid:265598    conid:265598@NASDAQ      IBKR's own key
    COMBO:AAPL*1,MSFT*-1                     a combo: legs by any form, with ratios (1 if left out)
    COMBO:ES DEC26@CME*1,ES MAR27@CME*-1@CME the same; what follows the last leg is where the whole is routed
    28812380;;;265598/1,272093/-1            a combo as IBKR's orders write it (``conidex``)

``docs/contracts.md`` tells each of them.
"""

from bt_ibkr.services.datanames.parsing import parse_dataname
from bt_ibkr.services.datanames.query import ContractQuery, RollBy, RollRule
from bt_ibkr.services.datanames.writing import format_query

__all__ = ["ContractQuery", "RollBy", "RollRule", "format_query", "parse_dataname"]
