"""Strategies that do not come back: when each is to be dealt with, and what is done then by its ``on_vanish``.

Runs on the session's loop.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from bt_ibkr.hub.access import OnVanish
from bt_ibkr.hub.peers import Peer

if TYPE_CHECKING:
    from bt_ibkr.hub.members import Members
    from bt_ibkr.hub.server import HubServer

_log = logging.getLogger(__name__)


class Vanishing:
    """See the module.

    Args:
        server: Whose.
        members: Who is there.
    """

    def __init__(self, server: HubServer, members: Members) -> None:
        self._server = server
        self._members = members
        #: When strategies that were lost are to be dealt with, monotonic seconds.
        self._due: dict[str, float] = {}
        #: Strategies that were wound up and have not been told so.
        self._wound: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """It is waited for."""
        return name in self._due

    def __len__(self) -> int:
        return len(self._due)

    def expect(self) -> None:
        """Strategies that an earlier hub has lost sight of with its own end: those that do not come have vanished."""
        for name in self._server.desk.expected():
            self._due[name] = time.monotonic() + self._members.grant_of(name).vanish_s

    def lost(self, name: str, silent_s: float) -> None:
        """It was last heard so long ago."""
        wait_s = max(0.0, self._members.grant_of(name).vanish_s - silent_s)
        self._due[name] = time.monotonic() + wait_s

    def here(self, name: str) -> None:
        """It is back, or said goodbye: it has not vanished."""
        self._due.pop(name, None)

    def came(self, peer: Peer) -> None:
        """A process joined under the name.

        What it decides before it was told where it stands, it decides by a position that it may have no more.
        """
        self._due.pop(peer.name, None)
        if peer.name in self._wound:
            peer.informed_s = math.inf

    def informed(self, peer: Peer) -> None:
        """It is being told where it stands."""
        self._wound.discard(peer.name)
        peer.inform()

    def look(self) -> None:
        """Deal with those whose time is over."""
        now_s = time.monotonic()
        for name, due_s in list(self._due.items()):
            if now_s >= due_s:
                del self._due[name]
                self._vanished(name)

    def _vanished(self, name: str) -> None:
        """It did not come back. Should it after all, it begins as with a restarted hub: nothing is kept for it."""
        policy = self._members.grant_of(name).on_vanish
        _log.warning("hub-vanished name=%s policy=%s", name, policy)
        peer = self._members.latest(name)
        if peer is not None:
            self._members.drop(peer)
        if policy is OnVanish.LEAVE:
            self._server.desk.went(name)
        else:
            self._wound.add(name)
            flatten = policy is OnVanish.FLATTEN
            self._server.spawn(self._server.desk.wind_up(name, flatten=flatten), "hub-wind-up")
