"""One instrument's frames on their way to those who want them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from bt_ibkr.errors import UsageError, WireError
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.hours import next_turn_ns
from bt_ibkr.model.market import Missing, Quote, Tick
from bt_ibkr.wire import tags
from bt_ibkr.wire.extras import Extras
from bt_ibkr.wire.frames import QUOTE_FIELDS, QuoteFrame, decode_quote
from bt_ibkr.wire.quotes import QuoteMerger

if TYPE_CHECKING:
    from bt_ibkr.services.marketdata import MarketDataService, TickSink

_log = logging.getLogger(__name__)


def known_extras(contract: Contract, names: frozenset[str]) -> None:
    """Raises where ``names`` cannot be had of ``contract``.

    Raises:
        UsageError: There is no such name, or the contract is a combo.
    """
    unknown = sorted(names - tags.EXTRA_LINES.keys() - tags.TEXT_FIELDS.keys())
    if unknown:
        raise UsageError(
            f"{contract.describe()}: there is no line {', '.join(map(repr, unknown))}.",
            remedy=f"Lines: {', '.join(sorted(tags.EXTRA_LINES))}.",
        )
    if contract.legs and names - tags.TICK_LINES.keys():
        raise UsageError(
            f"{contract.describe()}: a combo has no {', '.join(sorted(names - tags.TICK_LINES.keys()))}.",
            remedy="Ask for them of its legs, each by a feed of its own.",
        )


class Stream:
    """One instrument's quote and its sinks.

    Args:
        service: Whose newest time goes with it.
        contract: Whose quote.
        now_ns: This machine's time.

    Attributes:
        sinks: With the method that puts a tick into each: to look it up costs as much as to call it.
        seen: The last tick.
        extras: Further fields, once somebody asked for any.
        polled: It is read by snapshots.
        take: Takes a frame of a stream without further fields.
    """

    __slots__ = ("_now_ns", "_service", "contract", "extras", "merger", "polled", "seen", "sinks", "take")

    def __init__(self, service: MarketDataService, contract: Contract, now_ns: Callable[[], int]) -> None:
        self.contract = contract
        self.merger = QuoteMerger(contract.conid, partial(next_turn_ns, contract))
        self.sinks: list[tuple[TickSink, Callable[[Tick], None]]] = []
        self.seen: Tick | None = None
        self.extras: Extras | None = None
        self.polled = False
        self._service = service
        self._now_ns = now_ns
        self.take = self._taker(service, now_ns)

    def _taker(self, service: MarketDataService, now_ns: Callable[[], int]) -> Callable[[QuoteFrame], None]:
        """Merges a frame and hands its tick on; the hot path of market data, so all it needs is at hand."""
        merge, sinks = self.merger.apply, self.sinks

        def take(frame: QuoteFrame) -> None:
            tick = merge(frame, now_ns())
            if tick is None:
                return
            self.seen = tick
            for sink, push in sinks:
                if len(sink) < sink.room:
                    push(tick)
                else:
                    sink.hold(tick)
            # After the sinks: who reads this time first and the sinks second misses no tick up to it.
            if tick.time_ns > service.stream_ns:
                service.stream_ns = tick.time_ns

        return take

    def take_whole(self, frame: QuoteFrame, data: str | bytes) -> None:
        """Take a frame of a stream with further fields.

        Args:
            data: What ``frame`` was decoded of.
        """
        received_ns = self._now_ns()
        extras = self.extras
        changed = extras is not None and extras.merge(data)
        tick = self.merger.apply(frame, received_ns)
        if extras is not None:
            if tick is not None and tick.traded:
                extras.traded(tick.last, tick.traded, tick.volume)
            if tick is None and changed:
                tick = self.merger.tick(received_ns)
        if tick is None:
            return
        if extras is not None or self.polled:
            numbers = None if extras is None else extras.numbers
            tick = msgspec.structs.replace(tick, extras=numbers, snapshot=self.polled)
        self.seen = tick
        for sink, _ in self.sinks:
            sink.append(tick)
        self._service.stream_ns = max(self._service.stream_ns, tick.time_ns)

    def take_row(self, row: bytes) -> None:
        """Take a row of a snapshot, as JSON."""
        try:
            frame = decode_quote(row)
        except WireError as problem:
            _log.warning("snapshot-unreadable conid=%d problem=%s", self.contract.conid, problem)
            return
        self.take_whole(frame, row)

    @property
    def fields(self) -> tuple[str, ...]:
        """Tags to ask for."""
        if self.extras is None:
            return QUOTE_FIELDS
        return tuple(dict.fromkeys((*QUOTE_FIELDS, *self.extras.fields)))

    def widen(self, names: frozenset[str]) -> bool:
        """Have the fields of ``names``, too; whether the server has to be asked for more."""
        before = self.extras
        wanted = names - tags.TICK_LINES.keys()
        if before is not None:
            wanted |= before.names
            if wanted == before.names:
                return False
        if not wanted:
            return False
        self.extras = Extras(wanted, self.contract.security_type.value)
        if before is not None:
            self.extras.inherit(before)
        return True

    def add(self, sink: TickSink) -> None:
        """Give ``sink`` the ticks from now on."""
        self.sinks.append((sink, sink.push))

    def remove(self, sink: TickSink) -> bool:
        """Give it no more; whether it was here."""
        if not any(existing is sink for existing, _ in self.sinks):
            return False
        # The same list: ``take`` holds it.
        self.sinks[:] = [(one, push) for one, push in self.sinks if one is not sink]
        return True

    def quote(self) -> Quote | None:
        """All that is known; ``None`` before the first frame."""
        merger, extras, seen = self.merger, self.extras, self.seen
        if seen is None:
            return None
        values = {name: getattr(merger, name) for name in tags.TICK_LINES}
        missing = {name: merger.missing(name) for name, value in values.items() if value is None}
        if extras is not None:
            for name in sorted(extras.names - extras.numbers.keys() - extras.texts.keys()):
                missing[name] = merger.missing("") if name not in extras.gone else Missing.NOT_AVAILABLE
        return Quote(
            conid=self.contract.conid,
            time_ns=merger.time_ns,
            received_ns=seen.received_ns,
            **values,
            prior_close=merger.prior_close,
            quality=merger.quality,
            availability=merger.availability,
            halted=merger.halted,
            extras={} if extras is None else extras.numbers,
            texts={} if extras is None else extras.texts,
            missing=missing,
            snapshot=self.polled,
        )
