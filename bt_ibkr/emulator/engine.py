"""The emulator's engine: one market, one exchange, some accounts, and the time they share.

Pure and synchronous: no sockets, no threads, no wall clock. The same tape, seed and calls give the same
executions and the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.accounts.account import Account, AccountConfig
from bt_ibkr.emulator.accounts.dump import plain_account, plain_order
from bt_ibkr.emulator.accounts.margin import Margin, MarginFigures
from bt_ibkr.emulator.accounts.valuation import Valuation, exact
from bt_ibkr.emulator.exchange.book import Book
from bt_ibkr.emulator.exchange.exchange import Exchange
from bt_ibkr.emulator.exchange.matching import MODEL_NAMES, fill_model
from bt_ibkr.emulator.exchange.preview import WhatIf, preview
from bt_ibkr.emulator.listing import Silent
from bt_ibkr.emulator.market.board import Board
from bt_ibkr.emulator.market.tape import TapeLike
from bt_ibkr.emulator.timers import Timers
from bt_ibkr.emulator.types import (
    Advance,
    EmulatedExecution,
    EmulatedOrder,
    Instrument,
    Listener,
    MarketEvent,
    OrderSpec,
    Placed,
    QuoteState,
    TimerCallback,
)
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.errors import UsageError
from bt_ibkr.model.commission import commission_schedule
from bt_ibkr.model.market import Bar

MINUTE_NS = 60 * NS_PER_S
_MARGINS = ("reg_t", "off")


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the emulator behaves.

    Attributes:
        seed: Ids follow from it; two engines of one seed give the same ones.
        fill: Fill model, ``quote`` or ``last``.
        accounts: At least one; the first is the default one.
        commission: ``fixed``, ``tiered`` or ``none``.
        margin: ``reg_t`` or ``off``.
        regular_hours_enforced: Orders not marked for outside regular hours match only within them.
    """

    seed: int = 0
    fill: str = "quote"
    accounts: tuple[AccountConfig, ...] = (AccountConfig(),)
    commission: str = "fixed"
    margin: str = "reg_t"
    regular_hours_enforced: bool = False


@runtime_checkable
class Reseedable(Protocol):
    """A tape that follows from a seed."""

    def reseed(self, seed: int) -> None: ...


class Engine:
    """Market, exchange and accounts.

    Args:
        tape: What happens in the market.
        universe: The instruments that exist; the tape's must be among them.
        config: How the engine behaves.
        listener: Is told of everything, at once.

    Attributes:
        tape_events: How many events of the tape have happened.
        now_ns: Market time. It starts where the tape opens: at the whole minute of the first event, so that a client
            that subscribes before the first step sees whole bars from the first one on.

    Raises:
        UsageError: A setting is not known, or an instrument of the tape is not in the universe.
    """

    def __init__(
        self, *, tape: TapeLike, universe: Universe, config: EngineConfig, listener: Listener | None = None
    ) -> None:
        self.tape = tape
        self.universe = universe
        self.config = config
        self._listener: Listener = listener or Silent()
        self._check(config)
        self._start()

    def _check(self, config: EngineConfig) -> None:
        for name, value, known in (
            ("Fill model", config.fill, MODEL_NAMES),
            ("Margin policy", config.margin, _MARGINS),
        ):
            if value not in known:
                raise UsageError(f"{name} {value!r} is not known.", remedy=f"Use one of: {', '.join(known)}.")
        commission_schedule(config.commission)
        ids = [account.account_id for account in config.accounts]
        if not ids or len(set(ids)) != len(ids):
            raise UsageError("The emulator needs at least one account, and each once only.")
        for account in config.accounts:
            if account.kind not in ("margin", "cash"):
                raise UsageError(f"Account kind {account.kind!r} is not known.", remedy="Use margin or cash.")
        missing = [conid for conid in self.tape.conids if conid not in self.universe]
        if missing:
            raise UsageError(
                f"The market holds conid {missing[0]}, which is not in the universe.",
                remedy="Add the instrument to the universe.",
            )

    def _start(self) -> None:
        self.now_ns = self.tape.opens_ns
        self.tape_events = 0
        self._timers = Timers()
        self._order_events = 0
        self._board = Board(self.universe, self, lambda: self.now_ns)
        for conid in self.tape.conids:
            self._board.listing(conid)
        for conid, bars in self.tape.prior_bars().items():
            self.preload(conid, bars)
        for picture in self.tape.pictures():
            self._board.show(picture)
        self._valuation = Valuation(self.universe, self._board.quotes)
        self._accounts = {
            account.account_id: Account(account, self._valuation) for account in self.config.accounts
        }
        for account in self._accounts.values():
            if not self._valuation.knows(account.currency):
                raise UsageError(f"No exchange rate is known for the base currency {account.currency}.")
        self._margin = Margin(self.config.margin, self._valuation, lambda: self.now_ns)
        self._exchange = Exchange(
            self,
            self._accounts,
            self._margin,
            self._valuation,
            fill_model(self.config.fill),
            commission_schedule(self.config.commission),
            seed=self.config.seed,
            regular_hours_enforced=self.config.regular_hours_enforced,
        )

    def reset(self, seed: int | None = None) -> None:
        """Go back to the start of the tape; orders, timers and changes of accounts are gone.

        Args:
            seed: A new seed; a market that follows from a seed is made anew.
        """
        if seed is not None:
            self.config = msgspec.structs.replace(self.config, seed=seed)
            if isinstance(self.tape, Reseedable):
                self.tape.reseed(seed)
        self.tape.restart()
        self._start()

    def set_listener(self, listener: Listener | None) -> None:
        """Who is told of quotes, orders, executions and accounts from now on."""
        self._listener = listener or Silent()

    # ------------------------------------------------------------------ time

    @property
    def done(self) -> bool:
        """The tape is at its end."""
        return self.tape.next_ns() is None

    def next_event_ns(self) -> int | None:
        """Time of the next event of the tape or timer; ``None`` if there is none."""
        timer = self._timers.next_ns()
        event = self.tape.next_ns()
        if timer is None or event is None:
            return event if timer is None else timer
        return min(timer, event)

    def schedule(self, at_ns: int, callback: TimerCallback) -> int:
        """Call back at a market time, from inside ``advance``, before any event of the same time.

        A time that has passed is taken to be now.

        Returns:
            A handle for ``cancel_timer``.
        """
        return self._timers.add(max(at_ns, self.now_ns), callback)

    def cancel_timer(self, handle: int) -> None:
        """Forget a timer; one that has fired is ignored."""
        self._timers.cancel(handle)

    def advance(
        self,
        *,
        until_ns: int | None = None,
        max_events: int | None = None,
        stop_on_order_event: bool = False,
    ) -> Advance:
        """Let the market move.

        Args:
            until_ns: Events and timers before this time are applied, then it is this time. Without it and
                without ``max_events`` the tape runs to its end; timers after that do not fire.
            max_events: Stop after so many events of the tape, at the time of the last one.
            stop_on_order_event: Stop after the event or timer that changed an order.
        """
        events, before = 0, self._order_events
        tape, stopped = self.tape, False
        while not (stopped := max_events is not None and events >= max_events):
            event_ns, timer_ns = tape.next_ns(), self._timers.next_ns()
            if event_ns is None and until_ns is None:
                break
            if timer_ns is not None and (event_ns is None or timer_ns <= event_ns):
                if until_ns is not None and timer_ns >= until_ns:
                    break
                self._fire()
            elif event_ns is None or (until_ns is not None and event_ns >= until_ns):
                break
            else:
                self._apply(tape.pop())
                events += 1
                self.tape_events += 1
                if tape.next_ns() is None:
                    self._close_all()
            if stop_on_order_event and self._order_events > before:
                stopped = True
                break
        if until_ns is not None and not stopped:
            self.now_ns = max(self.now_ns, until_ns)
        return Advance(
            now_ns=self.now_ns, events=events, order_events=self._order_events - before, done=self.done
        )

    def _fire(self) -> None:
        at_ns, callback = self._timers.pop()
        self.now_ns = max(self.now_ns, at_ns)
        callback(at_ns)

    def _close_all(self) -> None:
        """The tape is over: what waits for the close executes at the last prices."""
        for listing in list(self._board):
            self._exchange.on_close(listing.book)

    # ------------------------------------------------------------------ market

    def inject(self, event: MarketEvent) -> None:
        """Apply an event that is not on the tape, now, or at its own time if that is later.

        What the tape holds before that time is applied first. An event of the past happens now.

        Raises:
            ContractNotFoundError: Its conid is not in the universe.
        """
        self._board.listing(event.conid)
        if event.time_ns > self.now_ns:
            self.advance(until_ns=event.time_ns)
        elif event.time_ns < self.now_ns:
            event = msgspec.structs.replace(event, time_ns=self.now_ns)
        self._apply(event)

    def halt(self, conid: int, on: bool) -> None:
        """Halt an instrument, or let it trade again: a halted one does not match.

        Raises:
            ContractNotFoundError: The conid is not in the universe.
        """
        self._board.set_halted(conid, on)

    def quote(self, conid: int) -> QuoteState | None:
        """The present quote; ``None`` for an instrument that is not in the market."""
        return self._board.quotes.get(conid)

    def preload(self, conid: int, bars: Sequence[Bar]) -> None:
        """Give history of the time before the tape: minutes or days, see ``BarStore.preload``.

        Raises:
            ContractNotFoundError: The conid is not in the universe.
            UsageError: The bars are of another length, or the market has started.
        """
        self._board.preload(conid, bars)

    def history(
        self,
        conid: int,
        start_ns: int,
        end_ns: int,
        bar_ns: int,
        source: str = "trades",
        regular_hours_only: bool = False,
    ) -> list[Bar]:
        """Bars that start in ``[start, end)``, from events that were applied, see ``BarStore.bars``.

        Raises:
            UsageError: The source or the length cannot be served.
        """
        return self._board.history(
            conid, start_ns, end_ns, bar_ns, source, regular_hours_only=regular_hours_only
        )

    def correct_bar(self, conid: int, start_ns: int, values: Mapping[str, float]) -> None:
        """The minute of trades that starts at ``start_ns`` is told with these values; empty for its own again.

        Raises:
            ContractNotFoundError: The conid is not in the universe.
        """
        self._board.listing(conid).bars.correct(start_ns, values)

    def _apply(self, event: MarketEvent) -> None:
        if event.time_ns > self.now_ns:
            self.now_ns = event.time_ns
        self._board.apply(event)

    def on_quote(self, instrument: Instrument, quote: QuoteState, event: MarketEvent) -> None:
        """Pass on that a quote changed."""
        self._listener.on_quote(instrument, quote, event)

    def on_event(self, book: Book, event: MarketEvent) -> None:
        """Match the orders of an instrument against an event."""
        self._exchange.on_event(book, event)

    def on_reopening(self, book: Book) -> None:
        """Match what waited for the end of a halt."""
        self._exchange.on_reopening(book)

    # ------------------------------------------------------------------ orders

    def place(self, specs: Sequence[OrderSpec]) -> list[Placed]:
        """Submit a single order, a bracket (parent and children) or a group; answers in their order."""
        self._list_combos(specs)
        return self._exchange.place(specs)

    def _list_combos(self, specs: Sequence[OrderSpec]) -> None:
        for spec in specs:
            if spec.legs:
                self.universe.combo(spec.legs)

    def modify(self, order_id: int, spec: OrderSpec) -> Placed:
        """Change a working order; the spec is complete, not a difference."""
        return self._exchange.modify(order_id, spec)

    def cancel(self, order_id: int) -> str | None:
        """Cancel an order; the refusal in words, or ``None``."""
        return self._exchange.cancel(order_id)

    def what_if(self, spec: OrderSpec) -> WhatIf:
        """What an order would change; nothing is placed."""
        self._list_combos([spec])
        error, intended = self._exchange.preview(spec)
        if intended is None:
            return WhatIf(error=error)
        held = [(self._accounts[share.account], share.weight) for share in spec.shares()]
        multiplier = self._board.listing(spec.conid).instrument.contract.multiplier
        return preview(spec, intended, held, self._margin, multiplier=exact(multiplier), error=error)

    def order(self, order_id: int) -> EmulatedOrder | None:
        """The order, whatever has become of it; ``None`` if there never was one."""
        return self._exchange.order(order_id)

    def orders(self, account: str | None = None) -> list[EmulatedOrder]:
        """All orders, of all accounts or of one, in order of arrival."""
        return self._exchange.orders(account)

    @property
    def exchange(self) -> Exchange:
        """All orders and executions, for what is done to them from outside; new after a reset."""
        return self._exchange

    def executions(self, account: str | None = None) -> list[EmulatedExecution]:
        """All executions, of all accounts or of one, in order."""
        return [one for one in self._exchange.executions if account is None or one.account == account]

    # ------------------------------------------------------------------ accounts

    def account(self, account_id: str) -> Account:
        """An account.

        Raises:
            UsageError: There is none of that id.
        """
        account = self._accounts.get(account_id)
        if account is None:
            raise UsageError(f"Account {account_id!r} does not exist in the emulator.")
        return account

    def account_ids(self) -> list[str]:
        """The accounts, the default one first."""
        return list(self._accounts)

    def margin(self, account_id: str) -> MarginFigures:
        """Equity and margins of an account, in its base currency; its orders are not counted."""
        return self._margin.figures(self.account(account_id))

    def exchange_rate(self, currency: str, base: str) -> float:
        """Units of ``base`` per unit of ``currency``.

        Raises:
            UsageError: No rate is known.
        """
        try:
            return float(self._valuation.rate(currency, base))
        except KeyError:
            raise UsageError(f"No exchange rate is known for {currency} to {base}.") from None

    def ledger(self) -> dict[str, Any]:
        """Everything that can be compared, as plain values; quantities and money as text."""
        return {
            "now_ns": self.now_ns,
            "accounts": {name: plain_account(account) for name, account in self._accounts.items()},
            "orders": [plain_order(order) for order in self.orders()],
            "executions": [msgspec.to_builtins(one) for one in self.executions()],
        }

    # ------------------------------------------------------------------ what the exchange needs

    def books(self) -> list[Book]:
        """The books of all instruments that are in the market."""
        return [listing.book for listing in self._board]

    def instrument_for(self, spec: OrderSpec) -> Instrument:
        """What an order that was accepted is on.

        Raises:
            ContractNotFoundError: The universe does not know it.
        """
        self._list_combos([spec])
        return self._board.listing(spec.conid).instrument

    def book(self, conid: int) -> Book:
        """The working orders of an instrument."""
        return self._board.listing(conid).book

    def instrument(self, conid: int) -> Instrument | None:
        """The instrument of a conid; ``None`` if the universe has none."""
        return self.universe.by_conid(conid)

    def tell_order(self, order: EmulatedOrder) -> None:
        """Pass on that an order changed."""
        self._order_events += 1
        self._listener.on_order(order)

    def tell_execution(self, execution: EmulatedExecution, order: EmulatedOrder) -> None:
        """Pass on that an order executed."""
        self._order_events += 1
        self._listener.on_execution(execution, order)

    def tell_account(self, account: str) -> None:
        """Pass on that an account changed."""
        self._listener.on_account(account)
