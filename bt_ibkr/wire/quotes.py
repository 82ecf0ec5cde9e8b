"""The present quote of an instrument, and what of the day's volume traded just now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bt_ibkr.clock import NS_PER_MS, NS_PER_S
from bt_ibkr.model.market import DataQuality, Missing, Tick
from bt_ibkr.wire import values
from bt_ibkr.wire.frames import AnnotatedFrame, QuoteFrame

#: A volume told after so long a silence, on another day, is that day's: every market pauses at least that long
#: between two of them, but those that never close.
_PAUSE_NS: Final = 45 * 60 * NS_PER_S
#: A volume that shrinks by no more than this is corrected, unless something else shows that a day began.
_CORRECTED: Final = 0.98
#: One that shrinks by more than this begins anew, whatever the calendar says.
_ANEW: Final = 0.5
_NEVER_NS: Final = 2**63


class QuoteMerger:
    """The present quote of one instrument, built from frames that name only what changed.

    ``apply`` returns the tick for a frame, or ``None`` if it told nothing new. The first frame after a
    subscription is a picture, not a trade: its volume is the base from which later trades are counted. A
    frame that is delivered twice therefore makes one tick at most.

    A new day's volume counts from nothing. No frame says that a day began, and the first volume of it may be above
    the old day's last: see ``_begins_anew`` for what decides.

    Args:
        conid: Whose quote.
        next_turn_ns: When the day that a moment belongs to is over, as ``model.hours.next_turn_ns``; without it only
            a volume that shrinks by half begins anew.

    Attributes:
        availability: Field 6509 as it was told last.
        prior_close: The previous day's close, where it was told in place of a last price.
        gone: Names of fields that the server called not available; a value may have come since.
    """

    __slots__ = (
        "_base",
        "_close_before",
        "_day_open",
        "_evidence",
        "_first",
        "_next_turn_ns",
        "_turn_ns",
        "_volume_ns",
        "ask",
        "ask_size",
        "availability",
        "bid",
        "bid_size",
        "conid",
        "gone",
        "halted",
        "last",
        "last_size",
        "prior_close",
        "quality",
        "time_ns",
        "volume",
    )

    def __init__(self, conid: int, next_turn_ns: Callable[[int], int] | None = None) -> None:
        self.conid = conid
        self.bid: float | None = None
        self.ask: float | None = None
        self.bid_size: float | None = None
        self.ask_size: float | None = None
        self.last: float | None = None
        self.last_size: float | None = None
        self.volume: float | None = None
        self.quality = DataQuality.UNKNOWN
        self.availability = ""
        self.prior_close: float | None = None
        self.gone: set[str] = set()
        self.halted = False
        self.time_ns = 0
        self._first = True
        #: What of the day's volume was counted: after a small correction more than the volume.
        self._base = 0.0
        self._next_turn_ns = next_turn_ns
        #: When the day of the volume is over; 0 before the first one.
        self._turn_ns = 0
        #: The server's time of the volume.
        self._volume_ns = 0
        self._close_before: str | float | None = None
        self._day_open: str | float | None = None
        #: A field that changes with the day has changed since the volume was told.
        self._evidence = False

    def resubscribed(self) -> None:
        """The next frame is a picture again: what traded before it is not known from it."""
        self._first = True

    def apply(self, frame: QuoteFrame, received_ns: int) -> Tick | None:
        """Merge ``frame`` and return the tick it makes.

        Written for speed: this runs once for every frame of market data.

        Args:
            frame: A decoded ``smd`` frame of this instrument.
            received_ns: This machine's time of reading it.
        """
        changed = self._annotate(frame) if type(frame) is AnnotatedFrame else False
        traded = 0.0
        last = frame.last
        volume = frame.volume
        last_size = frame.last_size
        if last_size is not None:
            self.last_size = last_size
        if frame.close_before is not None or frame.day_open is not None:
            self._see_day(frame)
        updated = frame.updated_ms
        time_ns = received_ns if updated is None else updated * NS_PER_MS
        if self._first:
            self._count_from(time_ns)
        if volume is not None:
            before = self.volume
            self.volume = volume
            if self._first:
                self._base = volume
            elif (self._evidence or time_ns >= self._turn_ns) and self._begins_anew(frame, before, time_ns):
                traded = self._base = volume
                self._count_from(time_ns)
            elif before is None:
                # Nothing had traded when the picture was taken, or the server withheld the volume: the
                # last trade's own size is what is known for certain.
                traded = self.last_size or 0.0
                self._base = volume
            elif volume > before:
                # What was taken back and told again is counted already.
                if volume > self._base:
                    traded = volume - self._base
                    self._base = volume
            elif volume < before * _ANEW or (
                volume < before * _CORRECTED and frame.last_size == volume  # its first trade
            ):
                # A new day's volume has begun: all of it traded since.
                traded = self._base = volume
                self._count_from(time_ns)
            elif volume < self._base * _CORRECTED or time_ns >= self._turn_ns:
                # So much, or what was corrected over night, is not told again: to wait for it would be to be blind
                # for trades meanwhile.
                self._base = volume
            self._volume_ns = time_ns
        elif last is not None and self.volume is None and last != self.last and not self._first:
            traded = self.last_size or 0.0
        if last is not None:
            if last != self.last:
                self.last = last
                changed = True
            if self.halted and type(frame) is not AnnotatedFrame:
                self.halted = False
                changed = True
        value = frame.bid
        if value is not None and value != self.bid:
            self.bid = value
            changed = True
        value = frame.ask
        if value is not None and value != self.ask:
            self.ask = value
            changed = True
        value = frame.bid_size
        if value is not None and value != self.bid_size:
            self.bid_size = value
            changed = True
        value = frame.ask_size
        if value is not None and value != self.ask_size:
            self.ask_size = value
            changed = True
        if frame.availability is not None:
            self.availability = frame.availability
            quality = values.quality(frame.availability)
            if quality is not self.quality:
                self.quality = quality
                changed = True
        if self._first:
            self._first = False
        elif not changed and not traded:
            return None
        if updated is not None:
            self.time_ns = time_ns
        elif not self.time_ns:
            self.time_ns = received_ns
        return Tick(
            self.time_ns,
            self.conid,
            self.bid,
            self.ask,
            self.bid_size,
            self.ask_size,
            self.last,
            self.last_size,
            traded,
            self.volume,
            self.quality,
            self.halted,
            received_ns,
        )

    def tick(self, received_ns: int) -> Tick:
        """The quote as it stands, as a tick by which nothing traded."""
        # `apply` does the same by itself: it is the hot path.
        return Tick(
            self.time_ns,
            self.conid,
            self.bid,
            self.ask,
            self.bid_size,
            self.ask_size,
            self.last,
            self.last_size,
            0.0,
            self.volume,
            self.quality,
            self.halted,
            received_ns,
        )

    def missing(self, name: str) -> Missing:
        """Why the field ``name`` of a tick has no value."""
        if self.quality is DataQuality.NOT_SUBSCRIBED:
            return Missing.NOT_SUBSCRIBED
        if name in ("last", "last_size") and self.last is None and self.prior_close is not None:
            return Missing.NO_TRADE
        if name not in self.gone:
            return Missing.NOT_SENT
        others = (self.bid, self.ask, self.last)
        if name in ("bid", "ask", "bid_size", "ask_size") and self.quality.live and any(others):
            return Missing.NO_MARKET
        return Missing.NOT_AVAILABLE

    def _see_day(self, frame: QuoteFrame) -> None:
        value = frame.close_before
        if value is not None and value != self._close_before:
            self._evidence = self._evidence or self._close_before is not None
            self._close_before = value
        value = frame.day_open
        if value is not None and value != self._day_open:
            # The first of all openings need not be news: before the first trade of a day there is none.
            self._evidence = self._evidence or self._day_open is not None
            self._day_open = value

    def _count_from(self, time_ns: int) -> None:
        """What is told from now on belongs to the day of ``time_ns``."""
        self._evidence = False
        turn_of = self._next_turn_ns
        self._turn_ns = _NEVER_NS if turn_of is None else turn_of(time_ns)
        self._volume_ns = time_ns

    def _begins_anew(self, frame: QuoteFrame, before: float | None, time_ns: int) -> bool:
        """Whether the volume that ``frame`` tells is another day's than ``before``.

        Asked where something speaks for it: the day is over by the calendar, or a field that changes with the day
        has changed. Servers begin the volume anew at an hour of their own, and some markets trade on meanwhile: what
        the last trade's size explains is believed.
        """
        volume, size = frame.volume, frame.last_size
        over, evidence = time_ns >= self._turn_ns, self._evidence
        if not over:
            # Once a volume was told after it, it speaks for nothing any more: the open comes hours after the volume.
            self._evidence = False
        assert volume is not None
        if before is None:
            return over and evidence
        if volume == before:
            return over and evidence and size == volume
        if (over and evidence) or size == volume or volume < before * _ANEW:
            return True
        if volume < before:
            return volume < before * _CORRECTED
        paused = self._volume_ns < self._turn_ns and time_ns - self._volume_ns >= _PAUSE_NS
        return over and paused and size != volume - before

    def _annotate(self, frame: AnnotatedFrame) -> bool:
        """Take in what the text around the numbers said; true if the quote changed by it."""
        changed = False
        if frame.last is not None:
            if frame.last_prefix == values.PriceText.PREVIOUS_CLOSE:
                # A previous close is no trade of today and never shown as one.
                self.prior_close = frame.last
                frame.last = None
            elif self.halted != (frame.last_prefix == "H"):
                self.halted = not self.halted
                changed = True
        self.gone |= frame.gone
        for name in frame.gone:
            if getattr(self, name) is not None:
                setattr(self, name, None)
                changed = True
        return changed
