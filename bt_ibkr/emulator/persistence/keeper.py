"""Writes down what changed before anybody is told of it, and makes an emulator what it was."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bt_ibkr.emulator.accounts.account import Holding
from bt_ibkr.emulator.admin.corporate import Adjustment
from bt_ibkr.emulator.exchange.book import Book, Working
from bt_ibkr.emulator.oracle import OrderRequest
from bt_ibkr.emulator.persistence.codec import CodecError, made, plain, set_slots, slots_of
from bt_ibkr.emulator.persistence.store import TABLES, VERSION, StateStore
from bt_ibkr.emulator.types import EmulatedOrder
from bt_ibkr.errors import ContractError, UsageError

if TYPE_CHECKING:
    from bt_ibkr.emulator.drive import Drive
    from bt_ibkr.emulator.services.core import Core

#: Settings that must be the same as when the file was written: the market follows from them, or the accounts.
_SAME = (
    "market",
    "synthetic_day",
    "synthetic_instruments",
    "universe",
    "history_days",
    "accounts",
    "cash",
    "currency",
    "fill",
    "commission",
    "margin",
)
_SESSION = (
    "tier",
    "selected",
    "suppressed",
    "accounts_asked",
    "portfolio_asked",
    "pnl_asked",
    "positions_read",
    "session_id",
    "competing",
    "maintenance",
    "fail",
    "bridge_missing",
)
_SERVICE = ("client_ids", "primed_orders", "primed_trades", "filtered")
_BOOK = ("prints", "bid_left", "ask_left")


class Keeper:
    """Keeps one emulator's state in a file.

    Faults under way, sockets and their subscriptions are not kept, nor are the bars and volumes of ticks from
    outside the tape.

    Args:
        core: Whose state.
        drive: Whether the market has started.
        path: The state file.

    Raises:
        UsageError: The file cannot be used, or belongs to an emulator with other settings.
    """

    def __init__(self, core: Core, drive: Drive, path: Path) -> None:
        self._core = core
        self._drive = drive
        self._store = StateStore(path)
        self._written: dict[str, bytes] = {}
        self._orders: dict[int, bytes] = {}
        self._places: dict[int, int] = {}
        self._dirty: set[int] = set()
        self._executions = 0
        self._requests: list[bytes] = []
        self._moved: tuple[int, int] | None = None
        self._restarts = 0
        try:
            self._load()
        except BaseException:
            self._store.close()
            raise

    # --- writing -----------------------------------------------------------------------------------

    def changed(self, order: EmulatedOrder) -> None:
        """An order changed."""
        self._dirty.add(order.order_id)

    def forget(self) -> None:
        """The market began anew."""
        self._written.clear()
        self._orders.clear()
        self._places.clear()
        self._requests.clear()
        self._executions = 0
        self._moved = None
        self._dirty.clear()
        self._write("meta", *TABLES)

    def save(self) -> None:
        """Write what has changed since the last time; nothing if nothing has."""
        renumbered = self._dirty - self._places.keys() and self._note_places()
        self._write(*(("orders",) if renumbered else ()))

    def _note_places(self) -> bool:
        """Orders are kept in the order of the exchange's list; if one has another id, all are written anew."""
        present = [order.order_id for order in self._core.engine.orders()]
        gone = bool(self._places.keys() - set(present))
        if gone:
            self._places.clear()
            self._orders.clear()
            self._dirty.update(present)
        for place, order_id in enumerate(present):
            self._places.setdefault(order_id, place)
        return gone

    def _write(self, *anew: str) -> None:
        """Write what changed; what is in the tables ``anew`` is forgotten first."""
        engine = self._core.engine
        meta: dict[str, bytes] = {}
        moved = (engine.now_ns, sum(book.quote.version for book in engine.books()))
        went_on = moved != self._moved
        for name, value in self._meta(with_market=went_on or bool(self._dirty)):
            text = msgspec.json.encode(value)
            if self._written.get(name) != text:
                meta[name] = self._written[name] = text
        live = engine.exchange.live_ids() if went_on else ()
        self._moved = moved
        orders = self._changed_orders(self._dirty.union(live))
        self._dirty.clear()
        executions = engine.exchange.executions
        fresh = [
            (n, msgspec.json.encode(plain(executions[n]))) for n in range(self._executions, len(executions))
        ]
        self._executions = len(executions)
        requests = self._changed_requests()
        if meta or orders or fresh or requests or anew:
            self._store.write(meta, orders=orders, executions=fresh, requests=requests, anew=anew)

    def _changed_orders(self, candidates: Iterable[int]) -> list[tuple[int, bytes]]:
        found = []
        for order_id in candidates:
            working = self._core.engine.exchange.working(order_id)
            if working is None:
                continue
            row = {
                "order": slots_of(working.order),
                "working": slots_of(working, without=("order", "instrument")),
            }
            text = msgspec.json.encode(row)
            if self._orders.get(order_id) != text:
                self._orders[order_id] = text
                found.append((self._places.setdefault(order_id, len(self._places)), text))
        return found

    def _changed_requests(self) -> list[tuple[int, bytes]]:
        """The last requests may still be under way; those before them change no more."""
        found = []
        listed = self._core.oracle.requests
        for n in range(max(len(self._requests) - 20, 0), len(listed)):
            text = msgspec.json.encode(listed[n])
            if n >= len(self._requests):
                self._requests.append(text)
            elif self._requests[n] == text:
                continue
            self._requests[n] = text
            found.append((n, text))
        return found

    def _meta(self, *, with_market: bool) -> Iterable[tuple[str, Any]]:
        core, engine = self._core, self._core.engine
        yield "version", VERSION
        yield "settings", self._fingerprint()
        yield "seed", engine.config.seed
        yield "restarts", self._restarts
        yield "started", self._drive.started
        yield "session", {name: plain(getattr(core.session, name)) for name in _SESSION}
        yield "service", {name: plain(getattr(core.orders, name)) for name in _SERVICE}
        yield "waiting", plain(core.orders.submissions)
        yield "prompts", plain(core.prompts.state)
        yield "exchange", plain(engine.exchange.numbers)
        yield "corporate", {"record": core.corporate.record, "changes": plain(core.corporate.adjustments)}
        yield "accounts", {name: self._account(name) for name in engine.account_ids()}
        if with_market:
            yield "clock", {"now_ns": engine.now_ns, "events": engine.tape_events}
            yield "quotes", {str(book.quote.conid): self._quote(book) for book in engine.books()}

    def _account(self, name: str) -> Any:
        account = self._core.engine.account(name)
        return {
            "cash": plain(account.cash_by_currency()),
            "commissions": plain(account.commissions),
            "holdings": [[conid, slots_of(holding)] for conid, holding in account.holdings().items()],
        }

    def _quote(self, book: Book) -> Any:
        return {
            "quote": slots_of(book.quote, without=("conid",)),
            "legs": [plain(leg) for leg in book.instrument.contract.legs],
            "book": {name: plain(getattr(book, name)) for name in _BOOK},
        }

    def _fingerprint(self) -> dict[str, Any]:
        settings = msgspec.to_builtins(self._core.settings)
        found: dict[str, Any] = msgspec.json.decode(
            msgspec.json.encode({name: settings[name] for name in _SAME})
        )
        return found

    def close(self) -> None:
        """Let the file go; what was not saved is lost."""
        self._store.close()

    # --- reading -----------------------------------------------------------------------------------

    def _load(self) -> None:
        meta = self._store.meta()
        if meta:
            self._check(meta)
            try:
                self._restore(meta)
            except (
                CodecError,
                KeyError,
                TypeError,
                ValueError,
                msgspec.MsgspecError,
                ContractError,
            ) as problem:
                raise UsageError(
                    f"State file {self._store.path} cannot be read: {problem}.",
                    remedy="Name a file that does not exist yet.",
                ) from None
            self._restarts = meta["restarts"] + 1
        self._dirty.update(order.order_id for order in self._core.engine.orders())
        self._note_places()
        self._write("meta", *TABLES)

    def _check(self, meta: dict[str, Any]) -> None:
        present, former = self._fingerprint(), meta["settings"]
        for name in _SAME:
            if present[name] != former.get(name):
                raise UsageError(
                    f"State file {self._store.path} was written with {name} {former.get(name)!r}, not "
                    f"{present[name]!r}.",
                    remedy="Use the same settings, or name another file.",
                )

    def _restore(self, meta: dict[str, Any]) -> None:
        core = self._core
        if meta["seed"] != core.engine.config.seed:
            core.engine.reset(meta["seed"])
            core.reset(meta["seed"])
        self._replay(meta)
        for name, text in meta["accounts"].items():
            account = core.engine.account(name)
            account.restore(
                cash=made(text["cash"]),
                commissions=made(text["commissions"]),
                holdings={conid: _holding(slots) for conid, slots in text["holdings"]},
            )
        core.engine.exchange.restore(
            [self._working(row) for row in self._store.rows("orders")],
            [made(row) for row in self._store.rows("executions")],
            made(meta["exchange"]),
        )
        core.hub.know(order.order_id for order in core.engine.orders())
        core.oracle.requests[:] = [msgspec.convert(row, OrderRequest) for row in self._store.rows("requests")]
        core.corporate.record[:] = meta["corporate"]["record"]
        core.session.restore(
            {name: made(text) for name, text in meta["session"].items()}, meta["restarts"] + 1
        )
        core.orders.restore(
            {name: made(text) for name, text in meta["service"].items()},
            made(meta["waiting"]),
            meta["restarts"] + 1,
        )
        core.prompts.restore(made(meta["prompts"]))
        if meta["started"] and not self._drive.started:
            self._drive.start()

    def _replay(self, meta: dict[str, Any]) -> None:
        """Let the market be what it was: the tape is played again, with nobody listening."""
        core, engine, clock = self._core, self._core.engine, meta["clock"]
        engine.set_listener(None)
        try:
            changes: list[Adjustment] = made(meta["corporate"]["changes"])
            for change in changes:
                engine.advance(max_events=change.tape_events - engine.tape_events)
                core.corporate.replay(change)
            engine.advance(max_events=clock["events"] - engine.tape_events)
            engine.advance(until_ns=clock["now_ns"])
            for conid, text in meta["quotes"].items():
                if text["legs"]:
                    core.universe.combo(tuple(made(leg) for leg in text["legs"]))
                book = engine.book(int(conid))
                set_slots(book.quote, text["quote"])
                set_slots(book, text["book"])
        finally:
            engine.set_listener(core.hub)

    def _working(self, row: dict[str, Any]) -> Working:
        spec = made(row["order"]["spec"])
        order = EmulatedOrder(0, spec, 0)
        set_slots(order, row["order"])
        working = Working(order, self._core.engine.instrument_for(spec))
        set_slots(working, row["working"])
        return working


def _holding(slots: dict[str, Any]) -> Holding:
    holding = Holding()
    set_slots(holding, slots)
    return holding
