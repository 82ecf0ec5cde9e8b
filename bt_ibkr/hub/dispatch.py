"""Requests of strategies: checked, done, answered. Runs on the session's loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

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
from bt_ibkr.hub.instruments import Instruments
from bt_ibkr.hub.overview import books_for, overview, visible_lines
from bt_ibkr.hub.peers import Peer
from bt_ibkr.hub.protocol import Request, problem_of, read
from bt_ibkr.hub.reading import Reading
from bt_ibkr.hub.requests import (
    REQUESTS,
    Attach,
    CatchUp,
    CaughtUp,
    Halt,
    ProgressNow,
)
from bt_ibkr.hub.status import HubStatus
from bt_ibkr.hub.submissions import Submissions
from bt_ibkr.model.order import OrderTicket
from bt_ibkr.model.trading import Trading
from bt_ibkr.wire.order_answers import WhatIf

if TYPE_CHECKING:
    from bt_ibkr.hub.server import HubServer

_log = logging.getLogger(__name__)

Handler = Callable[[Peer, Any], Coroutine[Any, Any, Any]]


class Dispatch:
    """Finds who does what.

    Args:
        server: Whose.
    """

    def __init__(self, server: HubServer) -> None:
        self._server = server
        self._brokerage = server.brokerage
        self._desk = server.desk
        self._tasks: set[asyncio.Task[None]] = set()
        self._instruments = Instruments(server.brokerage)
        reading = Reading(server, self._instruments)
        orders = self._submissions = Submissions(server, self._instruments)
        self._handlers: dict[str, Handler] = {
            "resolve": reading.resolve,
            "availability": reading.availability,
            "subscribe": reading.subscribe,
            "subscribe-depth": reading.subscribe_depth,
            "unsubscribe": reading.unsubscribe,
            "quote": reading.quote,
            "scan": reading.scan,
            "scanner-parameters": reading.scanner_parameters,
            "contract-rules": reading.contract_rules,
            "schedule": reading.schedule,
            "chain": reading.chain,
            "missed": reading.missed,
            "history": reading.history,
            "attach": self._attach,
            "catch-up": self._catch_up,
            "place": orders.place,
            "modify": orders.modify,
            "set-expiry": orders.set_expiry,
            "cancel": orders.cancel,
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
        if kind.ages:
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

    def forget(self, peer: Peer) -> None:
        """See ``Submissions``."""
        self._submissions.forget(peer)

    async def close(self) -> None:
        """Break off what is under way; it is on record."""
        await self._submissions.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- trading -------------------------------------------------------------------------------------

    async def _attach(self, peer: Peer, wanted: Attach) -> AccountSnapshot:
        peer.grant.check_account(peer.name, wanted.account)
        # Orders that a process of its name before it has placed count in what it is told, and in its numbers.
        await self._submissions.all_recorded(peer.name)
        known = peer.accounts.get(wanted.account)
        peer.accounts[wanted.account] = wanted.external
        self._desk.telling.told_anew(peer.name)
        try:
            snapshot = self._desk.view.snapshot(peer, wanted.account)
        except BtIbkrError:
            if known is None:
                del peer.accounts[wanted.account]
            raise
        self._submissions.began(peer, dict(snapshot.sequences))
        self._server.members.vanishing.informed(peer)
        return snapshot

    async def _catch_up(self, peer: Peer, wanted: CatchUp) -> CaughtUp:
        peer.grant.check_account(peer.name, wanted.account)
        await self._submissions.all_recorded(peer.name)
        peer.accounts[wanted.account] = wanted.external
        keys = [key for key in wanted.keys if self._submissions.is_own(peer, key)]
        caught_up = self._desk.view.caught_up(peer, wanted.account, keys)
        self._server.members.vanishing.informed(peer)
        return caught_up

    async def _reconcile(self, peer: Peer, account: str) -> None:
        peer.grant.check_account(peer.name, account)
        await self._brokerage.reconcile(account)

    async def _what_if(self, peer: Peer, ticket: OrderTicket) -> WhatIf:
        # The answer tells the account's equity and margin.
        peer.grant.check_account(peer.name, ticket.account)
        if ticket.account not in self._desk.accounts:
            raise NotArmedError(f"The hub does not trade in account {ticket.account}.")
        await self._instruments.check_ticket(peer, ticket)
        return await self._brokerage.what_if(ticket)

    async def _halt(self, peer: Peer, asked: tuple[Halt, float]) -> None:
        """Everybody may halt; only an administrator lets orders leave again, or closes what is others'."""
        wanted, asked_s = asked
        age_s = awake_or_asleep_s() - asked_s
        mode = wanted.state.mode
        eased = mode is not Trading.HALTED and self._desk.journal.trading_state().mode is Trading.HALTED
        if mode is Trading.ACTIVE or eased or wanted.flatten:
            peer.grant.check_admin(peer.name, "resume trading or close all positions")
        if (mode is Trading.ACTIVE or eased) and not age_s <= self._server.settings.stale_s:
            raise OrderRefusedError(
                f"Trading was to be resumed {age_s:.1f} s ago, when nobody heard it: it was not.",
                remedy="Decide anew.",
            )
        await self._brokerage.halt(wanted.state, cancel_open=wanted.cancel_open, flatten=wanted.flatten)
        if wanted.flatten:
            self._desk.sharing.net()

    async def _take_over(self, peer: Peer, body: None) -> None:
        peer.grant.check_admin(peer.name, "take the session over")
        if self._brokerage.session is not None:
            self._brokerage.session.take_over()

    # -- figures -------------------------------------------------------------------------------------

    async def _metrics(self, peer: Peer, body: None) -> Metrics:
        metrics = await self._brokerage.count()
        return msgspec.structs.replace(metrics, lines=visible_lines(self._server, peer, metrics.lines))

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
        return await overview(self._server, peer)

    async def _books(self, peer: Peer, body: None) -> tuple[BookView, ...]:
        return books_for(self._server, peer)

    async def _transfer(self, peer: Peer, wanted: Transfer) -> None:
        peer.grant.check_admin(peer.name, "move positions between books")
        self._desk.transfer(wanted)
