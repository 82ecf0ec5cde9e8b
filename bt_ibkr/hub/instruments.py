"""Whether a strategy may use an instrument, by what the hub knows of it. Runs on the session's loop.

A contract that comes with a request is the sender's word: a grant is checked against the hub's own look-up.
"""

from __future__ import annotations

from collections.abc import Sequence

from bt_ibkr.connection.brokerage import Brokerage
from bt_ibkr.hub.peers import Peer
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.services.datanames import parse_dataname


class Instruments:
    """See the module.

    Args:
        brokerage: The session.
    """

    def __init__(self, brokerage: Brokerage) -> None:
        self._brokerage = brokerage

    async def check(self, peer: Peer, contract: Contract) -> None:
        """Of a combo each leg.

        Raises:
            NotArmedError: It may not use it.
            BtIbkrError: It could not be looked up.
        """
        await self._check(peer, [leg.conid for leg in contract.legs] or [contract.conid])

    async def check_ticket(self, peer: Peer, ticket: OrderTicket) -> None:
        """As ``check``, of an order."""
        await self._check(peer, [leg.conid for leg in ticket.legs] or [ticket.contract_id])

    async def _check(self, peer: Peer, conids: Sequence[int]) -> None:
        if not peer.grant.instruments:
            return
        for conid in conids:
            contract = self._brokerage.contracts.known(conid)
            if contract is None:
                # Since a hub was restarted nobody may have asked for it.
                contract = await self._brokerage.resolve(parse_dataname(f"conid:{conid}"))
            peer.grant.check_instrument(peer.name, contract)
