"""A tape after corporate actions: the prices of a share that was split, events under another conid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import msgspec

from bt_ibkr.emulator.market.tape import TapeLike
from bt_ibkr.emulator.types import MarketEvent
from bt_ibkr.model.market import Bar


class AdjustedTape:
    """Another tape, as it is from now on.

    Args:
        tape: The tape as it was; at a restart it is that again.
    """

    def __init__(self, tape: TapeLike) -> None:
        self._tape = tape
        self._ratios: dict[int, tuple[Fraction, Fraction]] = {}
        self._conids: dict[int, int] = {}

    def split(self, conid: int, ratio: Fraction, tick: Fraction) -> None:
        """One share became ``ratio`` shares; prices are rounded to ``tick``."""
        before = self._ratios.get(conid, (Fraction(1), tick))[0]
        self._ratios[conid] = (before * ratio, tick)

    def rename(self, conid: int, new_conid: int) -> None:
        """What happens to ``conid`` happens to ``new_conid``."""
        for old, present in list(self._conids.items()):
            if present == conid:
                self._conids[old] = new_conid
        self._conids[conid] = new_conid
        if conid in self._ratios:
            self._ratios[new_conid] = self._ratios[conid]

    def adjusted(self, event: MarketEvent) -> MarketEvent:
        """An event of the former tape as it is now."""
        conid = self._conids.get(event.conid, event.conid)
        if conid in self._ratios:
            event = scaled(event, *self._ratios[conid])
        return event if conid == event.conid else msgspec.structs.replace(event, conid=conid)

    @property
    def start_ns(self) -> int:
        return self._tape.start_ns

    @property
    def opens_ns(self) -> int:
        return self._tape.opens_ns

    @property
    def end_ns(self) -> int:
        return self._tape.end_ns

    @property
    def conids(self) -> tuple[int, ...]:
        return self._tape.conids

    def next_ns(self) -> int | None:
        return self._tape.next_ns()

    def peek(self) -> MarketEvent | None:
        event = self._tape.peek()
        return None if event is None else self.adjusted(event)

    def pop(self) -> MarketEvent:
        return self.adjusted(self._tape.pop())

    def restart(self) -> None:
        self._ratios.clear()
        self._conids.clear()
        self._tape.restart()

    def reseed(self, seed: int) -> None:
        """Of a market that follows from a seed; others stay as they are."""
        reseed = getattr(self._tape, "reseed", None)
        if reseed is not None:
            reseed(seed)

    def pictures(self) -> Sequence[MarketEvent]:
        return self._tape.pictures()

    def prior_bars(self) -> Mapping[int, Sequence[Bar]]:
        return self._tape.prior_bars()


def scaled(event: MarketEvent, ratio: Fraction, tick: Fraction) -> MarketEvent:
    """An event after ``ratio`` shares came out of one."""

    def price(value: float | None) -> float | None:
        return None if value is None else float(round(Fraction(repr(value)) / ratio / tick) * tick)

    def size(value: float | None) -> float | None:
        return None if value is None else float(Fraction(repr(value)) * ratio)

    return msgspec.structs.replace(
        event,
        bid=price(event.bid),
        bid_size=size(event.bid_size),
        ask=price(event.ask),
        ask_size=size(event.ask_size),
        last=price(event.last),
        last_size=size(event.last_size),
        traded=size(event.traded),
        volume=size(event.volume),
    )
