"""Who is at the hub: processes come, go, are lost, come back, and are taken over by others of their name.

Runs on the session's loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from bt_ibkr.connection import interface as events
from bt_ibkr.errors import BtIbkrError, SessionError
from bt_ibkr.hub.access import Access, Grant
from bt_ibkr.hub.ages import awake_or_asleep_s
from bt_ibkr.hub.names import check_name
from bt_ibkr.hub.peers import Peer
from bt_ibkr.hub.protocol import PROTOCOL, Hello, Welcome
from bt_ibkr.hub.vanishing import Vanishing
from bt_ibkr.version import __version__

if TYPE_CHECKING:
    from bt_ibkr.hub.server import HubServer

_log = logging.getLogger(__name__)

#: Peers that have left or vanished are shown so long, seconds.
_SHOWN_S: Final = 3600.0
#: So many processes are served; a number that nobody needs, and that memory bears.
_MOST_PEERS: Final = 500


class Members:
    """See the module.

    Args:
        server: Whose.

    Attributes:
        vanishing: What becomes of strategies that do not come back.
    """

    def __init__(self, server: HubServer) -> None:
        self._server = server
        self._settings = server.settings
        self._access = Access(
            dict(server.settings.strategies),
            unlisted=server.settings.unlisted_grant,
            encrypted=bool(server.settings.secret_key),
        )
        self._peers: dict[str, Peer] = {}
        self._by_name: dict[str, Peer] = {}
        self.vanishing = Vanishing(server, self)

    @property
    def peers(self) -> Sequence[Peer]:
        """All that are shown, also those that have left."""
        return list(self._peers.values())

    def find(self, session: str) -> Peer | None:
        """A process, by its session."""
        return self._peers.get(session)

    def latest(self, name: str) -> Peer | None:
        """The strategy that came last under that name, also if it is gone."""
        return self._by_name.get(name)

    def peer(self, name: str) -> Peer | None:
        """The strategy of that name, as long as it is not gone for good."""
        peer = self._by_name.get(name)
        return None if peer is None or peer.left else peer

    def grant_of(self, name: str) -> Grant:
        """What a strategy may do; of one that was never here, what the configuration says."""
        peer = self._by_name.get(name)
        return self._access.grant_of(name) if peer is None else peer.grant

    # -- they come -----------------------------------------------------------------------------------

    def hello(self, address: bytes, user: str, hello: Hello) -> None:
        """A process greets, for the first time or again.

        Args:
            address: Its routing id.
            user: Its public key, where the channel is encrypted.
            hello: What it says.
        """
        channel = self._server.channel
        if hello.protocol != PROTOCOL:
            channel.incompatible(address, hello)
            return
        known = self._peers.get(hello.session)
        if address != hello.session.encode() or (known is not None and known.user != user):
            channel.harmed("replayed", f"hello={hello.name!r}")
            return
        try:
            grant = self._access.grant(hello.name, hello.role, user)
            if hello.role == "strategy":
                check_name(hello.name)
            self._check_name(hello)
        except BtIbkrError as refusal:
            if isinstance(refusal, SessionError):
                _log.info("hub-refused name=%s problem=%s", hello.name, refusal)
            else:
                channel.harmed("unauthorised", f"name={hello.name!r} problem={refusal}")
            channel.refuse(address, hello, refusal, again=isinstance(refusal, SessionError))
            return
        if known is not None and (known.name, known.hello.role) != (hello.name, hello.role):
            channel.harmed("replayed", f"hello={hello.name!r}")
            return
        # Said again before it heard the first answer: nothing has been asked yet.
        if known is not None and not known.left and (hello.join == known.join or not known.asked):
            self.back(known)
            known.heard()
            self._welcome(known)
            known.again_from(hello.told if hello.join == known.join else 0)
            return
        own = self._access.own_name(hello.name, user) if hello.role == "observer" else hello.name
        peer = self._joined(Peer(hello, address, user, grant, channel.send, own))
        self._welcome(peer)
        if hello.role == "strategy":
            peer.tell("SessionChanged", self._session_state())

    def _joined(self, peer: Peer) -> Peer:
        """Somebody new, or a process that this hub has given up."""
        hello = peer.hello
        if hello.role == "strategy":
            before = self._by_name.get(peer.name)
            if before is not None:
                self.drop(before)
            self._by_name[peer.name] = peer
            peer.told_before_ns = self._server.desk.came(peer.name)
            self.vanishing.came(peer)
        self._peers[peer.session] = peer
        _log.info("hub-joined name=%s role=%s host=%s pid=%d", peer.name, hello.role, hello.host, hello.pid)
        return peer

    def _welcome(self, peer: Peer) -> None:
        server, settings, allowed = self._server, self._settings, peer.grant.accounts
        peer.say(
            Welcome(
                hub=server.hub,
                version=__version__,
                session=peer.session,
                join=peer.join,
                ticks=settings.ticks_seen(server.ticks),
                accounts=tuple(one for one in self._accounts() if not allowed or one in allowed),
                paper=server.brokerage.is_paper(),
                may_trade=peer.grant.trading,
                clock_s=awake_or_asleep_s(),
                server_ns=server.brokerage.server_ns(),
                beat_s=settings.beat_s,
                dead_s=settings.dead_s,
                emulator=server.emulator,
            )
        )

    def _accounts(self) -> tuple[str, ...]:
        """Those traded in; of a hub that only serves data, those of the login, so that a store can open."""
        return self._server.brokerage.accounts() if self._settings.data_only else self._server.desk.accounts

    def _session_state(self) -> events.SessionChanged:
        session = self._server.brokerage.session
        state = "disconnected" if session is None else session.state.value
        return events.SessionChanged(state, "as it stands", "", self._server.connected)

    def _check_name(self, hello: Hello) -> None:
        """Two processes under one name would trade for each other.

        Raises:
            SessionError: Another process of that name is alive.
        """
        if (
            hello.session not in self._peers
            and sum(not one.left for one in self._peers.values()) >= _MOST_PEERS
        ):
            raise SessionError(f"The hub serves {_MOST_PEERS} processes already.", remedy="End some.")
        other = self._by_name.get(hello.name) if hello.role == "strategy" else None
        if other is None or other.session == hello.session or other.left or other.lost:
            return
        if time.monotonic() - other.heard_s > self._settings.dead_s:
            return
        raise SessionError(
            f"A strategy {hello.name!r} is connected already (process {other.hello.pid} on {other.hello.host}).",
            remedy="End that one, or give this one another name.",
        )

    # -- they go -------------------------------------------------------------------------------------

    def leave(self, peer: Peer) -> None:
        """It said goodbye."""
        self._server.desk.telling.note_heard()
        peer.leave()
        if peer.hello.role != "strategy":
            self._peers.pop(peer.session, None)
        elif self._by_name.get(peer.name) is peer:
            self.vanishing.here(peer.name)
            self._server.desk.went(peer.name)
        _log.info("hub-left name=%s", peer.name)
        self._server.spawn(self._release(peer), "hub-release")

    def lose(self, peer: Peer, silent_s: float) -> None:
        """It is not heard, and may come back."""
        peer.lost = True
        _log.warning("hub-lost name=%s silent_s=%.1f", peer.name, silent_s)
        if peer.hello.role != "strategy":
            # It asks anew, should it come back.
            self._peers.pop(peer.session, None)
        else:
            self.vanishing.lost(peer.name, silent_s)

    def back(self, peer: Peer) -> None:
        """It is heard; perhaps again."""
        if peer.lost:
            peer.lost = False
            self.vanishing.here(peer.name)
            _log.info("hub-back name=%s", peer.name)
            peer.again_from(peer.beat.told)

    def drop(self, peer: Peer) -> None:
        """Another process takes its name over, or it is gone for good: nothing is kept for it."""
        self._server.desk.telling.note_heard()
        self._peers.pop(peer.session, None)
        peer.leave()
        self._server.dispatch.forget(peer)
        self._server.spawn(self._release(peer), "hub-release")

    def forget_old(self, peer: Peer, silent_s: float) -> None:
        """Who has left is shown for a while."""
        if silent_s > _SHOWN_S:
            self._peers.pop(peer.session, None)
            if self._by_name.get(peer.name) is peer:
                del self._by_name[peer.name]

    async def _release(self, peer: Peer) -> None:
        """Its streams end, where nobody else wants them."""
        for word in list(peer.words):
            peer.words.discard(word)
            await self._server.publisher.leave(word, peer.session)
