"""Topic ``smd``: top of the book. First a full frame, twice; then what changed (recorded 2026-04)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from bt_ibkr.clock import NS_PER_MS, NS_PER_S
from bt_ibkr.emulator.combos import parse_spread
from bt_ibkr.emulator.services.marketdata import extra_fields, fields
from bt_ibkr.emulator.stream.connection import Connection
from bt_ibkr.emulator.types import Instrument, QuoteState
from bt_ibkr.errors import UsageError

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

DEFAULT_FIELDS = ("31", "84", "86")


class _Watched:
    """One field of a subscription; it is written anew only if what it follows from has changed."""

    __slots__ = ("depends", "read", "seen", "tag")

    def __init__(self, tag: str, read: fields.Reader, *, own: bool) -> None:
        self.tag = tag
        self.read = read
        # Other things than the quote, as a position, change further fields.
        self.depends = fields.depends(tag) if own else read
        self.seen: object = None


class Subscription:
    """One instrument on one connection."""

    __slots__ = (
        "_core",
        "_frame",
        "_sent",
        "_watched",
        "conid",
        "connection",
        "renewed_ns",
        "started",
        "target",
    )

    def __init__(
        self,
        core: Core,
        connection: Connection,
        target: str,
        instrument: Instrument,
        tags: tuple[str, ...],
        now_ns: int,
    ) -> None:
        self._core = core
        self.conid = instrument.contract.conid
        self.connection = connection
        self.target = target
        self.renewed_ns = now_ns
        self.started = False
        # 6509 is told with the first frame and when it changes, asked for or not.
        self._watched = []
        for tag in tags:
            if tag == "6509":
                continue
            read = fields.reader(instrument, tag)
            other = read or extra_fields.reader(core, instrument, tag)
            if other is not None:
                self._watched.append(_Watched(tag, other, own=read is not None))
        self._sent: dict[str, fields.Value] = {}
        self._frame: dict[str, Any] = {
            "server_id": connection.server_id,
            "conidEx": target,
            "conid": 0 if instrument.contract.legs else instrument.contract.conid,
            "_updated": 0,
            "6119": connection.server_id,
            "topic": f"smd+{target}",
        }

    def start(self, quote: QuoteState | None, now_ns: int) -> None:
        """Send everything known, twice. Without a quote only the quality of the data is known."""
        frame = dict(self._frame)
        frame["_updated"] = self._core.updated_ms(now_ns)
        frame["6509"] = quality = self._core.faults.market.quality(self.conid)
        self._sent = {"6509": quality}
        if quote is not None:
            for one in self._watched:
                one.seen = one.depends(quote)
                value = one.read(quote)
                if value is not None:
                    frame[one.tag] = self._sent[one.tag] = value
            self.started = True
        self.connection.send(frame)
        self.connection.send(frame)

    def update(self, quote: QuoteState, now_ns: int) -> None:
        """Send what changed since the last frame, if anything did."""
        sent = self._sent
        changed: dict[str, fields.Value] | None = None
        for one in self._watched:
            seen = one.depends(quote)
            if seen == one.seen:
                continue
            one.seen = seen
            value = one.read(quote)
            if value is not None and sent.get(one.tag) != value:
                sent[one.tag] = value
                if changed is None:
                    changed = {}
                changed[one.tag] = value
        if changed is None:
            return
        frame = self._frame
        frame["_updated"] = self._core.updated_ms(now_ns)
        self.connection.send({**frame, **changed})

    def tell_quality(self, now_ns: int) -> None:
        """Send the quality of the data if it is not what was told last."""
        quality = self._core.faults.market.quality(self.conid)
        if self._sent and self._sent["6509"] != quality:
            self._sent["6509"] = quality
            self.connection.send(self._frame | {"_updated": self._core.updated_ms(now_ns), "6509": quality})


class Slice:
    """One instrument's subscriptions and when their next frames are due."""

    __slots__ = ("due_ns", "subscriptions", "timer")

    def __init__(self) -> None:
        self.subscriptions: list[Subscription] = []
        self.due_ns = 0
        self.timer: int | None = None


class MarketDataStreams:
    """All top-of-book subscriptions, and their conflation in market time.

    Args:
        core: For the engine and the settings.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._slices: dict[int, Slice] = {}
        #: What is told of instruments whose data are late or stand still.
        self._late: dict[int, QuoteState | None] = {}
        self._gap_ns = core.settings.conflation_ms * NS_PER_MS
        self._lifetime_ns = int(core.settings.smd_lifetime_s * NS_PER_S)

    def subscribe(self, connection: Connection, target: str, arguments: dict[str, Any]) -> None:
        """Begin or renew; an instrument that does not exist is not answered."""
        conid = _conid(self._core, target)
        instrument = self._core.instrument(conid) if conid is not None else None
        if conid is None or instrument is None or not self._core.faults.market.entitled(conid):
            return
        if not self._core.has_line(conid):
            return
        listed = arguments.get("fields")
        tags = tuple(dict.fromkeys(str(tag) for tag in listed)) if isinstance(listed, list) else ()
        now_ns = self._core.now_ns
        subscription = Subscription(
            self._core, connection, target, instrument, tags or DEFAULT_FIELDS, now_ns
        )
        found = self._slices.setdefault(conid, Slice())
        found.subscriptions = [
            one for one in found.subscriptions if one.connection is not connection or one.target != target
        ]
        found.subscriptions.append(subscription)
        self._core.engine.book(conid)  # options and combos come into the market when they are asked for
        subscription.start(self.shown(conid), now_ns)

    def unsubscribe(self, connection: Connection, target: str) -> None:
        conid = _conid(self._core, target)
        if conid is not None:
            self._drop(conid, lambda one: one.connection is connection and one.target == target)

    def drop_connection(self, connection: Connection) -> None:
        for conid in list(self._slices):
            self._drop(conid, lambda one: one.connection is connection)

    def close(self, conid: int | None) -> bool:
        """End the streams of one instrument, or of all; whether there were any."""
        conids = list(self._slices) if conid is None else [conid]
        dropped = [one for one in conids if self._drop(one, lambda _: True)]
        return bool(dropped)

    def has(self, conid: int) -> bool:
        return conid in self._slices

    @property
    def conids(self) -> frozenset[int]:
        """What streams."""
        return frozenset(self._slices)

    def shown(self, conid: int) -> QuoteState | None:
        """The quote that clients are told."""
        market = self._core.faults.market
        if market.withheld(conid):
            return None
        if conid not in self._late and market.frozen(conid):
            self._late[conid] = copy.copy(self._core.engine.quote(conid))
        if conid in self._late or market.delay_ns(conid):
            return self._late.get(conid)
        return self._core.engine.quote(conid)

    def clear(self) -> None:
        self.close(None)

    def quality_changed(self) -> None:
        self._late.clear()
        for conid, found in self._slices.items():
            self.shown(conid)  # what freezes now stands as it is now
            for one in found.subscriptions:
                one.tell_quality(self._core.now_ns)

    def restart(self) -> None:
        """The market began anew: every stream starts with a full frame again."""
        self._late.clear()
        for found in self._slices.values():
            found.due_ns, found.timer = 0, None
            for one in found.subscriptions:
                one.started = False
                one.renewed_ns = self._core.now_ns

    def on_quote(self, conid: int, quote: QuoteState, now_ns: int) -> None:
        """The quote changed: send now, or when the instrument's next frame is due."""
        market = self._core.faults.market
        if market.changed:
            if market.withheld(conid) or market.frozen(conid):
                return
            if delay_ns := market.delay_ns(conid):
                then = copy.copy(quote)
                self._core.engine.schedule(now_ns + delay_ns, lambda at_ns: self._show(conid, then, at_ns))
                return
        self._tell(conid, quote, now_ns)

    def _show(self, conid: int, quote: QuoteState, now_ns: int) -> None:
        """A quote of some time ago."""
        if self._core.faults.market.delay_ns(conid):
            self._late[conid] = quote
            self._tell(conid, quote, now_ns)

    def _tell(self, conid: int, quote: QuoteState, now_ns: int) -> None:
        found = self._slices.get(conid)
        if found is None or found.timer is not None:
            return
        if now_ns >= found.due_ns:
            found.due_ns = now_ns + self._gap_ns
            self._push(conid, found, quote, now_ns)
        else:
            found.timer = self._core.engine.schedule(found.due_ns, lambda at_ns: self._timer(conid, at_ns))

    def _timer(self, conid: int, now_ns: int) -> None:
        found = self._slices.get(conid)
        quote = self.shown(conid)
        if found is None:
            return
        if quote is None:
            found.timer = None
            return
        found.timer = None
        found.due_ns = now_ns + self._gap_ns
        self._push(conid, found, quote, now_ns)

    def _push(self, conid: int, found: Slice, quote: QuoteState, now_ns: int) -> None:
        expired = False
        for one in found.subscriptions:
            if self._lifetime_ns and now_ns - one.renewed_ns >= self._lifetime_ns:
                expired = True
            elif one.started:
                one.update(quote, now_ns)
            else:
                one.start(quote, now_ns)
        if expired:
            self._drop(conid, lambda one: now_ns - one.renewed_ns >= self._lifetime_ns)

    def _drop(self, conid: int, which: Any) -> bool:
        found = self._slices.get(conid)
        if found is None:
            return False
        before = len(found.subscriptions)
        found.subscriptions = [one for one in found.subscriptions if not which(one)]
        dropped = len(found.subscriptions) < before
        if not found.subscriptions:
            if found.timer is not None:
                self._core.engine.cancel_timer(found.timer)
            del self._slices[conid]
        return dropped


def _conid(core: Core, target: str) -> int | None:
    """The key of what a topic names: a conid, one on an exchange, or a combo, whose spread conid is 0 here."""
    if ";" in target:
        spread = parse_spread(target)
        try:
            return None if spread is None else core.universe.combo(spread.legs).contract.conid
        except UsageError:
            return None
    text = target.partition("@")[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
