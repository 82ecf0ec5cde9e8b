"""Combos: several contracts that trade as one."""

from __future__ import annotations

from collections.abc import Sequence

from bt_ibkr.errors import ContractError
from bt_ibkr.model.contract import Contract, Leg, SecurityType, combo_key, combo_multiplier
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.wire.conidex import SPREAD_CONIDS

#: What IBKR combines.
_LEG_TYPES = frozenset(
    {
        SecurityType.STOCK,
        SecurityType.FUND,
        SecurityType.CFD,
        SecurityType.WARRANT,
        SecurityType.OPTION,
        SecurityType.FUTURE,
        SecurityType.FUTURE_OPTION,
        SecurityType.COMMODITY,
    }
)


def combo_contract(query: ContractQuery, parts: Sequence[tuple[Contract, int]]) -> Contract:
    """The contract that trades these legs as one.

    Its price is the sum of ratio times price of the legs, in the unit that ``combo_multiplier`` tells, and may be
    below 0. Its key is the same for the same legs in every session; nothing at IBKR has it.

    Args:
        query: The combo as the user named it.
        parts: Each leg's contract and ratio.

    Raises:
        ContractError: A leg stands twice or cannot be a leg, the legs are of several currencies, IBKR names no
            spread conid for their currency, or the exchange is missing where it has to be named.
    """
    legs = tuple(Leg(contract.conid, ratio) for contract, ratio in parts)
    for contract, _ in parts:
        if contract.security_type not in _LEG_TYPES:
            raise ContractError(
                f"{query.text!r}: {contract.describe()} cannot be a leg of a combo.",
                remedy="Combos are made of stocks, options and futures.",
            )
    if len({leg.conid for leg in legs}) < len(legs):
        raise ContractError(
            f"{query.text!r} names one contract twice.", remedy="Give each leg once, with its whole ratio."
        )
    currencies = sorted({contract.currency for contract, _ in parts})
    if len(currencies) > 1:
        raise ContractError(
            f"{query.text!r}: the legs are priced in {' and '.join(currencies)}.",
            remedy="IBKR combines contracts of one currency.",
        )
    spread_id = query.spread_id or SPREAD_CONIDS.get(currencies[0], 0)
    if not spread_id:
        raise ContractError(
            f"{query.text!r}: IBKR names no spread conid for {currencies[0]}.",
            remedy="If you know it, write the combo as SPREAD;;;CONID/RATIO,CONID/RATIO.",
        )
    if currencies[0] != "USD" and query.exchange in ("", "SMART"):
        raise ContractError(
            f"{query.text!r}: IBKR routes no combo in {currencies[0]} by itself.",
            remedy="Name the exchange after the last leg, as @SMFE.",
        )
    return Contract(
        conid=combo_key(legs),
        symbol=",".join(f"{contract.symbol}*{ratio}" for contract, ratio in parts),
        security_type=SecurityType.COMBO,
        exchange=query.exchange or "SMART",
        currency=currencies[0],
        multiplier=combo_multiplier((ratio, contract.multiplier) for contract, ratio in parts),
        tick_size=min(contract.tick_size for contract, _ in parts),
        legs=legs,
        spread_id=spread_id,
        time_zone=parts[0][0].time_zone,
    )
