"""What is known of instruments, by conid: from feeds, from combos' legs, and from positions without a feed."""

from __future__ import annotations

from typing import Any

from bt_ibkr.feeds.ibkr_data import contract_of
from bt_ibkr.model.contract import Contract, Leg, SecurityType
from bt_ibkr.model.portfolio import Position

#: Whose cash moves by profit and loss, not by what they cost.
_MARGINED = frozenset({SecurityType.FUTURE, SecurityType.CFD})
#: Options are by the hundred, where nothing tells the multiplier.
_BY_THE_HUNDRED = frozenset({SecurityType.OPTION, SecurityType.FUTURE_OPTION})


class Instruments:
    """Contracts, feeds and prices; nothing of it is asked of IBKR here."""

    def __init__(self) -> None:
        #: The first feed that trades the instrument.
        self.datas: dict[int, Any] = {}
        self._contracts: dict[int, Contract] = {}
        self._positions: dict[int, Position] = {}

    def add(self, data: Any) -> Contract:
        """Take in a feed; the contract it trades."""
        contract = contract_of(data)
        self.datas.setdefault(contract.conid, data)
        self._contracts.setdefault(contract.conid, contract)
        return contract

    def learn(self, contract: Contract) -> None:
        """Take in a contract that no feed need follow."""
        self._contracts.setdefault(contract.conid, contract)

    def knows(self, conid: int) -> bool:
        """Whether its contract is known."""
        return conid in self._contracts

    def note(self, position: Position) -> None:
        """Remember what IBKR tells with a position."""
        self._positions[position.conid] = position

    def legs(self, conid: int) -> tuple[Leg, ...]:
        """Of a combo; empty for anything else."""
        contract = self._contracts.get(conid)
        return () if contract is None else contract.legs

    def leg_points(self, conid: int, leg: Leg) -> float:
        """Points of a combo's price for one point of a leg's."""
        return leg.ratio * self.multiplier(leg.conid) / self.multiplier(conid)

    def security_type(self, conid: int) -> SecurityType:
        if (contract := self._contracts.get(conid)) is not None:
            return contract.security_type
        told = self._positions.get(conid)
        return SecurityType.from_wire(told.security_type if told is not None else None)

    def margined(self, conid: int) -> bool:
        """Whether its cash moves by profit and loss only."""
        return self.security_type(conid) in _MARGINED

    def multiplier(self, conid: int) -> float:
        """Units of currency per point of its price."""
        if (contract := self._contracts.get(conid)) is not None:
            return contract.multiplier
        return 100.0 if self.security_type(conid) in _BY_THE_HUNDRED else 1.0

    def currency(self, conid: int) -> str:
        if (contract := self._contracts.get(conid)) is not None:
            return contract.currency
        told = self._positions.get(conid)
        return told.currency if told is not None else ""

    def price(self, conid: int, otherwise: float) -> float:
        """The last bar's close, else the price that came with the position."""
        data = self.datas.get(conid)
        if data is not None and len(data):
            return float(data.close[0])
        told = self._positions.get(conid)
        mark = None if told is None else told.market_price
        return otherwise if mark is None else mark

    def name(self, conid: int) -> str:
        """For people."""
        if (contract := self._contracts.get(conid)) is not None:
            return contract.symbol
        told = self._positions.get(conid)
        return told.symbol if told is not None and told.symbol else f"contract {conid}"
