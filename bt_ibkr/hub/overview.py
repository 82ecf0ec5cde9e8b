"""The hub at one moment, for people: what ``bt-ibkr hub status`` shows. Runs on the session's loop."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from bt_ibkr.hub.beats import SLOW_TICKS
from bt_ibkr.hub.books import BookView
from bt_ibkr.hub.protocol import PROTOCOL
from bt_ibkr.hub.status import Harm, HubStatus, PeerStatus, TopicStatus
from bt_ibkr.version import __version__

if TYPE_CHECKING:
    from bt_ibkr.hub.server import HubServer


async def overview(server: HubServer) -> HubStatus:
    """All of it."""
    books = server.desk.books()
    return HubStatus(
        hub=server.hub,
        version=__version__,
        protocol=PROTOCOL,
        pid=os.getpid(),
        since_ns=server.since_ns,
        session=await server.brokerage.count(),
        connected=server.connected,
        accounts=server.desk.accounts,
        peers=_peers(server),
        topics=_topics(server),
        books=books,
        names=_names(server, books),
        health="" if server.health is None else server.health.url,
        harm=_harm(server),
    )


def _peers(server: HubServer) -> tuple[PeerStatus, ...]:
    now_s, late_s = time.monotonic(), 2 * server.settings.beat_s
    names = {word: topic.contract.describe() for word, topic in server.publisher.items()}
    return tuple(
        peer.status(
            now_s, late_s, SLOW_TICKS, tuple(sorted(names[word] for word in peer.words if word in names))
        )
        for peer in server.members.peers
    )


def _topics(server: HubServer) -> tuple[TopicStatus, ...]:
    shown = {peer.session: peer.name for peer in server.members.peers}
    return tuple(
        msgspec.structs.replace(
            topic, subscribers=tuple(sorted(shown.get(one, "?") for one in topic.subscribers))
        )
        for topic in server.publisher.status()
    )


def _names(server: HubServer, books: Sequence[BookView]) -> dict[int, str]:
    """Of what stands in books, as far as it was looked up since the start."""
    conids = {holding.conid for book in books for holding in book.holdings}
    known = {conid: server.brokerage.contracts.known(conid) for conid in conids}
    return {conid: contract.describe() for conid, contract in known.items() if contract is not None}


def _harm(server: HubServer) -> Harm:
    counts = msgspec.structs.asdict(server.channel.harm)
    counts["unauthorised"] += server.publisher.refused + server.refused_at_the_door
    counts["unknown"] += server.publisher.stale
    return Harm(**counts)
