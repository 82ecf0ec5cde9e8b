"""What strategies ask of the market: contracts, streams, history, scans. Runs on the session's loop.

Requests that name an instrument obey the grant's ``instruments``; of what answers with several, others are left out.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from bt_ibkr.errors import SessionError
from bt_ibkr.hub.instruments import Instruments
from bt_ibkr.hub.peers import Peer
from bt_ibkr.hub.publisher import Topic
from bt_ibkr.hub.requests import Missed, Repeated, Subscribe, Subscribed, SubscribeDepth
from bt_ibkr.model.calendar import TradingDay
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import Bar, Quote
from bt_ibkr.model.scanner import ScannerParameters, ScanRequest, ScanRow
from bt_ibkr.services.chains import ChainRequest
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.history import HistoryRequest
from bt_ibkr.wire.contract_rules import ContractRules

if TYPE_CHECKING:
    from bt_ibkr.hub.server import HubServer

#: Requests for history that one strategy may have under way: all share the same limits.
_HISTORIES: Final = 2
#: Ticks repeated in one answer.
_MOST_REPEATED: Final = 2000


class Reading:
    """See the module.

    Args:
        server: Whose.
        instruments: What may be read.
    """

    def __init__(self, server: HubServer, instruments: Instruments) -> None:
        self._server = server
        self._brokerage = server.brokerage
        self._desk = server.desk
        self._instruments = instruments
        self._histories: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_HISTORIES))

    async def resolve(self, peer: Peer, query: ContractQuery) -> Contract:
        """See ``Connection.resolve``."""
        contract = await self._brokerage.resolve(query)
        await self._instruments.check(peer, contract)
        for one in (contract, *(self._brokerage.contracts.known(leg.conid) for leg in contract.legs)):
            if one is not None:
                self._desk.know(one)
        return contract

    async def availability(self, peer: Peer, contract: Contract) -> str:
        """See ``Connection.availability``."""
        await self._instruments.check(peer, contract)
        return await self._brokerage.availability(contract)

    async def contract_rules(self, peer: Peer, contract: Contract) -> ContractRules:
        """See ``Connection.contract_rules``."""
        await self._instruments.check(peer, contract)
        return await self._brokerage.contract_rules(contract)

    async def schedule(self, peer: Peer, contract: Contract) -> tuple[TradingDay, ...]:
        """See ``Connection.schedule``."""
        await self._instruments.check(peer, contract)
        return await self._brokerage.schedules.days(contract.conid)

    async def chain(self, peer: Peer, request: ChainRequest) -> tuple[Contract, ...]:
        """See ``Connection.chain``."""
        chain = await self._brokerage.chain(request)
        for contract in chain:
            self._desk.know(contract)
        return tuple(contract for contract in chain if peer.grant.allows(contract))

    async def scan(self, peer: Peer, request: ScanRequest) -> tuple[ScanRow, ...]:
        """See ``Connection.scan``."""
        rows = await self._brokerage.scan(request)
        return tuple(row for row in rows if peer.grant.allows_words(row.symbol, row.security_type, row.conid))

    async def scanner_parameters(self, peer: Peer, body: None) -> ScannerParameters:
        """See ``Connection.scanner_parameters``."""
        return await self._brokerage.scanner_parameters()

    async def quote(self, peer: Peer, contract: Contract) -> Quote | None:
        """See ``Connection.quote``."""
        await self._instruments.check(peer, contract)
        return await self._brokerage.quote(contract)

    async def history(self, peer: Peer, request: HistoryRequest) -> tuple[Bar, ...]:
        """See ``Connection.request_history``."""
        await self._instruments.check(peer, request.contract)
        async with self._histories[peer.session]:
            return tuple(await self._brokerage.bars(request))

    # -- streams -------------------------------------------------------------------------------------

    async def subscribe(self, peer: Peer, wanted: Subscribe) -> Subscribed:
        """See ``Connection.subscribe_ticks``."""
        await self._instruments.check(peer, wanted.contract)
        conflate_s = max(0.0, wanted.conflate_s)
        topic = await self._server.publisher.open(wanted.contract, conflate_s, wanted.extras, peer.session)
        return await self._subscribed(peer, topic)

    async def subscribe_depth(self, peer: Peer, wanted: SubscribeDepth) -> Subscribed:
        """See ``Connection.subscribe_depth``."""
        peer.grant.check_account(peer.name, wanted.account)
        await self._instruments.check(peer, wanted.contract)
        topic = await self._server.publisher.open_depth(wanted.contract, wanted.account, peer.session)
        return await self._subscribed(peer, topic)

    async def _subscribed(self, peer: Peer, topic: Topic) -> Subscribed:
        peer.words.add(topic.word)
        if peer.left:
            # It went while this was under way.
            await self._server.publisher.leave(topic.word, peer.session)
        return Subscribed(topic=topic.word, head=topic.ring.head, last=topic.ring.last())

    async def unsubscribe(self, peer: Peer, word: bytes) -> None:
        """See ``Connection.unsubscribe_ticks`` and ``unsubscribe_depth``."""
        peer.words.discard(word)
        await self._server.publisher.leave(word, peer.session)

    async def missed(self, peer: Peer, missed: Missed) -> Repeated:
        """Messages of the ring, once more."""
        topic = self._server.publisher.find(missed.topic)
        if topic is None or missed.topic not in peer.words:
            raise SessionError("The hub has no such stream for this strategy.", remedy="Subscribe anew.")
        first, messages = topic.ring.range(missed.first, missed.last, _MOST_REPEATED)
        return Repeated(topic=missed.topic, first=first, messages=messages)
