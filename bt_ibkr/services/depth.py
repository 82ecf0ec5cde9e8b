"""Market depth: the ladder of one instrument an account (topic ``sbd``).

It needs a Level II subscription at IBKR, and an account shows one ladder at a time. A ladder is counted as a line of
market data: the documents do not say whether it is one, and to count one too many does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from bt_ibkr.config import SessionSettings
from bt_ibkr.errors import DepthError, UsageError, WireError
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import DepthBook
from bt_ibkr.session.websocket import Socket, Subscription, renewal_ns
from bt_ibkr.wire import topics
from bt_ibkr.wire.depth import LadderMerger
from bt_ibkr.wire.frames import QuoteFrame

_log = logging.getLogger(__name__)


class DepthSink(Protocol):
    """Takes books; called in the loop's thread. A ``Mailbox[DepthBook]`` is one."""

    def append(self, item: DepthBook, /) -> None:
        """Take the book as it stands now."""


class LineBudget(Protocol):
    """See ``MarketDataService``."""

    async def take_line(self, key: str, contract: Contract, name: str) -> None: ...
    async def release_line(self, key: str) -> None: ...


class _Ladder:
    """One account's."""

    def __init__(self, contract: Contract, exchange: str, now_ns: Callable[[], int]) -> None:
        self.contract = contract
        self.exchange = exchange
        self.merger = LadderMerger(contract.conid)
        self.sinks: list[DepthSink] = []
        self.seen: DepthBook | None = None
        self.unreadable = 0
        self._now_ns = now_ns

    def take(self, frame: QuoteFrame, data: bytes) -> None:
        try:
            book = self.merger.apply(data, self._now_ns())
        except WireError as problem:
            self.unreadable += 1
            if self.unreadable in (1, 10, 100) or self.unreadable % 1000 == 0:
                _log.warning("depth-unreadable count=%d problem=%s", self.unreadable, problem)
            return
        self.seen = book
        for sink in self.sinks:
            sink.append(book)


class DepthService:
    """Ladders of one session.

    Args:
        socket: The session's WebSocket.
        settings: The renewal interval: whether a ladder ends as top-of-book streams do is not documented, and to
            ask again does no harm.
        now_ns: Market time, for the stamps of books: the ladder tells none.
        lines: Where ladders are counted.
    """

    def __init__(
        self, socket: Socket, settings: SessionSettings, now_ns: Callable[[], int], lines: LineBudget
    ) -> None:
        self._socket = socket
        self._lines = lines
        self._renew_ns = renewal_ns(settings.renew_market_data_s)
        self._now_ns = now_ns
        #: By account.
        self._ladders: dict[str, _Ladder] = {}

    async def subscribe(self, contract: Contract, account: str, sink: DepthSink) -> None:
        """Stream the book of ``contract`` into ``sink``; if it streams already, the last one is given at once.

        Raises:
            DepthError: The account's ladder shows another instrument.
            UsageError: The contract is a combo.
            LinesError: No market-data line is left.
        """
        if contract.legs:
            raise UsageError(
                f"{contract.describe()}: a combo has no book of its own.", remedy="Ask for that of a leg."
            )
        exchange = "" if contract.exchange in ("SMART", "IDEALPRO") else contract.exchange
        if account not in self._ladders:
            await self._lines.take_line(_key(account), contract, f"book of {contract.describe()}")
        # Only now: meanwhile somebody else may have begun it.
        ladder = self._ladders.get(account)
        if ladder is not None:
            if (ladder.contract.conid, ladder.exchange) != (contract.conid, exchange):
                raise DepthError(
                    f"Account {account} shows the book of {ladder.contract.describe()} already, and IBKR gives an "
                    f"account one at a time: {contract.describe()} cannot be shown.",
                    remedy="End that feed first, or ask for this one in another account of the login.",
                )
            if ladder.seen is not None:
                sink.append(ladder.seen)
            ladder.sinks.append(sink)
            return
        ladder = self._ladders[account] = _Ladder(contract, exchange, self._now_ns)
        ladder.sinks.append(sink)
        for topic in self._topics(account, ladder):
            self._socket.whole_routes[topic] = ladder.take
        try:
            await self._socket.subscribe(
                Subscription(
                    key=_key(account),
                    text=topics.subscribe_depth(account, contract.conid, exchange),
                    undo=topics.unsubscribe_depth(account),
                    renew_ns=self._renew_ns,
                )
            )
        except BaseException:
            self._forget(account, ladder)
            await self._release(account)
            raise

    async def unsubscribe(self, sink: DepthSink) -> None:
        """End what ``sink`` subscribed; a ladder that nobody wants is ended at the server."""
        for account, ladder in list(self._ladders.items()):
            if not any(existing is sink for existing in ladder.sinks):
                continue
            ladder.sinks[:] = [one for one in ladder.sinks if one is not sink]
            if not ladder.sinks:
                self._forget(account, ladder)
                await self._socket.unsubscribe(_key(account))
                await self._release(account)

    def _forget(self, account: str, ladder: _Ladder) -> None:
        del self._ladders[account]
        for topic in self._topics(account, ladder):
            self._socket.whole_routes.pop(topic, None)

    async def _release(self, account: str) -> None:
        # Meanwhile somebody may have begun another one.
        if account not in self._ladders:
            await self._lines.release_line(_key(account))

    def latest(self, conid: int) -> DepthBook | None:
        """The last book of an instrument that streams."""
        for ladder in self._ladders.values():
            if ladder.contract.conid == conid:
                return ladder.seen
        return None

    def broken(self) -> None:
        """The WebSocket was lost: the next frame begins a new ladder."""
        for ladder in self._ladders.values():
            ladder.merger.clear()
            ladder.seen = None

    @staticmethod
    def _topics(account: str, ladder: _Ladder) -> tuple[str, ...]:
        """Topics of the answers: documented without the exchange, sent with it."""
        plain = f"sbd+{account}+{ladder.contract.conid}"
        return (plain, f"{plain}+{ladder.exchange}") if ladder.exchange else (plain,)


def _key(account: str) -> str:
    return f"sbd+{account}"
