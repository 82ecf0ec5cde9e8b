"""A feed's questions to history, and the answers as bars of the feed's own edges."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.connection.interface import FeedEvent
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.errors import BtIbkrError
from bt_ibkr.feeds.edges import DayEdges, Edges
from bt_ibkr.feeds.join import Wish
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import Bar
from bt_ibkr.services.history import HistoryRequest
from bt_ibkr.store import IBKRStore

_DAY_NS = 86_400 * NS_PER_S


class Answer(msgspec.Struct, frozen=True):
    """What history has to a wish: bars, oldest first, or why there are none."""

    wish: Wish
    bars: tuple[Bar, ...]
    error: BtIbkrError | None = None


class HistoryDesk:
    """Asks for the bars of one feed, one question at a time; a later question makes an earlier one void.

    Bars of days are stamped with the real close of their session; weeks and months are put together from days.

    Args:
        store: The feed's.
        contract: Whose bars.
        bar_ns: Length of one; of days, weeks and months not looked at.
        source: IBKR's word for the price.
        edges: Of the bars.
        extended: With extended hours.
    """

    def __init__(
        self,
        store: IBKRStore,
        contract: Contract,
        bar_ns: int,
        source: str,
        *,
        edges: Edges,
        extended: bool,
    ) -> None:
        self._connection = store.connection
        self._answers: Mailbox[FeedEvent] = Mailbox(store.wake)
        self._contract = contract
        #: Of trading in a bar, where bars go by sessions.
        self._days = edges.period.most_days if isinstance(edges, DayEdges) else 0
        self._bar_ns = _DAY_NS if self._days else bar_ns
        self._source = source
        self._edges = edges
        self._extended = extended
        self._token = 0
        self._wish: Wish | None = None

    @property
    def asked(self) -> bool:
        """A question is not answered yet."""
        return self._wish is not None

    def __len__(self) -> int:
        """Answers that wait."""
        return len(self._answers)

    def ask(self, wish: Wish) -> None:
        """Ask; ``take`` gives the answer."""
        self._token += 1
        self._wish = wish
        start_ns, end_ns, most = wish.start_ns, wish.end_ns, wish.most
        if self._days:
            if start_ns and (first := self._edges.following(start_ns)) is not None:
                start_ns = min(first[0], start_ns)
            # On a day that ends early the ordinary close is later than the real one.
            end_ns += _DAY_NS
            most *= self._days
        request = HistoryRequest(
            contract=self._contract,
            bar_ns=self._bar_ns,
            start_ns=start_ns,
            end_ns=end_ns,
            source=self._source,
            outside_regular_hours=self._extended,
            most=most,
        )
        self._connection.request_history(request, self._token, self._answers)

    def take(self) -> Answer | None:
        """The answer to the last question, once it has come."""
        while (event := self._answers.take()) is not None:
            wish = self._wish
            if event.token != self._token or wish is None:
                continue
            self._wish = None
            bars = event.bars
            if self._days:
                bars = self._join_days(bars, wish)
            return Answer(wish, bars, event.error)
        return None

    def _join_days(self, days: tuple[Bar, ...], wish: Wish) -> tuple[Bar, ...]:
        made: list[Bar] = []
        for (start_ns, end_ns), group in groupby(days, key=self._span):
            made.append(_merge(start_ns, end_ns, group))
        if self._days > 1 and wish.most and len(days) >= wish.most * self._days:
            # The answer was cut at its length, probably inside a period.
            made = made[1:]
        wanted = [bar for bar in made if wish.start_ns < bar.end_ns <= wish.end_ns]
        return tuple(wanted[-wish.most :] if wish.most else wanted)

    def _span(self, bar: Bar) -> tuple[int, int]:
        return self._edges.following(bar.start_ns) or (bar.start_ns, bar.end_ns)


def _merge(start_ns: int, end_ns: int, group: Iterable[Bar]) -> Bar:
    bars = list(group)
    return Bar(
        start_ns,
        end_ns,
        bars[0].open,
        max(bar.high for bar in bars),
        min(bar.low for bar in bars),
        bars[-1].close,
        sum(bar.volume for bar in bars),
    )
