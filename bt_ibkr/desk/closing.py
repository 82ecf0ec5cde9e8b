"""What has to be traded so that nothing is left of positions: one place for all who close some.

The kill switch, the command line and a hub that winds a strategy up close by market orders that protect. Most
positions are closed by the opposite side. ForecastEx takes no orders to sell: a position in one answer is closed by
buying the other, and whoever holds both in the same size holds nothing that could still win or lose.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from decimal import Decimal

import msgspec

from bt_ibkr.errors import BtIbkrError
from bt_ibkr.model.contract import FORECASTEX, SecurityType
from bt_ibkr.model.intent import OrderIntent, parse_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side, TimeInForce
from bt_ibkr.model.portfolio import Position
from bt_ibkr.services.contracts import ContractService
from bt_ibkr.services.datanames import parse_dataname

_log = logging.getLogger(__name__)

#: The contract by whose purchase a position is closed; ``None`` for one that can be sold.
Opposite = Callable[[Position], Awaitable[int | None]]


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """One position, and what closes it.

    Attributes:
        position: What is held.
        conid, side, quantity: What is to be traded.
        opposite: ``conid`` is the other answer of the same question.
    """

    position: Position
    conid: int
    side: Side
    quantity: Decimal
    opposite: bool = False

    def intent(self, key: str) -> OrderIntent:
        """The order, at the market, of the name in its key.

        Raises:
            OrderRefusedError: The position is of a size or kind that no order can have.
        """
        parts = parse_key(key)
        crypto = self.position.security_type == SecurityType.CRYPTO
        return OrderIntent(
            key=key,
            strategy=key if parts is None else parts.name,
            ticket=OrderTicket(
                account=self.position.account,
                contract_id=self.conid,
                security_type=self.position.security_type,
                exchange=FORECASTEX if self.opposite else "SMART",
                side=self.side,
                order_type=OrderType.MARKET,
                quantity=self.quantity,
                time_in_force=TimeInForce.IMMEDIATE_OR_CANCEL if crypto else TimeInForce.DAY,
                client_order_id=key,
                protective=True,
            ),
        )


async def closes(positions: Iterable[Position], opposite: Opposite) -> AsyncIterator[Close]:
    """What closes positions of one account, as soon as it is known; those that cancel each other out are left.

    Where it cannot be found out whether a position can be sold, selling is tried: IBKR refuses it at worst.
    """
    # What has to be looked up does not hold up the others.
    ordered = sorted(positions, key=lambda one: one.security_type == SecurityType.OPTION)
    held = {one.conid: one for one in ordered if one.quantity}
    paired: set[int] = set()
    for conid, position in held.items():
        if conid in paired:
            continue
        try:
            other = await opposite(position)
        except BtIbkrError as problem:
            _log.warning("closing-contract-unread conid=%d problem=%s", conid, problem)
            other = None
        if other is None:
            side = Side.SELL if position.quantity > 0 else Side.BUY
            yield Close(position=position, conid=conid, side=side, quantity=abs(position.quantity))
            continue
        paired.add(other)
        partner = held.get(other)
        surplus = position.quantity - (Decimal(0) if partner is None else partner.quantity)
        if surplus > 0:
            yield Close(position=position, conid=other, side=Side.BUY, quantity=surplus, opposite=True)
        elif surplus < 0 and partner is not None:
            yield Close(position=partner, conid=conid, side=Side.BUY, quantity=-surplus, opposite=True)


def unpaired(held: Mapping[int, Decimal], pairs: Mapping[int, int]) -> dict[int, Decimal]:
    """Positions without those that cancel each other out, which IBKR nets by itself, sooner or later.

    Args:
        held: Quantities by contract.
        pairs: One answer's contract to the other's.
    """
    left = dict(held)
    for one, other in pairs.items():
        both = min(left.get(one, Decimal(0)), left.get(other, Decimal(0)))
        if both > 0:
            left[one] -= both
            left[other] -= both
    return {conid: quantity for conid, quantity in left.items() if quantity}


class Opposites:
    """Looks up the other answer of event contracts, once each.

    Args:
        contracts: Looks contracts up.
        learned: Told of each pair that was found.
    """

    def __init__(
        self, contracts: ContractService, learned: Callable[[int, int], None] = lambda one, other: None
    ) -> None:
        self._contracts = contracts
        self._learned = learned
        self.pairs: dict[int, int] = {}

    async def __call__(self, position: Position) -> int | None:
        """See ``Opposite``.

        Raises:
            BtIbkrError: It could not be looked up.
        """
        conid = position.conid
        if position.security_type != SecurityType.OPTION:
            return None
        if conid in self.pairs:
            return self.pairs[conid]
        contract = self._contracts.known(conid)
        if contract is None:
            contract = await self._contracts.resolve(parse_dataname(f"conid:{conid}"))
        if not contract.only_bought:
            return None
        event = await self._contracts.lookups.event_details(conid)
        if event is None or event.conid_yes is None or event.conid_no is None:
            return None
        other = event.conid_no if event.conid_yes == conid else event.conid_yes
        self.pairs[conid], self.pairs[other] = other, conid
        self._learned(conid, other)
        return other
