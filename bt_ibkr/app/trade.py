"""Modes ``paper`` and ``live``: a strategy on an account of IBKR, or of an emulator.

Before the first order can leave, the account was checked (``connection.guard``), a banner was shown, and in mode
``live`` the account was confirmed. The run ends when it is asked to (a signal, the strategy's own
``env.runstop()``) or at ``--to``.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from bt_ibkr.app.collect import ended, execute, make_cerebro, now_text
from bt_ibkr.app.control import ControlClient
from bt_ibkr.app.driving import LockstepMarket
from bt_ibkr.app.login_file import default_base
from bt_ibkr.app.market import BarLength
from bt_ibkr.app.recording import RunListener
from bt_ibkr.app.request import RunRequest, Stopper, timeframe_of
from bt_ibkr.app.result import RunResult
from bt_ibkr.app.sim import grace_s, let_run, market_clock, pacing_speed, read_off, refuse_driven
from bt_ibkr.clock import Clock, ManualClock, SystemClock
from bt_ibkr.config import API_PATH, SessionSettings, rest_base
from bt_ibkr.connection.guard import AccountGuard, Standing
from bt_ibkr.errors import BtIbkrError, UsageError
from bt_ibkr.login import is_loopback
from bt_ibkr.services.datanames import ContractQuery, parse_dataname
from bt_ibkr.store import IBKRStore
from bt_ibkr.wire.values import quality

_GRACE_S = 1.5
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

    Raises:
        NotArmedError: The account is of the other kind, or not confirmed. No order was sent.
        BtIbkrError: What ended the run; ``result`` holds what there is.
    """
    _check(request, mode)
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
    )
    guard = _guard(request, mode, ask)
    with contextlib.ExitStack() as stack:
        try:
            control = _emulator_at(settings, stack)
            if control is not None:
                refuse_driven(control.state, base)
                settings = msgspec.structs.replace(settings, pacing_speed=pacing_speed(control.state))
            _Trade(request, settings, guard, control, announce).run(cerebro, result, bar, stopper)
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


class _Emulator(msgspec.Struct, frozen=True):
    """An emulator's control API and what it told first."""

    client: ControlClient
    url: str
    state: dict[str, Any]


def _emulator_at(settings: SessionSettings, stack: contextlib.ExitStack) -> _Emulator | None:
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


class _Trade:
    """One run.

    Args:
        request: What.
        settings: Of the session.
        guard: Decides whether the account may be traded.
        emulator: Where the server is one.
        announce: Shown the banner.
    """

    def __init__(
        self,
        request: RunRequest,
        settings: SessionSettings,
        guard: AccountGuard,
        emulator: _Emulator | None,
        announce: Announce | None,
    ) -> None:
        self._request = request
        self._settings = settings
        self._emulator = emulator
        self._announce = announce
        self._mode = str(guard.mode)
        guard.announce = self._tell
        self._clock: Clock = SystemClock() if emulator is None else market_clock(emulator.state)
        grace = _GRACE_S if emulator is None else grace_s(self._clock, emulator.state["speed"])
        self._store = IBKRStore(settings=settings, clock=self._clock, guard=guard, bar_grace_s=grace)

    def run(self, cerebro: Any, result: RunResult, bar: BarLength, stopper: Stopper | None) -> None:
        store = self._store
        with store:
            # First of all: nothing of the strategy is begun before the account was admitted.
            store.start()
            for query in self._queries():
                data = store.getdata(dataname=query.text, **timeframe_of(bar))
                cerebro.adddata(data, name=query.symbol or query.text)
            broker = store.getbroker()
            cerebro.setbroker(broker)
            self._drive()
            if stopper is not None:
                stopper.attach(cerebro.runstop)
                stopper.attach(store.interrupt)
            try:
                strategy = execute(cerebro, result)
            except BtIbkrError:
                read_off(result, cerebro, broker, None)
                raise
            read_off(result, cerebro, broker, strategy)

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
        self._announce(
            Banner(
                mode=self._mode,
                account=standing.account,
                kind=standing.kind.value,
                connection=f"{self._settings.base_url} ({login})",
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
