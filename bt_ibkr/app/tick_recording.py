"""Recording without a strategy: logged on, subscribed, written, until told to end."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from bt_ibkr.app.collect import missing_ticks
from bt_ibkr.app.driving import LockstepMarket
from bt_ibkr.app.login_file import default_base
from bt_ibkr.app.request import Stopper
from bt_ibkr.app.result import utc_text
from bt_ibkr.app.sim import let_run, market_clock, pacing_speed
from bt_ibkr.app.trade import emulator_at
from bt_ibkr.app.visit import Address, check_kind
from bt_ibkr.clock import NS_PER_S, Clock, ManualClock, SystemClock
from bt_ibkr.config import SessionSettings, rest_base
from bt_ibkr.connection.guard import AccountGuard
from bt_ibkr.errors import UsageError
from bt_ibkr.recorder import RecorderCounts
from bt_ibkr.services.datanames import parse_dataname
from bt_ibkr.store import IBKRStore
from bt_ibkr.wire.values import quality

#: How far a lockstep market that nobody else moves is moved at a time.
_STEP_NS = NS_PER_S
_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400}


class RecordWishes(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be recorded.

    Attributes:
        datanames: At least one.
        folder: Where to.
        length_ns: For so long, in market time; 0 for no bound.
        until_ns: Until this market time; 0 for no bound.
    """

    datanames: tuple[str, ...]
    folder: str
    length_ns: int = 0
    until_ns: int = 0


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument that is recorded: its quality is what IBKR says of the data when the recording begins."""

    name: str
    contract: str
    conid: int
    quality: str


class RecordingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument of a recording that has ended."""

    name: str
    contract: str
    conid: int
    quality: str
    ticks: int


class RecordingResult(msgspec.Struct, kw_only=True):
    """What a recording has to tell, as ``--json`` prints it.

    Attributes:
        start, end: Market time, UTC, ISO 8601.
        ticks, dropped: Taken, and not taken because the disk did not keep up.
        bytes, files: On the disk, of this recording.
        gaps: How often the stream broke.
        errors: What is missing in it, in words.
    """

    folder: str
    start: str
    end: str = ""
    instruments: list[RecordingRow] = []
    ticks: int = 0
    dropped: int = 0
    bytes: int = 0
    files: int = 0
    gaps: int = 0
    errors: list[str] = []


class RecordListener(Protocol):
    """Told of a recording as it goes."""

    def on_begin(self, followed: tuple[Followed, ...]) -> None:
        """The instruments are subscribed."""

    def on_progress(self, counts: RecorderCounts, now_ns: int) -> None:
        """Several times a second, with the market's time."""

    def on_event(self, message: str, text: str) -> None:
        """Something befell the session or the recording."""


def parse_length(text: str) -> int:
    """A length of time of the command line, as ``2h``, ``90min``, ``30s``, in nanoseconds.

    Raises:
        UsageError: None.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)", text.strip().lower())
    length_ns = 0 if found is None else round(float(found[1]) * _UNITS[found[2]] * NS_PER_S)
    if not length_ns:
        raise UsageError(
            f"{text!r} is no length of time.", remedy="Give a number above 0 with s, min, h or d: 30s, 2h."
        )
    return length_ns


def record_ticks(
    address: Address, wishes: RecordWishes, listener: RecordListener, stopper: Stopper
) -> RecordingResult:
    """Record until the bounds, the end of an emulator's tape, or ``stopper``.

    Raises:
        UsageError: The time to record until has passed, the folder cannot be written, or the account is not the
            login's.
        ContractError: A dataname means no instrument, or several.
        LinesError: There are more instruments than market-data lines.
        SessionError: The way there.
    """
    queries = [parse_dataname(text) for text in wishes.datanames]
    settings = SessionSettings(
        base_url=rest_base(address.gateway or default_base(address.login)),
        trust=address.trust,
        login=address.login,
        competing=address.competing,
    )
    guard = AccountGuard(None, account=address.account or None)
    clock: Clock = SystemClock()
    with contextlib.ExitStack() as stack:
        emulator = emulator_at(settings, stack)
        if emulator is not None:
            settings = msgspec.structs.replace(settings, pacing_speed=pacing_speed(emulator.state))
            clock = market_clock(emulator.state)
        _check_until(wishes.until_ns, clock)
        store = stack.enter_context(
            IBKRStore(settings=settings, clock=clock, guard=guard, journal=":memory:", record=wishes.folder)
        )
        store.start()
        check_kind(address.mode, guard)
        followed = _follow(store, queries)
        # Once it is said that it records, an interrupt ends it in order.
        stopper.attach(store.interrupt)
        listener.on_begin(followed)
        begin_ns = clock.now_ns()
        bounds = [begin_ns + wishes.length_ns] if wishes.length_ns else []
        bounds += [wishes.until_ns] if wishes.until_ns else []
        end_ns = min(bounds, default=0)
        if emulator is not None:
            _move(emulator, store, clock, settings, end_ns)
        result = RecordingResult(folder=wishes.folder, start=utc_text(begin_ns))
        _listen(store, clock, end_ns, listener, stopper, result)
        result.end = utc_text(clock.now_ns())
        store.close()
        assert store.recorder is not None
        _fill(result, followed, store.recorder.counts())
    return result


def _check_until(until_ns: int, clock: Clock) -> None:
    now_ns = clock.now_ns()
    if until_ns and until_ns <= now_ns:
        raise UsageError(
            f"--until {utc_text(until_ns)} has passed: it is {utc_text(now_ns)} for the market.",
            remedy="Give a later time (UTC unless it says otherwise), or --for.",
        )


def _follow(store: IBKRStore, queries: list[Any]) -> tuple[Followed, ...]:
    """Subscribe to everything."""
    connection, recorder = store.connection, store.recorder
    assert recorder is not None
    # All names are understood before the first line is used.
    contracts = [connection.resolve(query) for query in queries]
    sinks = [recorder.sink(one, query.text) for one, query in zip(contracts, queries, strict=True)]
    followed = []
    for contract, sink, query in zip(contracts, sinks, queries, strict=True):
        connection.subscribe_ticks(contract, sink)
        told = quality(connection.availability(contract)).name.lower().replace("_", " ")
        followed.append(
            Followed(name=query.text, contract=contract.describe(), conid=contract.conid, quality=told)
        )
    return tuple(followed)


def _move(emulator: Any, store: IBKRStore, clock: Clock, settings: SessionSettings, end_ns: int) -> None:
    """See that an emulator's market moves, unless somebody else moves it."""
    if not isinstance(clock, ManualClock):
        let_run(emulator.client, store, clock, url=emulator.url, trust=settings.trust, end_ns=0)
        return
    if emulator.state.get("driven"):
        store.set_idle_hook(_watch(emulator, clock))
        return
    market = LockstepMarket(emulator.client, store, clock, 0)

    def step(horizon_ns: int) -> bool:
        now_ns = clock.now_ns()
        if end_ns and now_ns >= end_ns:
            store.interrupt()
            return False
        return market(min(now_ns + _STEP_NS, end_ns or now_ns + _STEP_NS))

    store.set_idle_hook(step)


def _watch(emulator: Any, clock: ManualClock) -> Callable[[int], bool]:
    """Another run moves the market: its time is read off it."""

    def look(horizon_ns: int) -> bool:
        clock.set_ns(int(emulator.client.get("/state")["now_ns"]))
        return False

    return look


def _listen(
    store: IBKRStore,
    clock: Clock,
    end_ns: int,
    listener: RecordListener,
    stopper: Stopper,
    result: RecordingResult,
) -> None:
    recorder = store.recorder
    assert recorder is not None
    while not stopper.asked and not store.finishing and not (end_ns and clock.now_ns() >= end_ns):
        for message, args, kwargs in store.get_notifications():
            about = args[0] if args else None
            result.gaps += message == "gap"
            text = next((t for t in (getattr(about, n, "") for n in ("cause", "text")) if t), "")
            listener.on_event(str(message), str(text or kwargs.get("error") or ""))
        listener.on_progress(recorder.counts(), clock.now_ns())


def _fill(result: RecordingResult, followed: tuple[Followed, ...], counts: RecorderCounts) -> None:
    """What the recorder has counted; it keeps instruments in the order in which they were named."""
    result.instruments = [
        RecordingRow(name=one.name, contract=one.contract, conid=one.conid, quality=one.quality, ticks=ticks)
        for one, ticks in zip(followed, counts.instruments.values(), strict=True)
    ]
    result.ticks, result.dropped = counts.ticks, counts.dropped
    result.bytes, result.files = counts.bytes, counts.files
    result.errors = missing_ticks(counts)
