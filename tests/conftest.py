"""A bench: tapes written by hand, an emulator that plays them, and a strategy that a test scripts.

Everything is the real thing: HTTP, WebSocket, store, feeds, broker, cerebro. In a lockstep market nothing depends on
how fast the machine is.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import backtrader as bt
import pandas as pd
import pytest
from hypothesis import settings

from bt_ibkr.app.control import ControlClient
from bt_ibkr.app.driving import EndWatch, FollowingClock, LockstepMarket, catch_up
from bt_ibkr.clock import Clock, ManualClock, ServerClock
from bt_ibkr.config import SessionSettings, Trust
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.emulator.types import OrderSpec
from bt_ibkr.model.order import OrderType, Side, TimeInForce
from bt_ibkr.store import IBKRStore

# The suite draws the same examples each time, so that it tells of what was changed; "search" looks for others.
settings.register_profile("suite", derandomize=True, database=None, deadline=None)
settings.register_profile("search", print_blob=True, deadline=None)
settings.load_profile("suite")

ACCOUNT = "DU1234567"
#: Monday 2026-03-02, 09:30 in New York.
OPEN = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
SHARED = Path(__file__).resolve().parents[2] / "shared"
COLUMNS = ("bid", "bid_size", "ask", "ask_size", "last", "last_size")


class Tape:
    """Events of one instrument, at seconds after the opening."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def at(self, second: float, **values: float) -> Tape:
        """Any event; ``bid``, ``bid_size``, ``ask``, ``ask_size``, ``last``, ``last_size``."""
        self.rows.append({"ts": OPEN + timedelta(seconds=second)} | values)
        return self

    def quote(self, second: float, bid: float, ask: float, size: float = 1000) -> Tape:
        return self.at(second, bid=bid, bid_size=size, ask=ask, ask_size=size)

    def trade(self, second: float, price: float, size: float = 100) -> Tape:
        return self.at(second, last=price, last_size=size)

    def every_second(
        self, seconds: int, price: Callable[[int], float], *, spread: float = 0.02, size: float = 1000
    ) -> Tape:
        """A quote around ``price(second)`` and, half a second later, a trade at it."""
        for second in range(seconds):
            middle = price(second)
            self.quote(second, round(middle - spread / 2, 4), round(middle + spread / 2, 4), size)
            self.trade(second + 0.5, middle)
        return self

    def frame(self) -> pd.DataFrame:
        """The tick file's table."""
        rows = sorted(self.rows, key=lambda row: row["ts"])
        return pd.DataFrame(rows, columns=["ts", *COLUMNS]).astype(dict.fromkeys(COLUMNS, float))

    def bars(self, seconds: int, column: str = "last") -> pd.DataFrame:
        """What its bars must be, by pandas alone: open, high, low, close, volume by right edge (UTC, naive)."""
        return bars_of(self.frame(), seconds, column)


def bars_of(frame: pd.DataFrame, seconds: int, column: str = "last") -> pd.DataFrame:
    """Bars of a tick frame: ``[start, end)``, by right edge; of ``last``, ``bid``, ``ask`` or ``mid``."""
    frame = frame.set_index("ts").sort_index(kind="stable")
    if column == "last":
        rows = frame[frame["last"].notna() & (frame["last_size"] > 0)]
        price, volume = rows["last"], rows["last_size"]
    else:
        filled = frame[["bid", "ask"]].ffill()
        price = ((filled["bid"] + filled["ask"]) / 2 if column == "mid" else filled[column]).dropna()
        # Events that left the price as it was are no ticks of it.
        price = price[price != price.shift()]
        volume = price * 0.0
    edges = price.index.floor(f"{seconds}s") + pd.Timedelta(seconds=seconds)
    grouped = price.groupby(edges)
    made = pd.DataFrame(
        {"open": grouped.first(), "high": grouped.max(), "low": grouped.min(), "close": grouped.last()}
    )
    made["volume"] = volume.groupby(edges).sum()
    made.index = made.index.tz_localize(None)
    return made


def path(points: Mapping[int, float]) -> Callable[[int], float]:
    """A price that jumps at the seconds named: ``{0: 100, 90: 98}``."""

    def price(second: int) -> float:
        return points[max(at for at in points if at <= second)]

    return price


def at_bar(*actions: Any) -> Callable[[Any], None]:
    """A script that does one action at each ``next``; what orders come of it is kept."""

    def script(strategy: Any) -> None:
        turn, strategy.turns = strategy.turns, strategy.turns + 1
        if turn < len(actions) and (action := actions[turn]) is not None:
            made = action(strategy)
            strategy.orders.extend(made if isinstance(made, list) else [made] if made is not None else [])

    return script


class Scripted(bt.Strategy):  # type: ignore[misc]
    """Does what the test says, and writes down what it is told.

    ``log`` holds ``("bar", name, time)``, ``("data", name, status)``, ``("store", message)`` and
    ``("order", ref, status, size of the new executions)``, in order.
    """

    params = (("script", None), ("init", None), ("on_order", None), ("on_data", None), ("on_store", None))

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.rows: dict[str, list[tuple[Any, ...]]] = {data._name: [] for data in self.datas}
        self.orders: list[Any] = []
        self.turns = 0
        self.clones: list[Any] = []
        self.trades: list[Any] = []
        self.messages: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self._seen = dict.fromkeys(self.rows, 0)
        if self.p.init is not None:
            self.p.init(self)

    def _take(self) -> None:
        for data in self.datas:
            if len(data) > self._seen[data._name]:
                self._seen[data._name] = len(data)
                moment = bt.num2date(data.datetime[0])
                row = (
                    moment,
                    *(line[0] for line in (data.open, data.high, data.low, data.close, data.volume)),
                )
                self.rows[data._name].append(row)
                self.log.append(("bar", data._name, moment))

    def prenext(self) -> None:
        self._take()

    def next(self) -> None:
        self._take()
        if self.p.script is not None:
            self.p.script(self)

    def notify_order(self, order: Any) -> None:
        self.clones.append(order)
        new = round(sum(bit.size for bit in order.executed.iterpending()), 9)
        self.log.append(("order", order.ref, order.getstatusname(), new))
        if self.p.on_order is not None:
            self.p.on_order(self, order)

    def notify_trade(self, trade: Any) -> None:
        self.trades.append(
            (trade.status, trade.size, round(trade.pnl, 6), round(trade.pnlcomm, 6), trade.price)
        )

    def notify_data(self, data: Any, status: int, *args: Any, **kwargs: Any) -> None:
        self.log.append(("data", data._name, data._getstatusname(status)))
        if self.p.on_data is not None:
            self.p.on_data(self, data, data._getstatusname(status))

    def notify_store(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        self.messages.append((msg, args, kwargs))
        self.log.append(("store", msg))
        if self.p.on_store is not None:
            self.p.on_store(self, msg, args)

    def frame(self, name: str) -> pd.DataFrame:
        """The bars delivered, as ``Tape.bars`` gives them."""
        columns = ["ts", "open", "high", "low", "close", "volume"]
        return pd.DataFrame(self.rows[name], columns=columns).set_index("ts")

    def statuses(self, order: Any) -> list[str]:
        """The notifications of one order, in order; a Partial or Completed with its new size."""
        told = [entry for entry in self.log if entry[0] == "order" and entry[1] == order.ref]
        return [f"{status} {size:g}" if size else status for _, _, status, size in told]

    def told(self, name: str) -> list[str]:
        """The data notifications of one feed."""
        return [entry[2] for entry in self.log if entry[0] == "data" and entry[1] == name]


class Line:
    """An emulator, and a store connected to it."""

    def __init__(
        self, emulator: EmulatorThread, control: ControlClient, clock: Clock, store: IBKRStore
    ) -> None:
        self.emulator = emulator
        self.control = control
        self.clock = clock
        self.store = store

    def lockstep(self, end_ns: int = 0) -> LockstepMarket:
        """Let the run's cycles move the market."""
        assert isinstance(self.clock, ManualClock)
        market = LockstepMarket(self.control, self.store, self.clock, end_ns)
        self.store.set_idle_hook(market)
        return market

    def step(self, until: datetime) -> None:
        """Move a lockstep market before anybody is connected."""
        assert isinstance(self.clock, ManualClock)
        until_ns = int(until.timestamp() * 1_000_000_000)
        answer = self.control.post("/step", {"until_ns": until_ns, "max_events": None, "received": {}})
        self.clock.set_ns(answer["now_ns"])

    def start(self) -> None:
        """Start a market that runs by itself, as soon as the run has subscribed to it."""
        started = threading.Event()

        def hook(horizon_ns: int) -> bool:
            if not started.is_set():
                started.set()
                if isinstance(self.clock, FollowingClock):
                    self.clock.stream_ns = self.store.connection.stream_ns
                self.control.post("/start", {})
                EndWatch(self.emulator.control, self.store, trust=Trust()).start()
            return self.store.finishing and catch_up(self.control, self.store)

        self.store.set_idle_hook(hook)

    def ledger(self) -> Any:
        """The emulator's own books."""
        return self.control.get("/ledger")

    def place_elsewhere(self, side: str, size: float, conid: int, **fields: Any) -> None:
        """An order of another client of the account."""
        spec = OrderSpec(
            account=ACCOUNT,
            conid=conid,
            side=Side(side),
            order_type=fields.pop("order_type", OrderType.MARKET),
            quantity=Decimal(str(size)),
            time_in_force=TimeInForce.GOOD_TILL_CANCELLED,
            **fields,
        )
        placed = self.emulator.call(lambda server: server.core.engine.place([spec]))
        assert placed[0].order is not None, placed[0].error


class Run:
    """A finished run."""

    def __init__(self, line: Line, cerebro: Any, strategy: Any, ledger: Any) -> None:
        self.line = line
        self.cerebro = cerebro
        self.strategy = strategy
        self.broker = line.store.getbroker()
        self.ledger = ledger

    @property
    def account(self) -> Any:
        """The account in the emulator's ledger."""
        return self.ledger["accounts"][ACCOUNT]

    def agree(self) -> None:
        """Broker and emulator have the same cash, positions and executions."""
        assert self.broker.getcash() == pytest.approx(float(self.account["cash"]["USD"]), abs=0.005)
        theirs = {int(k): float(v["quantity"]) for k, v in self.account["positions"].items()}
        theirs = {conid: size for conid, size in theirs.items() if size}
        ours = {data.contract.conid: p.size for data, p in self.broker.positions.items() if p.size}
        assert ours == theirs
        assert [e.execution_id for _, e in self.broker.executions] == [
            e["execution_id"] for e in self.ledger["executions"]
        ]
        assert not self.broker.problems


class Bench:
    """Makes lines and runs strategies on them."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._stack = stack

    @staticmethod
    def opening(second: float) -> datetime:
        """The moment so many seconds after the opening."""
        return OPEN + timedelta(seconds=second)

    @staticmethod
    def epoch(moment: datetime) -> float:
        """Epoch seconds of a naive UTC moment."""
        return moment.replace(tzinfo=UTC).timestamp()

    def market(self, **tapes: Tape | pd.DataFrame) -> tuple[str, ...]:
        """Tick files of tapes, by symbol (``EUR_USD`` is ``EUR.USD``)."""
        names = []
        for name, tape in tapes.items():
            path = self._folder / f"ticks_{name}.parquet"
            (tape.frame() if isinstance(tape, Tape) else tape).to_parquet(path)
            names.append(f"{path}:{name.replace('_', '.')}")
        return tuple(names)

    def line(
        self,
        *,
        store: Mapping[str, Any] | None = None,
        session: Mapping[str, Any] | None = None,
        correct: bool = False,
        **settings: Any,
    ) -> Line:
        """A lockstep emulator, unless ``speed`` says otherwise, and a store on it, with ``session`` settings; its
        clock is set by the server's if ``correct``."""
        chosen: dict[str, Any] = {
            "speed": "lockstep",
            "conflation_ms": 0,
            "autostart": False,
            "pacing": "off",
            "smd_lifetime_s": 0.0 if settings.get("speed") == "max" else 900.0,
        } | settings
        emulator = self._stack.enter_context(EmulatorThread(EmulatorSettings(**chosen)))
        control = self._stack.enter_context(contextlib.closing(ControlClient(emulator.control)))
        now_ns = int(control.get("/state")["now_ns"])
        clock: Clock = ManualClock(now_ns) if chosen["speed"] == "lockstep" else FollowingClock(now_ns)
        # Each emulator's account begins anew, and so does its journal.
        fast: dict[str, Any] = {"base_url": emulator.url, "paced": False, "reconnect_first_s": 0.01}
        given: dict[str, Any] = {"bar_grace_s": 0.0, "journal": ":memory:"} | dict(store or {})
        made = IBKRStore(
            settings=SessionSettings(**(fast | dict(session or {}))),
            clock=ServerClock(clock) if correct else clock,
            **given,
        )
        self._stack.enter_context(made)
        return Line(emulator, control, clock, made)

    def run(
        self,
        line: Line,
        script: Callable[[Any], None] | None = None,
        *,
        feeds: Sequence[Mapping[str, Any]] = ({"dataname": "AAPL"},),
        strategy: type[Any] = Scripted,
        broker: Mapping[str, Any] | None = None,
        cerebro: Mapping[str, Any] | None = None,
        analyzers: Sequence[type[Any]] = (),
        before: Callable[[Any], None] | None = None,
        drive: bool = True,
        **parameters: Any,
    ) -> Run:
        """Run a strategy over feeds (one-minute bars without back-fill, unless a feed says otherwise)."""
        made = bt.Cerebro(**({"quicknotify": True, "stdstats": False} | dict(cerebro or {})))
        for feed in feeds:
            given = {"timeframe": bt.TimeFrame.Minutes, "backfill_start": False} | dict(feed)
            name = given.pop("name", given["dataname"])
            made.adddata(line.store.getdata(**given), name=name)
        made.setbroker(line.store.getbroker(**dict(broker or {})))
        if script is not None:
            parameters["script"] = script
        made.addstrategy(strategy, **parameters)
        for analyzer in analyzers:
            made.addanalyzer(analyzer)
        if drive:
            if isinstance(line.clock, ManualClock):
                line.lockstep()
            else:
                line.start()
        if before is not None:
            before(made)
        with line.store:
            strategies = made.run()
        return Run(line, made, strategies[0], line.ledger())


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program's state goes here, also that of child processes; never into the user's own."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("BT_IBKR_HOME", str(folder))
    return folder


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        yield Bench(tmp_path, stack)


@pytest.fixture
def scripted() -> type[Any]:
    return Scripted


@pytest.fixture
def tape() -> type[Tape]:
    return Tape


@pytest.fixture(name="path")
def path_fixture() -> Callable[[Mapping[int, float]], Callable[[int], float]]:
    return path


@pytest.fixture(name="at_bar")
def at_bar_fixture() -> Callable[..., Callable[[Any], None]]:
    return at_bar


@pytest.fixture
def tick_bars() -> Callable[[pd.DataFrame, int], pd.DataFrame]:
    return bars_of


@pytest.fixture
def market_data() -> Path:
    """The folder of real market data beside the repository."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the market data beside the repository is not there")
    return folder


@pytest.fixture
def environment() -> dict[str, str]:
    """For child processes: this environment, wide enough that no line is folded."""
    return os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
