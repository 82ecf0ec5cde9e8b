"""Running one strategy class: over stored bars, or live against the emulator."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import backtrader as bt
import msgspec
import pandas as pd

from bt_ibkr.app.control import ControlClient, EmulatorProcess
from bt_ibkr.app.driving import EndWatch, FollowingClock, LockstepMarket
from bt_ibkr.app.loading import checked, load_strategy, strategy_parameters
from bt_ibkr.app.market import BarLength, market_bars
from bt_ibkr.app.recording import RunListener, RunRecorder
from bt_ibkr.app.result import ExecutionRow, PositionRow, RunResult, order_row, utc_text
from bt_ibkr.brokers import IBKRCommission
from bt_ibkr.clock import Clock, ManualClock, ScaledClock
from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.build import open_market
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.errors import (
    AmbiguousContractError,
    BtIbkrError,
    ContractNotFoundError,
    RunFailedError,
    UsageError,
)
from bt_ibkr.feeds.times import epoch_ns
from bt_ibkr.model.contract import SecurityType
from bt_ibkr.services.datanames import parse_dataname
from bt_ibkr.store import IBKRStore

#: What is traded when nothing is named: two instruments of the synthetic market.
DEFAULT_SYMBOLS = ("AAPL", "SPY")
_CENT = 0.005


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be run.

    Attributes:
        strategy: See ``app.loading``.
        assignments: ``name=value`` for the strategy's parameters.
        data: Datanames; by default all instruments of ``market``, or two of the synthetic one.
        market: ``FILE[:SYMBOL]``; empty for a synthetic day.
        bar: Length of the bars, as ``1min``.
        cash: At the start, in USD.
        start_ns, end_ns: Bounds of market time; 0 for none.
        speed: ``lockstep``, ``max`` or a factor; of the emulator only.
        fill: Fill model of the emulator.
        seed: Of the synthetic market.
        day: Of the synthetic market, ``YYYY-MM-DD``; empty for the default.
        commission: ``fixed``, ``tiered`` or ``none``.
        universe: Table of further instruments.
    """

    strategy: str
    assignments: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    market: tuple[str, ...] = ()
    bar: str = "1min"
    cash: float = 100_000.0
    start_ns: int = 0
    end_ns: int = 0
    speed: str = "lockstep"
    fill: str = "quote"
    seed: int = 0
    day: str = ""
    commission: str = "fixed"
    universe: str = ""


class Stopper:
    """Ends a run from outside (a signal handler): at once, but in order."""

    def __init__(self) -> None:
        self.asked = False
        self._stop: list[Callable[[], None]] = []

    @property
    def attached(self) -> bool:
        """Whether there is a run yet that can be ended in order."""
        return bool(self._stop)

    def attach(self, stop: Callable[[], None]) -> None:
        self._stop.append(stop)
        if self.asked:
            stop()

    def __call__(self) -> None:
        self.asked = True
        for stop in self._stop:
            stop()


def emulator_settings(request: RunRequest) -> EmulatorSettings:
    """The emulator of a run: every event a frame of its own, so that live bars equal the tape's."""
    speed: Any = request.speed
    if speed not in ("lockstep", "max"):
        try:
            speed = float(speed)
        except ValueError:
            raise UsageError(
                f"--speed {request.speed!r} is no speed.", remedy="Give lockstep, max, or a number above 0."
            ) from None
    if request.fill not in ("quote", "last"):
        raise UsageError(f"--fill {request.fill!r} is no fill model.", remedy="Give quote or last.")
    if not request.cash > 0:
        raise UsageError(f"--cash {request.cash!r} cannot be traded with.", remedy="Give an amount above 0.")
    if request.start_ns and request.end_ns and request.start_ns >= request.end_ns:
        raise UsageError("--from is not before --to.")
    synthetic = tuple(parse_dataname(d).symbol for d in request.data) or DEFAULT_SYMBOLS
    return EmulatorSettings(
        port=0,
        market=request.market,
        synthetic_day=request.day,
        synthetic_instruments=() if request.market else synthetic,
        universe=request.universe,
        speed=speed,
        autostart=False,
        fill=request.fill,  # type: ignore[arg-type]
        seed=request.seed,
        pacing="off",
        conflation_ms=0,
        cash=request.cash,
        commission=request.commission,  # type: ignore[arg-type]
    )


def _instruments(request: RunRequest, settings: EmulatorSettings) -> list[tuple[str, Instrument]]:
    """Dataname and instrument of everything that the run follows."""
    universe, tape = open_market(settings)
    on_tape = [i for i in (universe.by_conid(conid) for conid in tape.conids) if i is not None]
    if not request.data:
        return [(_dataname(instrument), instrument) for instrument in on_tape]
    chosen = []
    for text in request.data:
        query = parse_dataname(text)
        found = [i for i in on_tape if i.contract.conid == query.conid or i.contract.symbol == query.symbol]
        if not found:
            names = ", ".join(sorted(i.contract.symbol for i in on_tape))
            raise ContractNotFoundError(
                f"The market of this run does not trade {text!r}; it trades {names}.",
                remedy="Name one of them with --data, or add its ticks with --market FILE:SYMBOL.",
            )
        if len(found) > 1:
            rows = ", ".join(f"conid:{i.contract.conid} ({i.company_name})" for i in found)
            raise AmbiguousContractError(f"{text!r} is ambiguous: {rows}.", remedy="Name one by its conid.")
        chosen.append((text, found[0]))
    return chosen


def _dataname(instrument: Instrument) -> str:
    contract = instrument.contract
    if contract.security_type is SecurityType.FOREX:
        return f"{contract.symbol}-CASH-IDEALPRO"
    if contract.security_type is SecurityType.STOCK and instrument.is_us:
        return f"{contract.symbol}-STK-SMART-{contract.currency}"
    return f"conid:{contract.conid}"


def _timeframe(bar: BarLength) -> dict[str, int]:
    if not bar.ns:
        return {"timeframe": bt.TimeFrame.Ticks, "compression": 1}
    if bar.ns % 60_000_000_000 == 0:
        return {"timeframe": bt.TimeFrame.Minutes, "compression": bar.ns // 60_000_000_000}
    return {"timeframe": bt.TimeFrame.Seconds, "compression": bar.ns // 1_000_000_000}


def _now_text() -> str:
    return datetime.now(tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cerebro(request: RunRequest, listener: RunListener | None, *, live: bool) -> tuple[Any, str]:
    strategy = load_strategy(request.strategy)
    parameters = strategy_parameters(strategy, list(request.assignments))
    cls = type("_Cerebro", (bt.Cerebro,), _told(listener)) if listener is not None else bt.Cerebro
    cerebro = cls(quicknotify=True, stdstats=False, exactbars=False, runonce=not live)
    cerebro.addstrategy(checked(strategy), **parameters)
    cerebro.addanalyzer(RunRecorder, _name="bt_ibkr_run", listener=listener)
    return cerebro, strategy.__name__


def _told(listener: RunListener) -> dict[str, Any]:
    def notify_data(self: Any, data: Any, status: int, *args: Any, **kwargs: Any) -> None:
        listener.on_data(data, data._getstatusname(status))

    def notify_store(self: Any, msg: Any, *args: Any, **kwargs: Any) -> None:
        listener.on_store(msg, args, kwargs)

    return {"notify_data": notify_data, "notify_store": notify_store}


def _execute(cerebro: Any, result: RunResult) -> Any | None:
    """Run; a strategy's own exception becomes a line of ``errors`` with its traceback."""
    try:
        strategies = cerebro.run()
    except (BtIbkrError, KeyboardInterrupt):
        raise
    except Exception as problem:
        result.errors.append("".join(traceback.format_exception(problem)))
        raise RunFailedError(
            f"The strategy {result.strategy} raised {type(problem).__name__}: {problem}.",
            remedy="The session was closed. The traceback tells where.",
        ) from problem
    return strategies[0] if strategies else None


def run_backtest(
    request: RunRequest, listener: RunListener | None = None, stopper: Stopper | None = None
) -> RunResult:
    """Over the bars of the same market that ``run_sim`` would play, with backtrader's own broker."""
    settings = emulator_settings(request)
    bar = BarLength.parse(request.bar)
    cerebro, name = _cerebro(request, listener, live=False)
    result = RunResult(mode="backtest", strategy=name, started=_now_text(), start_cash=request.cash)
    instruments = _instruments(request, settings)
    wanted = tuple(i.contract.conid for _, i in instruments)
    bars = market_bars(settings, wanted, bar, request.start_ns, request.end_ns)
    for _, instrument in instruments:
        contract = instrument.contract
        rows = bars[contract.conid]
        if not rows:
            raise UsageError(f"There are no bars of {contract.symbol} between the bounds of this run.")
        frame = pd.DataFrame(
            {
                "open": [b.open for b in rows],
                "high": [b.high for b in rows],
                "low": [b.low for b in rows],
                "close": [b.close for b in rows],
                "volume": [b.volume for b in rows],
                "openinterest": 0.0,
            },
            index=pd.to_datetime([b.end_ns for b in rows], unit="ns"),
        )
        data = bt.feeds.PandasData(dataname=frame, **_timeframe(bar))
        cerebro.adddata(data, name=contract.symbol)
        cerebro.broker.addcommissioninfo(
            IBKRCommission(
                schedule=request.commission,
                security_type=contract.security_type.value,
                mult=contract.multiplier,
            ),
            name=contract.symbol,
        )
    cerebro.broker.setcash(request.cash)
    if stopper is not None:
        stopper.attach(cerebro.runstop)
    try:
        strategy = _execute(cerebro, result)
    except BtIbkrError as problem:
        problem.result = _ended(result, cerebro)  # type: ignore[attr-defined]
        raise
    if strategy is not None:
        _collect(result, strategy, lambda order: None, lambda order: None)
    broker = cerebro.broker
    result.position = {d._name: _position(broker.getposition(d)) for d in cerebro.datas}
    result.cash, result.value = float(broker.getcash()), float(broker.getvalue())
    return _ended(result, cerebro)


def _ended(result: RunResult, cerebro: Any) -> RunResult:
    result.ended = _now_text()
    return result


def _position(position: Any) -> PositionRow:
    return PositionRow(size=float(position.size), price=float(position.price))


def _collect(
    result: RunResult,
    strategy: Any,
    coid: Callable[[Any], str | None],
    order_id: Callable[[Any], str | None],
) -> None:
    """Orders, executions and counts that the recorder kept."""
    recorder = strategy.analyzers.getbyname("bt_ibkr_run")
    result.bars, result.trades = recorder.bars, recorder.trades
    for order in recorder.orders.values():
        if not order.p.simulated:
            result.orders.append(
                order_row(order, symbol=_symbol(order), coid=coid(order), order_id=order_id(order))
            )
    for number, (order, bit) in enumerate(recorder.fills, start=1):
        result.executions.append(
            ExecutionRow(
                execution_id=f"backtest-{number}",
                time=utc_text(_to_millisecond(epoch_ns(bit.dt))),
                symbol=_symbol(order),
                side="BUY" if bit.size > 0 else "SELL",
                size=abs(float(bit.size)),
                price=float(bit.price),
                commission=round(float(bit.openedcomm + bit.closedcomm), 6),
                order_ref=coid(order) or str(order.ref),
            )
        )


def _to_millisecond(time_ns: int) -> int:
    """backtrader's day numbers resolve 10 µs; bars and ticks stand at milliseconds."""
    return (time_ns + 500_000) // 1_000_000 * 1_000_000


def _symbol(order: Any) -> str:
    contract = getattr(order.data, "contract", None)
    return contract.symbol if contract is not None else str(order.data._name)


def run_sim(
    request: RunRequest, listener: RunListener | None = None, stopper: Stopper | None = None
) -> RunResult:
    """Live against an emulator of its own, over real HTTP and WebSocket."""
    settings = emulator_settings(request)
    bar = BarLength.parse(request.bar)
    cerebro, name = _cerebro(request, listener, live=True)
    result = RunResult(mode="sim", strategy=name, started=_now_text(), start_cash=request.cash)
    instruments = _instruments(request, settings)
    with EmulatorProcess(settings) as emulator:
        control = ControlClient(emulator.control)
        try:
            _run_against(request, cerebro, result, emulator, control, instruments, bar, stopper)
        except BtIbkrError as problem:
            problem.result = _ended(result, cerebro)  # type: ignore[attr-defined]
            raise
        finally:
            control.close()
    return _ended(result, cerebro)


def _run_against(
    request: RunRequest,
    cerebro: Any,
    result: RunResult,
    emulator: EmulatorProcess,
    control: ControlClient,
    instruments: list[tuple[str, Instrument]],
    bar: BarLength,
    stopper: Stopper | None,
) -> None:
    lockstep = emulator.settings.speed == "lockstep"
    if request.start_ns and lockstep:
        # Nobody is connected yet: what happens before --from becomes history.
        control.post("/step", {"until_ns": request.start_ns, "max_events": None, "received": {}})
    elif request.start_ns:
        raise UsageError("--from needs --speed lockstep in mode sim.")
    start_ns = int(control.get("/state")["now_ns"])
    clock: Clock
    if lockstep:
        clock = ManualClock(start_ns)
    elif emulator.settings.speed == "max":
        clock = FollowingClock(start_ns)
    else:
        clock = ScaledClock(start_ns, float(emulator.settings.speed))
    store = IBKRStore(
        settings=SessionSettings(base_url=emulator.url, paced=False),
        clock=clock,
        bar_grace_s=0.0 if not isinstance(clock, ScaledClock) else 0.25 * float(emulator.settings.speed),
    )
    with store:
        for dataname, instrument in instruments:
            data = store.getdata(dataname=dataname, backfill_start=False, **_timeframe(bar))
            cerebro.adddata(data, name=instrument.contract.symbol)
        broker = store.getbroker(order_prefix=f"{result.strategy}-{request.seed}")
        cerebro.setbroker(broker)
        if lockstep:
            store.set_idle_hook(LockstepMarket(control, store, clock, request.end_ns))  # type: ignore[arg-type]
        else:
            _let_run(control, emulator, store, clock)
        if stopper is not None:
            stopper.attach(cerebro.runstop)
            stopper.attach(store.interrupt)
        strategy = _execute(cerebro, result)
        if strategy is not None:
            _collect(result, strategy, broker.client_order_id, broker.order_id)
            result.executions = _executions(broker)
        result.position = {d._name: _position(broker.getposition(d)) for d in cerebro.datas}
        result.cash, result.value = float(broker.getcash()), float(broker.getvalue())
        if strategy is not None and not (stopper is not None and stopper.asked):
            result.errors.extend(_differences(control.get("/ledger"), broker, result))


def _let_run(control: ControlClient, emulator: EmulatorProcess, store: IBKRStore, clock: Clock) -> None:
    """Start a market that moves by itself once the strategy's subscriptions stand."""
    started = False

    def start_once(horizon_ns: int) -> bool:
        nonlocal started
        if not started:
            started = True
            if isinstance(clock, ScaledClock):
                clock.restart()
            if isinstance(clock, FollowingClock):
                clock.stream_ns = store.connection.stream_ns
            control.post("/start", {})
            EndWatch(emulator.control, store).start()
        return False

    store.set_idle_hook(start_once)


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


def _differences(ledger: dict[str, Any], broker: Any, result: RunResult) -> list[str]:
    """Where the broker's book and the emulator's own ledger disagree; nothing, unless something is wrong."""
    found = []
    theirs = ledger["executions"]
    ours = {e.execution_id for _, e in broker.executions}
    for execution in theirs:
        if execution["execution_id"] not in ours:
            found.append(f"The emulator's execution {execution['execution_id']} did not reach the strategy.")
    if len(ours) > len(theirs):
        found.append(f"The broker counts {len(ours)} executions, the emulator {len(theirs)}.")
    account = ledger["accounts"][broker.p.store.account]
    cash = float(account["cash"].get("USD", 0.0))
    if abs(cash - result.cash) > _CENT:
        found.append(f"Cash differs: {result.cash:.2f} in the broker, {cash:.2f} in the emulator's ledger.")
    positions = {int(conid): float(p["quantity"]) for conid, p in account["positions"].items()}
    for data in broker.positions:
        size, other = float(broker.getposition(data).size), positions.get(data.contract.conid, 0.0)
        if size != other:
            found.append(
                f"Position of {data._name} differs: {size:g} in the broker, {other:g} in the ledger."
            )
    return found
