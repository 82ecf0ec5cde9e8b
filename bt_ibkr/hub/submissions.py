"""Orders of strategies at the hub: taken in once, in turn, by whoever owns them. Runs on the session's loop."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from bt_ibkr.errors import BtIbkrError, NotArmedError, OrderRefusedError, UsageError
from bt_ibkr.hub.ages import awake_or_asleep_s
from bt_ibkr.hub.fair import FairQueue
from bt_ibkr.hub.instruments import Instruments
from bt_ibkr.hub.names import HUB_SUFFIX, owner_of
from bt_ibkr.hub.peers import Peer
from bt_ibkr.hub.requests import Modify, Place, SetExpiry
from bt_ibkr.model.intent import OrderIntent, parse_key

if TYPE_CHECKING:
    from bt_ibkr.hub.server import HubServer

_log = logging.getLogger(__name__)

#: So many beginnings of processes are remembered for each name.
_MOST_BEGINNINGS: Final = 100


class _Beginning(NamedTuple):
    """A process was told which numbers its orders begin with."""

    session: str
    #: By the names that stand in keys.
    first: dict[str, int]


class _Placing:
    """A submission until it is on record."""

    __slots__ = ("intents", "peer", "settled")

    def __init__(self, peer: Peer, intents: tuple[OrderIntent, ...]) -> None:
        self.peer = peer
        self.intents = intents
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Submissions:
    """See the module.

    Args:
        server: Whose.
        instruments: What may be traded.
    """

    def __init__(self, server: HubServer, instruments: Instruments) -> None:
        self._server = server
        self._brokerage = server.brokerage
        self._desk = server.desk
        self._instruments = instruments
        self._queue = FairQueue()
        #: Orders that wait for their turn, until they are on record.
        self._placing: dict[str, _Placing] = {}
        #: Processes in the order in which they took over, by book.
        self._beginnings: dict[str, deque[_Beginning]] = defaultdict(lambda: deque(maxlen=_MOST_BEGINNINGS))

    async def close(self) -> None:
        """Nothing begins any more."""
        await self._queue.close()

    def began(self, peer: Peer, first: dict[str, int]) -> None:
        """It was told that its numbers begin with ``first``: those from there on are no earlier process's."""
        beginnings = self._beginnings[peer.name]
        if not beginnings or beginnings[-1].session != peer.session:
            beginnings.append(_Beginning(peer.session, first))

    def is_own(self, peer: Peer, key: str) -> bool:
        """Whether an order on record is its own, or an earlier process's: not of one that has had its name since."""
        since: list[_Beginning] = []
        for one in self._beginnings[peer.name]:
            since = [] if one.session == peer.session else [*since, one]
        parts = parse_key(key)
        return parts is None or all(parts.number < one.first.get(parts.name, 1) for one in since)

    # -- placing -------------------------------------------------------------------------------------

    async def place(self, peer: Peer, asked: tuple[Place, float]) -> None:
        """See ``Connection.place``; answered once the orders are on record, or were refused."""
        place, asked_s = asked
        age_s = awake_or_asleep_s() - asked_s
        intents = place.intents
        await self._check_place(peer, intents)
        while waiting := [
            one.settled for intent in intents if (one := self._placing.get(intent.key)) is not None
        ]:
            # Asked again while the first asking waits for its turn.
            await asyncio.wait(waiting)
        if self._desk.recorded(intents):
            self._check_own(peer, intents)
            # Asked again, because the answer was lost: it is on record, and whoever asks hears where it stands.
            for intent in intents:
                self._desk.tell_again(intent.key)
            return
        self._check_fresh(peer, age_s, asked_s, "order")
        peer.count_orders(len(intents))
        placing = _Placing(peer, intents)
        self._placing.update((intent.key, placing) for intent in intents)
        self._queue.put(peer.name, placing, lambda: self._send(placing))
        await placing.settled

    def _check_fresh(self, peer: Peer, age_s: float, asked_s: float, what: str) -> None:
        """What was decided long ago, or by somebody who is gone, is not sent.

        Raises:
            OrderRefusedError: So it is.
        """
        # Not the other way round: what is no number is no age.
        if not age_s <= self._server.settings.stale_s:
            raise OrderRefusedError(
                f"The {what} reached the hub {age_s:.1f} s after it was decided, and was not sent.",
                remedy="Decide anew; stale_s of the hub's configuration sets the time.",
            )
        if asked_s < peer.informed_s:
            raise OrderRefusedError(
                f"{peer.name} had vanished, and decided this {what} before it heard what its on_vanish had done: "
                "it was not sent.",
                remedy="Decide anew: its orders were cancelled, its positions may be closed.",
            )
        if peer.left:
            raise OrderRefusedError(f"Its process is gone, and the {what} was not sent.")

    def _check_own(self, peer: Peer, intents: tuple[OrderIntent, ...]) -> None:
        """Raises ``OrderRefusedError`` where orders that are on record are another process's."""
        for intent in intents:
            if not self.is_own(peer, intent.key):
                raise OrderRefusedError(
                    f"The key {intent.key} is of an order of another process that had this name: nothing was sent.",
                    remedy="Start this one anew: it numbered its orders before the other one began.",
                )

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

    async def all_recorded(self, name: str) -> None:
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

    async def _check_place(self, peer: Peer, intents: tuple[OrderIntent, ...]) -> None:
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
            await self._instruments.check_ticket(peer, intent.ticket)
        if len({intent.ticket.account for intent in intents}) > 1:
            raise UsageError("The orders of one submission are of several accounts.")

    def _check_owner(self, peer: Peer, key: str) -> None:
        if owner_of(key) != peer.name:
            raise NotArmedError(
                f"The order {key} is not of strategy {peer.name}.",
                remedy="Orders of a strategy carry the name under which it joined the hub.",
            )

    # -- what stands ---------------------------------------------------------------------------------

    async def modify(self, peer: Peer, asked: tuple[Modify, float]) -> None:
        """See ``Connection.modify``."""
        wanted, asked_s = asked
        age_s = awake_or_asleep_s() - asked_s
        self._check_owner(peer, wanted.key)
        if wanted.ticket.account not in peer.accounts:
            raise NotArmedError(f"Strategy {peer.name} has not attached account {wanted.ticket.account}.")
        await self._instruments.check_ticket(peer, wanted.ticket)
        await self._recorded(wanted.key)
        self._check_fresh(peer, age_s, asked_s, "change of an order")
        await self._desk.modify(wanted.key, wanted.ticket)

    async def set_expiry(self, peer: Peer, wanted: SetExpiry) -> None:
        """See ``Connection.set_expiry``."""
        self._check_owner(peer, wanted.key)
        await self._brokerage.set_expiry(wanted.key, wanted.expires_ns)

    async def cancel(self, peer: Peer, key: str) -> None:
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
