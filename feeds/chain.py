"""An option chain as feeds, one for each contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bt_ibkr.errors import LinesError, UsageError
from bt_ibkr.feeds.ibkr_data import IBKRData
from bt_ibkr.services.chains import ChainProgress, ChainRequest

if TYPE_CHECKING:
    from bt_ibkr.store import IBKRStore


class ChainKey(NamedTuple):
    """Which contract of a chain: its last day ``YYYYMMDD``, its strike, and ``C`` or ``P``."""

    expiry: str
    strike: float
    right: str


def chain_feeds(
    store: IBKRStore, request: ChainRequest, progress: ChainProgress | None = None, **feed: Any
) -> dict[ChainKey, IBKRData]:
    """A feed for each contract of a chain, by day, strike and right.

    Args:
        store: Whose feeds they are; it is open.
        progress: See ``Connection.chain``.
        feed: Parameters of each feed, as ``IBKRData`` has them.

    Raises:
        ContractNotFoundError: There is no such chain.
        LinesError: The chain has more contracts than market-data lines are left.
        UsageError: Contracts of several trading classes end on the same day at the same strike.
    """
    contracts = store.connection.chain(request, progress)
    lines = store.connection.metrics().lines
    name = request.underlying.describe()
    if len(contracts) > lines.free and not lines.polls:
        raise LinesError(
            f"The chain of {name} has {len(contracts)} contracts, and {lines.free} of {lines.limit} market-data "
            "lines are left.",
            remedy="Narrow it by months, around, lowest, highest or right; or set lines_overflow='snapshots' to read "
            "what is beyond the lines every few seconds.",
        )
    found: dict[ChainKey, IBKRData] = {}
    classes: dict[ChainKey, str] = {}
    for one in contracts:
        key = ChainKey(one.last_trade_date or "", one.strike or 0.0, one.right or "")
        if key in found:
            both = sorted({classes[key], one.trading_class})
            raise UsageError(
                f"The chain of {name} has two contracts {key.expiry} {key.strike:g} {key.right}: "
                f"{' and '.join(both)}.",
                remedy="Say which by trading_class.",
            )
        classes[key] = one.trading_class
        where = "" if one.exchange == "SMART" else f"@{one.exchange}"
        made = store.getdata(dataname=f"conid:{one.conid}{where}", **feed)
        # A name that tells the contract, for plots and for `getdatabyname`.
        made._name = one.describe()
        found[key] = made
    return found
