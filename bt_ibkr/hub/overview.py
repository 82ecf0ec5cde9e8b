"""The hub at one moment, for people: what ``bt-ibkr hub status`` shows. Runs on the session's loop.

Who may not see what is of others is shown its own: processes, streams and book, and of the accounts that it may use
what they have of its instruments.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from bt_ibkr.hub.beats import SLOW_TICKS
from bt_ibkr.hub.books import BookView
from bt_ibkr.hub.peers import Peer
from bt_ibkr.hub.protocol import PROTOCOL
from bt_ibkr.hub.publisher import Topic
from bt_ibkr.hub.status import Harm, HubStatus, PeerStatus, TopicStatus, Total
from bt_ibkr.services.lines import LinesUsed
from bt_ibkr.version import __version__

if TYPE_CHECKING:
    from bt_ibkr.hub.server import HubServer


async def overview(server: HubServer, viewer: Peer | None = None) -> HubStatus:
    """All that ``viewer`` may see; ``None``: all."""
    books, totals = books_for(server, viewer), _totals(server, viewer)
    session = await server.brokerage.count()
    allowed = () if viewer is None else viewer.grant.accounts
    return HubStatus(
        hub=server.hub,
        version=__version__,
        protocol=PROTOCOL,
        pid=os.getpid(),
        since_ns=server.since_ns,
        session=msgspec.structs.replace(session, lines=visible_lines(server, viewer, session.lines)),
        connected=server.connected,
        accounts=tuple(one for one in server.desk.accounts if not allowed or one in allowed),
        peers=_peers(server, viewer),
        topics=_topics(server, viewer),
        books=books,
        totals=totals,
        viewer="" if viewer is None or viewer.grant.sees_all else viewer.own,
        names=_names(
            server, {one.conid for book in books for one in book.holdings} | {one.conid for one in totals}
        ),
        health="" if server.health is None else server.health.url,
        harm=_harm(server),
        trading=None if server.brokerage.desk is None else server.brokerage.desk.trading,
    )


def books_for(server: HubServer, viewer: Peer | None) -> tuple[BookView, ...]:
    """The books that ``viewer`` may see: of accounts that it may use, its own or all."""
    books = server.desk.books()
    if viewer is None:
        return books
    grant = viewer.grant
    return tuple(
        book
        for book in books
        if (not grant.accounts or book.account in grant.accounts)
        and (grant.sees_all or book.name == viewer.own)
    )


def visible_lines(server: HubServer, viewer: Peer | None, lines: LinesUsed) -> LinesUsed:
    """What the market-data lines are used for, as far as it is the viewer's."""
    if viewer is None or viewer.grant.sees_all:
        return lines
    own = {topic.contract.describe() for topic in _topics_of(server, viewer)}
    return msgspec.structs.replace(lines, names=tuple(name for name in lines.names if name in own))


def _mine(server: HubServer, viewer: Peer | None) -> Sequence[Peer]:
    """The processes that the viewer sees."""
    peers = server.members.peers
    if viewer is None or viewer.grant.sees_all:
        return peers
    return [peer for peer in peers if peer.name == viewer.own or peer is viewer]


def _topics_of(server: HubServer, viewer: Peer) -> list[Topic]:
    words = {word for peer in _mine(server, viewer) for word in peer.words}
    return [topic for word, topic in server.publisher.items() if word in words]


def _totals(server: HubServer, viewer: Peer | None) -> tuple[Total, ...]:
    totals: dict[tuple[str, int], Decimal] = {}
    for book in server.desk.books():
        for one in book.holdings:
            place = book.account, one.conid
            totals[place] = totals.get(place, Decimal(0)) + one.quantity
    return tuple(
        Total(account=account, conid=conid, quantity=quantity)
        for (account, conid), quantity in totals.items()
        if quantity and (viewer is None or _may_know(server, viewer, account, conid))
    )


def _may_know(server: HubServer, viewer: Peer, account: str, conid: int) -> bool:
    grant = viewer.grant
    if grant.accounts and account not in grant.accounts:
        return False
    contract = server.brokerage.contracts.known(conid)
    return not grant.instruments or (contract is not None and grant.allows(contract))


def _peers(server: HubServer, viewer: Peer | None) -> tuple[PeerStatus, ...]:
    now_s, late_s = time.monotonic(), 2 * server.settings.beat_s
    names = {word: topic.contract.describe() for word, topic in server.publisher.items()}
    return tuple(
        peer.status(
            now_s, late_s, SLOW_TICKS, tuple(sorted(names[word] for word in peer.words if word in names))
        )
        for peer in _mine(server, viewer)
    )


def _topics(server: HubServer, viewer: Peer | None) -> tuple[TopicStatus, ...]:
    shown = {peer.session: peer.name for peer in server.members.peers}
    mine = {peer.session for peer in _mine(server, viewer)}
    limited = viewer is not None and not viewer.grant.sees_all
    found = []
    for topic in server.publisher.status():
        subscribers = [one for one in topic.subscribers if not limited or one in mine]
        if subscribers or not limited:
            names = tuple(sorted(shown.get(one, "?") for one in subscribers))
            found.append(msgspec.structs.replace(topic, subscribers=names))
    return tuple(found)


def _names(server: HubServer, conids: set[int]) -> dict[int, str]:
    """Of what stands in books, as far as it was looked up since the start."""
    known = {conid: server.brokerage.contracts.known(conid) for conid in conids}
    return {conid: contract.describe() for conid, contract in known.items() if contract is not None}


def _harm(server: HubServer) -> Harm:
    counts = msgspec.structs.asdict(server.channel.harm)
    counts["unauthorised"] += server.publisher.refused + server.refused_at_the_door
    counts["unknown"] += server.publisher.stale
    return Harm(**counts)
