"""Requests of strategies: checked, done, answered. Runs on the session's loop."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from bt_ibkr.connection.interface import AccountSnapshot
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.errors import (
    BtIbkrError,
    NotArmedError,
    OrderRefusedError,
    SessionError,
    UsageError,
    WireError,
)
from bt_ibkr.hub.ages import awake_or_asleep_s
from bt_ibkr.hub.books import BookView, Transfer
from bt_ibkr.hub.fair import FairQueue
from bt_ibkr.hub.names import HUB_SUFFIX, owner_of
from bt_ibkr.hub.peers import Peer
from bt_ibkr.hub.protocol import Request, problem_of, read
from bt_ibkr.hub.requests import (
    REQUESTS,
    Attach,
    CatchUp,
    CaughtUp,
    Halt,
    Missed,
    Modify,
    Place,
    ProgressNow,
    Repeated,
    SetExpiry,
    Subscribe,
    Subscribed,
)
from bt_ibkr.hub.status import HubStatus
from bt_ibkr.model.calendar import TradingDay
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.intent import OrderIntent, parse_key
from bt_ibkr.model.market import Bar, Quote
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.model.scanner import ScannerParameters, ScanRequest, ScanRow
from bt_ibkr.model.trading import Trading
from bt_ibkr.services.chains import ChainRequest
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.services.history import HistoryRequest
from bt_ibkr.wire.contract_rules import ContractRules
from bt_ibkr.wire.order_answers import WhatIf

if TYPE_CHECKING:
    from bt_ibkr.hub.server import HubServer

_log = logging.getLogger(__name__)

#: Requests for history that one strategy may have under way: all share the same limits.
_HISTORIES: Final = 2
#: Ticks repeated in one answer.
_MOST_REPEATED: Final = 2000

Handler = Callable[[Peer, Any], Coroutine[Any, Any, Any]]


class _Placing:
    """A submission until it is on record."""

    __slots__ = ("intents", "peer", "settled")

    def __init__(self, peer: Peer, intents: tuple[OrderIntent, ...]) -> None:
        self.peer = peer
        self.intents = intents
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Dispatch:
    """Finds who does what.

    Args:
        server: Whose.
    """

    def __init__(self, server: HubServer) -> None:
        self._server = server
        self._brokerage = server.brokerage
        self._desk = server.desk
        self._queue = FairQueue()
        self._histories: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_HISTORIES))
        self._tasks: set[asyncio.Task[None]] = set()
        #: Orders that wait for their turn, until they are on record.
        self._placing: dict[str, _Placing] = {}
        self._handlers: dict[str, Handler] = {
            "resolve": self._resolve,
            "availability": self._availability,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "quote": self._quote,
            "scan": self._scan,
            "scanner-parameters": self._scanner_parameters,
            "contract-rules": self._contract_rules,
            "schedule": self._schedule,
            "chain": self._chain,
            "missed": self._missed,
            "history": self._history,
            "attach": self._attach,
            "catch-up": self._catch_up,
            "place": self._place,
            "modify": self._modify,
            "set-expiry": self._set_expiry,
            "cancel": self._cancel,
            "reconcile": self._reconcile,
            "what-if": self._what_if,
            "halt": self._halt,
            "take-over": self._take_over,
            "metrics": self._metrics,
            "progress": self._progress,
            "renew-due": self._renew_due,
            "status": self._status,
            "books": self._books,
            "transfer": self._transfer,
        }

    def take(self, peer: Peer, request: Request) -> None:
        """One request; it is answered in any case."""
        kind = REQUESTS.get(request.kind)
        handler = self._handlers.get(request.kind)
        if kind is None or handler is None:
            self._server.channel.harm.malformed += 1
            problem = UsageError(f"A hub of this version knows no request {request.kind!r}.")
            peer.reply(request.number, problem=problem_of(problem))
            return
        try:
            if kind.trades:
                peer.grant.check_trading(peer.name)
                if self._server.failure is not None:
                    raise self._server.failure
            if peer.hello.role == "observer" and not kind.observers:
                raise NotArmedError(f"An observer may not ask for {request.kind!r}.")
            body = read(request.body, kind.body)
        except BtIbkrError as problem:
            if isinstance(problem, WireError):
                self._server.channel.harm.malformed += 1
            else:
                self._server.channel.harm.unauthorised += 1
            peer.refused += 1
            peer.reply(request.number, problem=problem_of(problem))
            return
        if request.kind == "place":
            body = (body, request.asked_s)
        task = asyncio.get_running_loop().create_task(self._do(peer, request, handler, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, peer: Peer, request: Request, handler: Handler, body: Any) -> None:
        peer.in_flight += 1
        try:
            answer = await handler(peer, body)
        except BtIbkrError as problem:
            if isinstance(problem, NotArmedError):
                self._server.channel.harm.unauthorised += 1
                peer.refused += 1
            peer.reply(request.number, problem=problem_of(problem))
        except Exception as problem:  # noqa: BLE001 - whoever asked must not wait for ever
            _log.exception("hub-request-failed kind=%s name=%s", request.kind, peer.name)
            failed = SessionError(f"The hub failed at {request.kind!r}: {problem!r}.", remedy="See its log.")
            peer.reply(request.number, problem=problem_of(failed))
        else:
            peer.reply(request.number, answer)
        finally:
            peer.in_flight -= 1

    async def close(self) -> None:
        """Break off what is under way; it is on record."""
        await self._queue.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- market data ---------------------------------------------------------------------------------

    async def _resolve(self, peer: Peer, query: ContractQuery) -> Contract:
        contract = await self._brokerage.resolve(query)
        peer.grant.check_instrument(peer.name, contract)
        self._desk.know(contract)
        for leg in contract.legs:
            known = self._brokerage.contracts.known(leg.conid)
            if known is not None:
                peer.grant.check_instrument(peer.name, known)
                self._desk.know(known)
        return contract

    async def _availability(self, peer: Peer, contract: Contract) -> str:
        return await self._brokerage.availability(contract)

    async def _subscribe(self, peer: Peer, wanted: Subscribe) -> Subscribed:
        peer.grant.check_instrument(peer.name, wanted.contract)
        conflate_s = max(0.0, wanted.conflate_s)
        topic = await self._server.publisher.open(wanted.contract, conflate_s, wanted.extras, peer.session)
        peer.words.add(topic.word)
        if peer.left:
            # It went while this was under way.
            await self._server.publisher.leave(topic.word, peer.session)
        return Subscribed(topic=topic.word, head=topic.ring.head, last=topic.ring.last())

    async def _unsubscribe(self, peer: Peer, word: bytes) -> None:
        peer.words.discard(word)
        await self._server.publisher.leave(word, peer.session)

    async def _quote(self, peer: Peer, contract: Contract) -> Quote | None:
        peer.grant.check_instrument(peer.name, contract)
        return await self._brokerage.quote(contract)

    async def _scan(self, peer: Peer, request: ScanRequest) -> tuple[ScanRow, ...]:
        return await self._brokerage.scan(request)

    async def _scanner_parameters(self, peer: Peer, body: None) -> ScannerParameters:
        return await self._brokerage.scanner_parameters()

    async def _contract_rules(self, peer: Peer, contract: Contract) -> ContractRules:
        return await self._brokerage.contract_rules(contract)

    async def _schedule(self, peer: Peer, contract: Contract) -> tuple[TradingDay, ...]:
        return await self._brokerage.schedules.days(contract.conid)

    async def _chain(self, peer: Peer, request: ChainRequest) -> tuple[Contract, ...]:
        chain = await self._brokerage.chain(request)
        for contract in chain:
            self._desk.know(contract)
        return tuple(contract for contract in chain if peer.grant.allows(contract))

    async def _missed(self, peer: Peer, missed: Missed) -> Repeated:
        topic = self._server.publisher.find(missed.topic)
        if topic is None or missed.topic not in peer.words:
            raise SessionError("The hub has no such stream for this strategy.", remedy="Subscribe anew.")
        first, messages = topic.ring.range(missed.first, missed.last, _MOST_REPEATED)
        return Repeated(topic=missed.topic, first=first, messages=messages)

    async def _history(self, peer: Peer, request: HistoryRequest) -> tuple[Bar, ...]:
        peer.grant.check_instrument(peer.name, request.contract)
        async with self._histories[peer.session]:
            return tuple(await self._brokerage.bars(request))

    # -- trading -------------------------------------------------------------------------------------

    async def _attach(self, peer: Peer, wanted: Attach) -> AccountSnapshot:
        peer.grant.check_account(peer.name, wanted.account)
        # Orders that a process of its name before it has placed count in what it is told, and in its numbers.
        await self._all_recorded(peer.name)
        known = peer.accounts.get(wanted.account)
        peer.accounts[wanted.account] = wanted.external
        self._desk.telling.told_anew(peer.name)
        try:
            snapshot = self._desk.view.snapshot(peer, wanted.account)
        except BtIbkrError:
            if known is None:
                del peer.accounts[wanted.account]
            raise
        self._server.members.vanishing.informed(peer)
        return snapshot

    async def _catch_up(self, peer: Peer, wanted: CatchUp) -> CaughtUp:
        peer.grant.check_account(peer.name, wanted.account)
        await self._all_recorded(peer.name)
        peer.accounts[wanted.account] = wanted.external
        caught_up = self._desk.view.caught_up(peer, wanted.account, wanted.keys)
        self._server.members.vanishing.informed(peer)
        return caught_up

    async def _place(self, peer: Peer, asked: tuple[Place, float]) -> None:
        """Answered once the orders are on record, or were refused; what becomes of them is told."""
        place, asked_s = asked
        age_s = awake_or_asleep_s() - asked_s
        intents = place.intents
        self._check_place(peer, intents)
        waiting = [one.settled for intent in intents if (one := self._placing.get(intent.key)) is not None]
        if waiting:
            # Asked again while the first asking waits for its turn.
            await asyncio.wait(waiting)
        if self._desk.recorded(intents):
            # Asked again, because the answer was lost: it is on record, and whoever asks hears where it stands.
            for intent in intents:
                self._desk.tell_again(intent.key)
            return
        # Not the other way round: what is no number is no age.
        if not age_s <= self._server.settings.stale_s:
            raise OrderRefusedError(
                f"The order reached the hub {age_s:.1f} s after it was placed, and was not sent.",
                remedy="Decide anew; stale_s of the hub's configuration sets the time.",
            )
        if asked_s < peer.informed_s:
            raise OrderRefusedError(
                f"{peer.name} had vanished, and placed this before it heard what its on_vanish had done: not sent.",
                remedy="Decide anew: its orders were cancelled, its positions may be closed.",
            )
        peer.count_orders(len(intents))
        placing = _Placing(peer, intents)
        self._placing.update((intent.key, placing) for intent in intents)
        self._queue.put(peer.name, placing, lambda: self._send(placing))
        await placing.settled

    async def _send(self, placing: _Placing) -> None:
        """Its turn has come."""
        placing.peer.in_flight += 1
        try:
            await self._desk.place(placing.intents, lambda: self._settle(placing))
        except Exception as problem:
            if placing.settled.done():
                # It is on record, and may have been sent: the order desk tells what became of it.
                raise
            _log.exception("hub-order-failed key=%s", placing.intents[0].key)
            self._settle(placing, OrderRefusedError(f"The hub failed, and nothing was sent: {problem}"))
        finally:
            placing.peer.in_flight -= 1
            self._settle(placing)

    def _settle(self, placing: _Placing, problem: BtIbkrError | None = None) -> None:
        """It is on record, or it was refused."""
        for intent in placing.intents:
            self._placing.pop(intent.key, None)
        if placing.settled.done():
            return
        if problem is None:
            placing.settled.set_result(None)
        else:
            placing.settled.set_exception(problem)

    async def _all_recorded(self, name: str) -> None:
        """Until no order of a strategy waits for its turn or to be written down."""
        while waiting := [one.settled for key, one in self._placing.items() if owner_of(key) == name]:
            await asyncio.wait(waiting)

    def forget(self, peer: Peer) -> None:
        """The process is gone and another one has its name: what of its orders has not begun is not sent."""
        for placing in {id(one): one for one in self._placing.values() if one.peer is peer}.values():
            self._withdraw(placing, "its process is gone")

    def _withdraw(self, placing: _Placing, why: str) -> bool:
        """Take orders back that wait for their turn; whether they did."""
        if not self._queue.withdraw(placing.peer.name, placing):
            return False
        _log.warning("hub-order-withdrawn key=%s cause=%s", placing.intents[0].key, why)
        self._settle(placing, OrderRefusedError(f"The order waited for its turn at the hub, and {why}."))
        return True

    def _check_place(self, peer: Peer, intents: tuple[OrderIntent, ...]) -> None:
        if not intents:
            raise UsageError("A submission without orders.")
        for intent in intents:
            self._check_owner(peer, intent.key)
            parts = parse_key(intent.key)
            if parts is None or parts.name.endswith(HUB_SUFFIX) or parts.name != intent.strategy:
                raise UsageError(
                    f"The order {intent.key} is not of {intent.strategy!r}.",
                    remedy="A key begins with the name of the order's strategy.",
                )
            account = intent.ticket.account
            peer.grant.check_account(peer.name, account)
            if account not in peer.accounts:
                raise NotArmedError(f"Strategy {peer.name} has not attached account {account}.")
            self._check_ticket(peer, intent.ticket)
        if len({intent.ticket.account for intent in intents}) > 1:
            raise UsageError("The orders of one submission are of several accounts.")

    def _check_owner(self, peer: Peer, key: str) -> None:
        if owner_of(key) != peer.name:
            raise NotArmedError(
                f"The order {key} is not of strategy {peer.name}.",
                remedy="Orders of a strategy carry the name under which it joined the hub.",
            )

    def _check_ticket(self, peer: Peer, ticket: OrderTicket) -> None:
        if not peer.grant.instruments:
            return
        for conid in [leg.conid for leg in ticket.legs] or [ticket.contract_id]:
            contract = self._brokerage.contracts.known(conid)
            if contract is None:
                raise NotArmedError(f"Strategy {peer.name} has not looked up the contract {conid}.")
            peer.grant.check_instrument(peer.name, contract)

    async def _modify(self, peer: Peer, wanted: Modify) -> None:
        self._check_owner(peer, wanted.key)
        self._check_ticket(peer, wanted.ticket)
        if wanted.ticket.account not in peer.accounts:
            raise NotArmedError(f"Strategy {peer.name} has not attached account {wanted.ticket.account}.")
        await self._recorded(wanted.key)
        await self._desk.modify(wanted.key, wanted.ticket)

    async def _set_expiry(self, peer: Peer, wanted: SetExpiry) -> None:
        self._check_owner(peer, wanted.key)
        await self._brokerage.set_expiry(wanted.key, wanted.expires_ns)

    async def _cancel(self, peer: Peer, key: str) -> None:
        """Cancellations wait for nobody; what has not begun to be placed never is."""
        self._check_owner(peer, key)
        placing = self._placing.get(key)
        if placing is not None and key == placing.intents[0].key and self._withdraw(placing, "was cancelled"):
            return
        await self._recorded(key)
        await self._desk.cancel(key)

    async def _recorded(self, key: str) -> None:
        """An order that waits for its turn is on record first."""
        waiting = self._placing.get(key)
        if waiting is not None:
            await asyncio.wait((waiting.settled,))

    async def _reconcile(self, peer: Peer, account: str) -> None:
        peer.grant.check_account(peer.name, account)
        await self._brokerage.reconcile(account)

    async def _what_if(self, peer: Peer, ticket: OrderTicket) -> WhatIf:
        # The answer tells the account's equity and margin.
        peer.grant.check_account(peer.name, ticket.account)
        if ticket.account not in self._desk.accounts:
            raise NotArmedError(f"The hub does not trade in account {ticket.account}.")
        self._check_ticket(peer, ticket)
        return await self._brokerage.what_if(ticket)

    async def _halt(self, peer: Peer, wanted: Halt) -> None:
        """Everybody may halt; only an administrator lets orders leave again, or closes what is others'."""
        mode = wanted.state.mode
        eased = mode is not Trading.HALTED and self._desk.journal.trading_state().mode is Trading.HALTED
        if mode is Trading.ACTIVE or eased or wanted.flatten:
            peer.grant.check_admin(peer.name, "resume trading or close all positions")
        await self._brokerage.halt(wanted.state, cancel_open=wanted.cancel_open, flatten=wanted.flatten)
        if wanted.flatten:
            self._desk.sharing.net()

    async def _take_over(self, peer: Peer, body: None) -> None:
        peer.grant.check_admin(peer.name, "take the session over")
        if self._brokerage.session is not None:
            self._brokerage.session.take_over()

    # -- figures -------------------------------------------------------------------------------------

    async def _metrics(self, peer: Peer, body: None) -> Metrics:
        return await self._brokerage.count()

    async def _progress(self, peer: Peer, body: None) -> ProgressNow:
        progress = self._brokerage.progress()
        return ProgressNow(
            port=progress.port,
            frames=progress.frames,
            told=peer.told,
            heads=self._server.publisher.heads(peer.words),
            # This request is one of them.
            in_flight=peer.in_flight - 1 + self._brokerage.pending,
            stream_ns=self._brokerage.stream_ns(),
        )

    async def _renew_due(self, peer: Peer, body: None) -> None:
        await self._brokerage.renew_due()

    async def _status(self, peer: Peer, body: None) -> HubStatus:
        return await self._server.status()

    async def _books(self, peer: Peer, body: None) -> tuple[BookView, ...]:
        return self._desk.books()

    async def _transfer(self, peer: Peer, wanted: Transfer) -> None:
        peer.grant.check_admin(peer.name, "move positions between books")
        self._desk.transfer(wanted)
