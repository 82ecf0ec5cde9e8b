"""Mode ``sim``: live against an emulator, over real HTTP and WebSocket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec

from bt_ibkr.app.collect import (
    collect_counts,
    collect_orders,
    collect_recording,
    ended,
    execute,
    make_cerebro,
    now_text,
    position_row,
    running_strategy,
)
from bt_ibkr.app.control import ControlClient, EmulatorProcess
from bt_ibkr.app.driving import EndWatch, FollowingClock, LockstepMarket, catch_up
from bt_ibkr.app.market import BarLength
from bt_ibkr.app.recording import RunListener
from bt_ibkr.app.request import RunRequest, Stopper, emulator_settings, instruments_of, timeframe_of
from bt_ibkr.app.result import ExecutionRow, RunResult, utc_text
from bt_ibkr.clock import Clock, ManualClock, ScaledClock
from bt_ibkr.config import API_PATH, SessionSettings, Trust, rest_base
from bt_ibkr.connection.direct import JournalInMemory
from bt_ibkr.connection.guard import AccountGuard
from bt_ibkr.errors import BtIbkrError, SessionError, UsageError
from bt_ibkr.feeds import contract_of
from bt_ibkr.services.datanames import parse_dataname
from bt_ibkr.store import IBKRStore

_CENT = 0.005
#: Wall seconds after a bar's edge at which a market that runs by its own clock closes it.
_GRACE_S = 0.25


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    """The emulator of a run.

    Attributes:
        own: Started for this run alone: its ledger must agree with the broker's book to the last execution.
        names: Dataname and display name of each instrument.
    """

    url: str
    control: str
    trust: Trust
    own: bool
    names: tuple[tuple[str, str], ...]


def run_sim(
    request: RunRequest, listener: RunListener | None = None, stopper: Stopper | None = None
) -> RunResult:
    """Live against an emulator: one started for this run, or the one at ``request.gateway``."""
    bar = BarLength.parse(request.bar)
    cerebro, name = make_cerebro(request, listener)
    result = RunResult(
        mode="sim", strategy=name, started=now_text(), start_cash=request.cash, start_value=request.cash
    )
    with contextlib.ExitStack() as stack:
        try:
            target = stack.enter_context(_target(request))
            control = stack.enter_context(
                contextlib.closing(ControlClient(target.control, trust=target.trust))
            )
            _run_against(request, cerebro, result, target, control, bar, stopper)
            if not result.bars and not (stopper is not None and stopper.asked):
                followed = ", ".join(shown for _, shown in target.names)
                raise UsageError(
                    f"There were no bars of {followed} between the bounds of this run.",
                    remedy="Look at --from, --to and the days of the market.",
                )
        except BtIbkrError as problem:
            if cerebro.datas:
                problem.result = ended(result)  # type: ignore[attr-defined]
            raise
    return ended(result)


@contextlib.contextmanager
def _target(request: RunRequest) -> Iterator[_Target]:
    if request.gateway:
        yield _running_emulator(request)
        return
    settings = emulator_settings(request)
    names = tuple((name, i.contract.symbol) for name, i in instruments_of(request, settings))
    with EmulatorProcess(settings) as emulator:
        yield _Target(url=emulator.url, control=emulator.control, trust=Trust(), own=True, names=names)


def _running_emulator(request: RunRequest) -> _Target:
    """The emulator at ``request.gateway``. Whatever lacks an emulator's control API is none, and not traded on."""
    if not request.data:
        raise UsageError(
            "--gateway was given without --data.", remedy="Name the instruments to follow, as --data IBM."
        )
    if request.market or request.start_ns:
        raise UsageError(
            "--market and --from belong to an emulator that this command starts, not to --gateway.",
            remedy="Leave them out, or leave --gateway out.",
        )
    url = SessionSettings(base_url=rest_base(request.gateway), trust=request.trust).base_url
    control = url.removesuffix(API_PATH) + "/control"
    with contextlib.closing(ControlClient(control, trust=request.trust)) as client:
        try:
            client.get("/state")
        except (SessionError, msgspec.DecodeError) as problem:
            if type(problem) is not SessionError and isinstance(problem, SessionError):
                raise
            raise UsageError(
                f"The server at {url} is no emulator: it has no control API.",
                remedy="Mode sim trades on an emulator only; start one with bt-ibkr emulator.",
            ) from None
    names = tuple((text, parse_dataname(text).symbol or text) for text in request.data)
    return _Target(url=url, control=control, trust=request.trust, own=False, names=names)


def _run_against(
    request: RunRequest,
    cerebro: Any,
    result: RunResult,
    target: _Target,
    control: ControlClient,
    bar: BarLength,
    stopper: Stopper | None,
) -> None:
    state = control.get("/state")
    speed = state["speed"]
    refuse_driven(state, target.url)
    if request.start_ns:
        if speed != "lockstep":
            raise UsageError(
                "--from needs --speed lockstep in mode sim.",
                remedy="Leave --speed out, or cut the market file to begin where the run shall.",
            )
        # Nobody is connected yet: what happens before --from becomes history.
        control.post("/step", {"until_ns": request.start_ns, "max_events": None, "received": {}})
        state = control.get("/state")
    clock = market_clock(state)
    store = IBKRStore(
        settings=SessionSettings(
            base_url=target.url,
            trust=target.trust,
            paced=not target.own,
            pacing_speed=pacing_speed(state),
        ),
        clock=clock,
        bar_grace_s=grace_s(clock, speed),
        # The control API has shown that this is an emulator: no account of it holds money.
        guard=AccountGuard("sim"),
        # In an emulator of its own a run numbers its orders the same way every time.
        journal=JournalInMemory(f"{request.seed % 100_000:05d}" if target.own else None),
        record=request.record or None,
    )
    try:
        with store:
            for dataname, name in target.names:
                data = store.getdata(dataname=dataname, backfill_start=False, **timeframe_of(bar))
                cerebro.adddata(data, name=name)
            broker = store.getbroker()
            cerebro.setbroker(broker)
            if isinstance(clock, ManualClock):
                store.set_idle_hook(LockstepMarket(control, store, clock, request.end_ns))
            else:
                let_run(control, store, clock, url=target.control, trust=target.trust, end_ns=request.end_ns)
            if stopper is not None:
                stopper.attach(cerebro.runstop)
                stopper.attach(store.interrupt)
            try:
                strategy = execute(cerebro, result)
            except BtIbkrError:
                # Orders may have been sent just before: take in their answers, then tell what there is.
                store.close()
                read_off(result, cerebro, broker, running_strategy(cerebro))
                raise
            read_off(result, cerebro, broker, strategy)
            if strategy is not None and not (stopper is not None and stopper.asked):
                result.errors.extend(_differences(control.get("/ledger"), broker, result, own=target.own))
    finally:
        collect_recording(result, store)


def refuse_driven(state: dict[str, Any], url: str) -> None:
    """Two runs that both moved a lockstep market would each see it jump.

    Raises:
        UsageError: Another run moves it.
    """
    if state["speed"] == "lockstep" and state.get("driven"):
        raise UsageError(
            f"The emulator at {url} is in lockstep with another run, which moves its market.",
            remedy="Wait until that run has ended, or start an emulator of your own (or one with --speed 1).",
        )


def pacing_speed(state: dict[str, Any]) -> float:
    """How fast the clock of an emulator's limits runs."""
    told = state.get("pacing")
    return float(told["speed"]) if isinstance(told, dict) else 1.0


def grace_s(clock: Clock, speed: object) -> float:
    """Market seconds that a bar of an emulator's market waits for its last ticks."""
    return _GRACE_S * float(str(speed)) if isinstance(clock, ScaledClock) else 0.0


def market_clock(state: dict[str, Any]) -> Clock:
    """The market clock of a run, by the emulator's own speed."""
    now_ns, speed = int(state["now_ns"]), state["speed"]
    if speed == "lockstep":
        return ManualClock(now_ns)
    if speed == "max":
        return FollowingClock(now_ns)
    clock = ScaledClock(now_ns, float(speed))
    if state["started"] and not state["paused"]:
        clock.restart()
    return clock


def let_run(
    control: ControlClient, store: IBKRStore, clock: Clock, *, url: str, trust: Trust, end_ns: int
) -> None:
    """Start a market that moves by itself once the strategy's subscriptions stand.

    Args:
        control: The emulator's control API.
        store: The run's store.
        clock: The run's clock.
        url: Base of the control API, for a connection of its own that waits for the end of the tape.
        trust: How its certificate is judged.
        end_ns: The market is over at this time; 0 for the end of the tape.
    """
    started = False

    def look(horizon_ns: int) -> bool:
        nonlocal started
        if not started:
            started = True
            if isinstance(clock, FollowingClock):
                clock.stream_ns = store.connection.stream_ns
            if not control.get("/state")["started"]:
                if isinstance(clock, ScaledClock):
                    clock.restart()
                control.post("/start", {})
            EndWatch(url, store, trust=trust).start()
        elif end_ns and clock.now_ns() >= end_ns:
            store.finish()
        return store.finishing and catch_up(control, store)

    store.set_idle_hook(look)


def read_off(result: RunResult, cerebro: Any, broker: Any, strategy: Any | None) -> None:
    """Fill ``result`` from broker and recorder."""
    if strategy is not None:
        collect_counts(result, strategy)
    collect_orders(result, broker.orders, broker.client_order_id, broker.order_id)
    result.executions = _executions(broker)
    with contextlib.suppress(BtIbkrError):
        # A feed that could not start has no position.
        result.position = {d._name: position_row(broker.getposition(d)) for d in cerebro.datas}
    result.errors.extend(broker.problems)
    result.start_cash, result.start_value = float(broker.startingcash), float(broker.startingvalue)
    result.cash, result.value = float(broker.getcash()), float(broker.getvalue())


def _executions(broker: Any) -> list[ExecutionRow]:
    return [
        ExecutionRow(
            execution_id=e.execution_id,
            time=utc_text(e.time_ns),
            symbol=e.symbol,
            side=e.side.value,
            size=float(e.quantity),
            price=e.price,
            commission=e.commission or 0.0,
            order_ref=coid,
        )
        for coid, e in broker.executions
    ]


def _differences(ledger: dict[str, Any], broker: Any, result: RunResult, *, own: bool) -> list[str]:
    """Where the broker's book and the emulator's own ledger disagree; nothing, unless something is wrong."""
    found = []
    theirs = ledger["executions"] if own else []
    ours = {e.execution_id for _, e in broker.executions}
    for execution in theirs:
        if execution["execution_id"] not in ours:
            found.append(f"The emulator's execution {execution['execution_id']} did not reach the strategy.")
    if own and len(ours) > len(theirs):
        found.append(f"The broker counts {len(ours)} executions, the emulator {len(theirs)}.")
    account = ledger["accounts"][broker.p.store.account]
    cash = float(account["cash"].get("USD", 0.0))
    if abs(cash - result.cash) > _CENT:
        found.append(f"Cash differs: {result.cash:.2f} in the broker, {cash:.2f} in the emulator's ledger.")
    positions = {int(conid): float(p["quantity"]) for conid, p in account["positions"].items()}
    for data in broker.positions:
        size, other = float(broker.getposition(data).size), positions.get(contract_of(data).conid, 0.0)
        if size != other:
            found.append(
                f"Position of {data._name} differs: {size:g} in the broker, {other:g} in the ledger."
            )
    return found
