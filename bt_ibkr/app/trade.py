"""Modes ``paper`` and ``live``: a strategy on an account of IBKR, or of an emulator.

Before the first order can leave, the account was checked (``connection.guard``), a banner was shown, and in mode
``live`` the account was confirmed. The run ends when it is asked to (a signal, the strategy's own
``env.runstop()``) or at ``--to``.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from bt_ibkr.app.collect import collect_recording, ended, execute, make_cerebro, now_text
from bt_ibkr.app.control import ControlClient
from bt_ibkr.app.driving import LockstepMarket
from bt_ibkr.app.hub_run import emulator_of, hub_address
from bt_ibkr.app.journals import visiting
from bt_ibkr.app.login_file import default_base
from bt_ibkr.app.market import BarLength
from bt_ibkr.app.recording import RunListener
from bt_ibkr.app.request import RunRequest, Stopper, timeframe_of
from bt_ibkr.app.result import OrderBooks, RunResult
from bt_ibkr.app.sim import grace_s, let_run, market_clock, pacing_speed, read_off, refuse_driven
from bt_ibkr.clock import Clock, ManualClock, ServerClock, SystemClock
from bt_ibkr.config import API_PATH, SessionSettings, rest_base
from bt_ibkr.connection.guard import AccountGuard, Standing
from bt_ibkr.errors import BtIbkrError, JournalError, SessionError, UsageError
from bt_ibkr.hub.joining import HubAddress
from bt_ibkr.journal import journal_path
from bt_ibkr.login import is_loopback
from bt_ibkr.model.intent import UNPROVEN
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.risk import Actor, RiskLimits, Who, moved
from bt_ibkr.services.datanames import ContractQuery, parse_dataname
from bt_ibkr.store import IBKRStore
from bt_ibkr.wire.values import quality

_log = logging.getLogger(__name__)

_GRACE_S = 1.5
#: Between looks whether the account was read, seconds.
_LOOK_S = 0.05
#: Options that describe a market or an account that the command would make itself.
_OF_EMULATORS = {
    "market": "--market",
    "start_ns": "--from",
    "speed": "--speed",
    "fill": "--fill",
    "seed": "--seed",
    "day": "--day",
    "universe": "--universe",
    "cash": "--cash",
    "commission": "--commission",
}


class Banner(msgspec.Struct, frozen=True, kw_only=True):
    """What is about to be traded, told before the first order can leave.

    Attributes:
        connection: REST base and way to log on; no secret.
        emulator: The server is an emulator.
        data: For each instrument its name, field 6509 as IBKR spells it, and what it means.
    """

    mode: str
    account: str
    kind: str
    connection: str
    emulator: bool
    data: tuple[tuple[str, str, str], ...]


#: Shows the banner.
Announce = Callable[[Banner], None]
#: Asks for the account's id, typed by a person; ``None`` where there is no terminal.
Ask = Callable[[str], str]


def run_trade(
    request: RunRequest,
    mode: Literal["paper", "live"],
    listener: RunListener | None = None,
    stopper: Stopper | None = None,
    *,
    announce: Announce | None = None,
    ask: Ask | None = None,
    halter: Stopper | None = None,
) -> RunResult:
    """Trade on an account of the kind that ``mode`` names.

    Args:
        request: What; options of an emulator's market are refused.
        mode: ``paper`` refuses whatever IBKR does not report as paper, ``live`` everything that is paper or was not
            confirmed.
        listener: Told of the run.
        stopper: Ends it in order; attached once the account was admitted.
        announce: Shown what is about to be traded.
        ask: Given the account, returns the id that a person typed. Needed in mode ``live`` unless the request holds
            the confirmation.
        halter: Called from another thread, it halts trading and cancels open orders; the run goes on.

    Raises:
        NotArmedError: The account is of the other kind, or not confirmed. No order was sent.
        BtIbkrError: What ended the run; ``result`` holds what there is.
    """
    _check(request, mode)
    hub = hub_address(request)
    bar = BarLength.parse(request.bar)
    cerebro, name = make_cerebro(request, listener)
    result = RunResult(mode=mode, strategy=name, started=now_text())
    base = rest_base(request.gateway or default_base(request.login))
    settings = SessionSettings(
        base_url=base,
        trust=request.trust,
        login=request.login,
        competing=request.competing,
        region=request.region,
        market_data_lines=request.market_data_lines,
        lines_overflow=request.lines_overflow,
        clear_lines=request.clear_lines,
    )
    guard = _guard(request, mode, ask)
    with contextlib.ExitStack() as stack:
        try:
            control = emulator_at(settings, stack) if hub is None else _emulator_behind(hub, settings, stack)
            if control is not None:
                refuse_driven(control.state, base)
                settings = msgspec.structs.replace(
                    settings, pacing_speed=pacing_speed(control.state), contract_cache=False
                )
            _Trade(request, settings, guard, control, announce, halter, hub).run(
                cerebro, result, bar, stopper
            )
        except BtIbkrError as problem:
            problem.result = ended(result)  # type: ignore[attr-defined]
            raise
    return ended(result)


def _check(request: RunRequest, mode: str) -> None:
    if not request.data:
        raise UsageError(
            f"--mode {mode} was given without --data.",
            remedy="Name the instruments to follow, as --data IBM.",
        )
    defaults = RunRequest(strategy="")
    for field, option in _OF_EMULATORS.items():
        if getattr(request, field) != getattr(defaults, field):
            raise UsageError(
                f"{option} belongs to a market that this command makes itself, not to --mode {mode}.",
                remedy="Leave it out, or use --mode sim.",
            )
    for text in request.data:
        parse_dataname(text)


def _guard(request: RunRequest, mode: Literal["paper", "live"], ask: Ask | None) -> AccountGuard:
    return AccountGuard(
        mode,
        account=request.account or None,
        confirm_account=request.confirm_account or None,
        ask=None if ask is None else lambda standing: ask(standing.account),
    )


def _read_only(limits: RiskLimits) -> RiskLimits:
    """``limits``, but no order leaves: not in one account, not of one strategy either."""
    tables = {
        table: {
            name: {field: value for field, value in changes.items() if field != "read_only"}
            for name, changes in getattr(limits, table).items()
        }
        for table in ("accounts", "strategies")
    }
    return msgspec.structs.replace(limits, read_only=True, **tables)


class _Emulator(msgspec.Struct, frozen=True):
    """An emulator's control API and what it told first."""

    client: ControlClient
    url: str
    state: dict[str, Any]


def emulator_at(settings: SessionSettings, stack: contextlib.ExitStack) -> _Emulator | None:
    """The emulator at the REST base, if there is one: its market has a time of its own.

    Only servers on this machine are asked, with a path that a real gateway answers with 404.
    """
    if not is_loopback(settings.base_url):
        return None
    url = settings.base_url.removesuffix(API_PATH) + "/control"
    client = stack.enter_context(contextlib.closing(ControlClient(url, trust=settings.trust, timeout_s=10.0)))
    try:
        state = client.get("/state")
    except (BtIbkrError, OSError, http.client.HTTPException, msgspec.DecodeError):
        # Whatever is wrong there, the session's own log-on tells it better.
        return None
    if not isinstance(state, dict) or not {"now_ns", "speed", "started", "paused"} <= state.keys():
        return None
    return _Emulator(client, url, state)


def _emulator_behind(
    hub: HubAddress, settings: SessionSettings, stack: contextlib.ExitStack
) -> _Emulator | None:
    """The emulator that a hub's session is with.

    Raises:
        UsageError: There is one, but not within reach of this process: the time of its market is not known.
    """
    url = emulator_of(hub)
    if not url:
        return None
    base = url.removesuffix("/control") + API_PATH
    found = emulator_at(msgspec.structs.replace(settings, base_url=base), stack)
    if found is None:
        raise UsageError(
            f"The hub's session is with the emulator at {url}, which does not answer here.",
            remedy="Run the strategy on the emulator's machine: its market has a clock of its own.",
        )
    return found


class _Trade:
    """One run.

    Args:
        request: What.
        settings: Of the session.
        guard: Decides whether the account may be traded.
        emulator: Where the server is one.
        announce: Shown the banner.
        halter: Halts trading.
        hub: That owns the session.
    """

    def __init__(
        self,
        request: RunRequest,
        settings: SessionSettings,
        guard: AccountGuard,
        emulator: _Emulator | None,
        announce: Announce | None,
        halter: Stopper | None,
        hub: HubAddress | None = None,
    ) -> None:
        self._request = request
        self._settings = settings
        self._emulator = emulator
        self._announce = announce
        self._mode = str(guard.mode)
        guard.announce = self._tell
        self._clock: Clock = ServerClock(SystemClock()) if emulator is None else market_clock(emulator.state)
        grace = _GRACE_S if emulator is None else grace_s(self._clock, emulator.state["speed"])
        self._guard = guard
        self._halter = halter
        self._broker: Any = None
        self._over = False
        self._hub = hub
        own: dict[str, Any] = {
            "settings": settings,
            "journal": request.journal or None,
            "risk": _read_only(request.risk) if request.read_only else request.risk,
        }
        self._store = IBKRStore(
            clock=self._clock,
            guard=guard,
            bar_grace_s=grace,
            record=request.record or None,
            **({"hub": hub} if hub is not None else own),
        )

    def run(self, cerebro: Any, result: RunResult, bar: BarLength, stopper: Stopper | None) -> None:
        try:
            with self._store:
                self._run(cerebro, result, bar, stopper)
        finally:
            self._over = True
            collect_recording(result, self._store)
            place = self._place()
            if self._broker is not None and self._broker.attached and place is not None:
                result.books = self._books(place)

    def _run(self, cerebro: Any, result: RunResult, bar: BarLength, stopper: Stopper | None) -> None:
        store, request = self._store, self._request
        # First of all: nothing of the strategy is begun before the account was admitted.
        store.start()
        for query in self._queries():
            data = store.getdata(dataname=query.text, **timeframe_of(bar))
            cerebro.adddata(data, name=query.symbol or query.text)
        broker = self._broker = store.getbroker(name=request.name or None, on_resume=request.on_resume)
        cerebro.setbroker(broker)
        self._drive()
        if self._halter is not None:
            self._halter.attach(self._halt)
        if stopper is not None:
            stopper.attach(cerebro.runstop)
            stopper.attach(store.interrupt)
        try:
            strategy = execute(cerebro, result)
        except BtIbkrError:
            read_off(result, cerebro, broker, None)
            raise
        read_off(result, cerebro, broker, strategy)

    def _place(self) -> Path | None:
        """The journal's file; ``None`` before the account is known, and where a hub keeps it."""
        if self._hub is not None:
            return None
        if self._request.journal:
            return Path(self._request.journal)
        standing = self._guard.passed
        return None if standing is None else journal_path(standing.account)

    def _books(self, place: Path) -> OrderBooks | msgspec.UnsetType:
        """What the run leaves behind; it has ended, so that nothing of it changes any more."""
        try:
            with visiting(place) as journal:
                standing, state = journal.orders(open_only=True), journal.trading_state()
        except JournalError as problem:
            _log.error("journal-unread problem=%s", problem)
            return msgspec.UNSET
        unknown = [one.key for one in standing if one.state in UNPROVEN]
        return OrderBooks(
            journal=str(place),
            trading=state.mode.value,
            trading_by=state.by,
            trading_reason=state.reason,
            open=tuple(one.key for one in standing if one.state not in UNPROVEN),
            unknown=tuple(unknown),
            differences=tuple(one.text for one in self._broker.differences),
        )

    def _halt(self) -> None:
        """A signal: the state is written at once, whatever strategy and session are busy with; then open orders are
        cancelled. Not on cerebro's thread."""
        place = self._place()
        if place is None:
            self._halt_at_the_hub()
            return
        try:
            with visiting(place) as journal:
                state = self._halted(journal.trading_state())
                journal.set_trading_state(state)
        except JournalError as problem:
            _log.error("halt-failed problem=%s", problem)
            return
        _log.warning("halted-by-signal journal=%s", place)
        while not self._broker.attached:
            # The account is being read: what stands there is known after that.
            if self._over:
                return
            time.sleep(_LOOK_S)
        with contextlib.suppress(SessionError):
            # The run has ended meanwhile: nothing of it can be sent any more.
            self._store.connection.halt(state, cancel_open=True, flatten=False)

    def _halted(self, before: TradingState) -> TradingState:
        now_ns = self._clock.now_ns()
        by = Actor(Who.SIGNAL)
        return moved(before, Trading.HALTED, by=by, reason="halted by a signal", now_ns=now_ns)

    def _halt_at_the_hub(self) -> None:
        """The hub writes the state, and halts all of its strategies."""
        while not self._broker.attached:
            if self._over:
                return
            time.sleep(_LOOK_S)
        state = self._halted(self._broker.trading_state)
        with contextlib.suppress(SessionError):
            self._store.connection.halt(state, cancel_open=True, flatten=False)
        _log.warning("halted-by-signal at the hub")

    def _queries(self) -> list[ContractQuery]:
        return [parse_dataname(text) for text in self._request.data]

    def _tell(self, standing: Standing) -> None:
        """Look at the data and show the banner."""
        if self._announce is None:
            return
        connection = self._store.connection
        told = []
        for query in self._queries():
            contract = connection.resolve(query)
            code = connection.availability(contract)
            told.append((contract.symbol, code, quality(code).name.lower().replace("_", " ")))
        login = type(self._settings.login).__struct_config__.tag
        place = (
            f"{self._settings.base_url} ({login})"
            if self._hub is None
            else f"the hub at {self._hub.endpoint}"
        )
        self._announce(
            Banner(
                mode=self._mode,
                account=standing.account,
                kind=standing.kind.value,
                connection=place,
                emulator=self._emulator is not None,
                data=tuple(told),
            )
        )

    def _drive(self) -> None:
        """An emulator's market is moved or awaited; the real one goes its own way until ``--to``."""
        store, end_ns, emulator = self._store, self._request.end_ns, self._emulator
        if emulator is not None:
            if isinstance(self._clock, ManualClock):
                store.set_idle_hook(LockstepMarket(emulator.client, store, self._clock, end_ns))
            else:
                let_run(
                    emulator.client,
                    store,
                    self._clock,
                    url=emulator.url,
                    trust=self._settings.trust,
                    end_ns=end_ns,
                )
        elif end_ns:
            store.set_idle_hook(self._finish_in_time)

    def _finish_in_time(self, horizon_ns: int) -> bool:
        if self._clock.now_ns() >= self._request.end_ns:
            self._store.finish()
        return False
