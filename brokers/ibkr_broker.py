"""The broker as backtrader and strategies know it; what it does stands in the modules beside it.

``outgoing`` makes and sends orders, ``changes`` modifies them, ``incoming`` applies reports, ``books`` keeps
positions and cash, ``resume`` takes over orders of earlier runs. All of it runs on cerebro's thread: reports are
queued by the session's thread and applied in ``next()``.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import backtrader as bt

from bt_ibkr.brokers.accounts import admitted
from bt_ibkr.brokers.books import AccountBook, Books
from bt_ibkr.brokers.changes import Changes, Wanted
from bt_ibkr.brokers.commission import IBKRCommission
from bt_ibkr.brokers.endings import Endings
from bt_ibkr.brokers.executions import Executions
from bt_ibkr.brokers.fills import seed
from bt_ibkr.brokers.incoming import Incoming
from bt_ibkr.brokers.names import Names
from bt_ibkr.brokers.outgoing import OrderCall, Outgoing, OutgoingSettings
from bt_ibkr.brokers.policies import Policies
from bt_ibkr.brokers.records import Records
from bt_ibkr.brokers.resume import Resume, check_policy
from bt_ibkr.brokers.strays import Strays
from bt_ibkr.brokers.watching import Watching
from bt_ibkr.connection.interface import AccountEvent, Difference
from bt_ibkr.connection.mailbox import Mailbox
from bt_ibkr.errors import UsageError
from bt_ibkr.feeds.ibkr_data import base_of, contract_of
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.order import OrderReport
from bt_ibkr.model.trading import Trading, TradingState
from bt_ibkr.services.datanames import parse_dataname
from bt_ibkr.store import IBKRStore, refuse_unknown
from bt_ibkr.wire.order_answers import WhatIf

_log = logging.getLogger(__name__)

#: At the end of a run, seconds that the executions of an order just answered are waited for.
_LAST_FILLS_S = 0.25


class IBKRBroker(bt.BrokerBase):  # type: ignore[misc]
    """backtrader broker over an IBKR account.

    Parameters:

    - ``store``: the store; ``store.getbroker()`` gives it.
    - ``name``: the strategy's name in the journal, by which a restart knows its orders: ``a-z``, ``0-9``, ``_``,
      ``-``, at most 32. By default made from the strategy's class (``SmaCross``: ``sma_cross``); a second strategy of
      a name gets ``-2``.
    - ``accounts``: further accounts of the login to trade in, by ``buy(…, account=…)``; cash, value and positions
      shown to backtrader are those of the store's account. ``confirm_accounts``: the same once more, which mode
      ``live`` wants.
    - ``outside_rth``: orders may trade in extended hours.
    - ``round_prices``: limit and stop prices are rounded to the contract's tick, which IBKR demands.
    - ``commission_wait``: an execution waits so many seconds for its commission before it is shown without one;
      the commission is then added when it comes.
    - ``on_resume``: what is done with open orders of earlier runs. ``default``: they are left to a strategy that has
      ``notify_resume``; of one that has not, orders that only reduce a position are kept, the others cancelled.
      ``keep`` keeps all, ``cancel`` cancels all.
    - ``on_stop``: ``keep`` or ``cancel`` open orders when a run ends as it should.
    - ``on_error``: when a strategy's exception ends a run: ``keep`` open orders, ``cancel`` those of this run,
      ``halt`` trading and cancel all, or ``flatten``: halt, cancel all and close positions.

    Keyword ``outsideRth=True`` of ``buy()`` and ``sell()`` overrides ``outside_rth`` for one order.
    """

    params = (
        ("store", None),
        ("name", None),
        ("accounts", ()),
        ("confirm_accounts", ()),
        ("outside_rth", False),
        ("round_prices", True),
        ("commission_wait", 0.5),
        ("on_resume", "default"),
        ("on_stop", "keep"),
        ("on_error", "keep"),
    )

    def __init__(self, **unknown: Any) -> None:  # backtrader's metaclass takes the parameters
        refuse_unknown("IBKRBroker", unknown)
        super().__init__()
        if not isinstance(self.p.store, IBKRStore):
            raise UsageError("IBKRBroker needs a store.", remedy="Make it with store.getbroker().")
        self._store: IBKRStore = self.p.store
        connection = self._store.connection
        scheme = self.getcommissioninfo
        # At a hub orders go by the name under which the process joined it.
        self._names = Names(self._store.name if self.p.name is None else self.p.name)
        self._events: Mailbox[AccountEvent] = Mailbox(self._store.wake)
        self._records = Records(connection.clock, self._store.put_notification)
        self._records.broker = self
        self._books = Books(connection.clock)
        self._outgoing = Outgoing(
            connection,
            self._events,
            self._records,
            self._books,
            self._names,
            OutgoingSettings(outside_rth=self.p.outside_rth, round_prices=self.p.round_prices),
            scheme,
        )
        endings = Endings(self._records, self._outgoing)
        self._changes = Changes(
            connection,
            self._events,
            self._records,
            self._outgoing,
            round_prices=self.p.round_prices,
            resized=endings.resized,
        )
        self._strays = Strays(connection.clock, self._outgoing.groups, self._outgoing.cancel_key)
        self._watching = Watching(self._records, self._books, self._strays, scheme)
        executions = Executions(self._records, self._books, self._outgoing, endings, self._watching, scheme)
        self._incoming = Incoming(
            self._events,
            self._records,
            self._books,
            self._outgoing,
            self._changes,
            endings,
            executions,
            self._watching,
            commission_wait=self.p.commission_wait,
        )
        self._resume = Resume(
            check_policy(self.p.on_resume),
            self._records,
            self._books,
            self._outgoing,
            self._strays,
            self._names,
            scheme,
            executions.known,
        )
        self._policies = Policies(self.p.on_stop, self.p.on_error)
        self._seeded: set[int] = set()
        self._started = self._stopped = False
        #: Every order of this run, oldest first, also those of earlier runs that it took over.
        self.orders = self._records.orders
        #: Every execution applied to these orders, in order, with the key (``cOID``) of its order.
        self.executions = self._records.executions
        #: What a person should look at after the run, in words: outcomes not known, over-fills.
        self.problems = self._records.problems
        #: Between the journal and IBKR, as found when the broker started.
        self.differences: list[Difference] = []
        self.startingcash = self.startingvalue = 0.0

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        if self._started:
            return
        self._store.start(broker=self)
        for account in admitted(self._store, self.p.accounts, self.p.confirm_accounts):
            snapshot = self._store.connection.attach_account(account, self._events)
            self._books.open(account).seed(snapshot.positions, snapshot.ledger.values())
            self._outgoing.start(snapshot.epoch, snapshot.sequences)
            self._watching.attach(snapshot)
            self._watching.tell_differences(account, snapshot.differences)
            self.differences.extend(snapshot.differences)
            self._resume.hold(snapshot)
        self.startingcash = self.getcash()
        self.startingvalue = self.getvalue()
        self._started = True

    def stop(self) -> None:
        super().stop()
        self._stopped = True
        for working in self._outgoing.never_transmitted():
            _log.warning("order-never-transmitted ref=%d key=%s", working.order.ref, working.key)
            self._store.put_notification("order-never-transmitted", working.order)
        if self._started:
            self._policies.at_stop(self._records, self._outgoing)

    def drain(self, wait_s: float) -> None:
        """Take in what is still under way when a run ends: the answers to the last orders, and their fills.

        Strategies have stopped and are told nothing of it, but the books are right. An order that has no
        answer by then is one of ``problems``. Of a run that a strategy's exception ended, backtrader stops nothing:
        what ``on_error`` says is done here.

        Args:
            wait_s: At most so long.
        """
        if self._resume.done and not self._stopped:
            self._stopped = True
            self._policies.at_error(self._records, self._outgoing, self.halt)
        last = [w for w in self._records.live if w.submitted and w.order_id is None]
        latest = time.monotonic() + wait_s
        linger = 0.0
        while (now := time.monotonic()) < latest:
            self.next()
            if self.settled() and not self._store.connection.in_flight():
                # A marketable order executes with its answer; the execution comes by another way.
                linger = linger or now + _LAST_FILLS_S
                if now >= linger or all(working.done for working in last):
                    break
            self._store.wake.wait(0.02)
        for working in last:
            if working.awaited:
                self._records.problem(
                    f"Order {working.key} was sent when the run ended and has no answer: look it up before you "
                    "repeat it."
                )

    def data_started(self, data: Any) -> None:
        """A feed knows its contract now: show strategies the position that stood before them."""
        contract = self._books.instruments.add(data)
        self._learn_legs(contract)
        conid = contract.conid
        position = self._book().position(conid)
        if position is None or not position.size or conid in self._seeded:
            return
        self._seeded.add(conid)
        self._records.notify(seed(data, position, self.getcommissioninfo(data)))

    def _learn_legs(self, contract: Contract) -> None:
        """What the legs of a combo are, which their executions do not tell: multipliers, futures or not."""
        instruments, connection = self._books.instruments, self._store.connection
        for leg in contract.legs:
            if not instruments.knows(leg.conid):
                instruments.learn(connection.resolve(parse_dataname(f"conid:{leg.conid}")))

    @property
    def attached(self) -> bool:
        """Whether the account was read: orders may be placed, and trading halted."""
        return self._started

    # -- what backtrader asks ----------------------------------------------------------------------

    def _book(self, account: str | None = None) -> AccountBook:
        known = self._books.accounts
        book = self._books.of(account if account is not None else known[0]) if known else None
        if book is None:
            raise UsageError(
                f"IBKRBroker: account {account!r} is not one that it trades in: {', '.join(known) or 'none yet'}.",
                remedy="Name it before the run: store.getbroker(accounts=(…)).",
            )
        return book

    def getcash(self, account: str | None = None) -> float:
        """Cash in base currency; of the store's account, unless another is named."""
        return self._book(account).cash if self._books.accounts else 0.0

    get_cash = getcash

    def getvalue(self, datas: Any = None, account: str | None = None) -> float:
        """Cash and positions at their last prices; of ``datas`` only, their positions alone."""
        if not self._books.accounts:
            return 0.0
        conids = None if datas is None else [contract_of(data).conid for data in datas]
        return self._book(account).value(conids)

    get_value = getvalue

    def getposition(self, data: Any, clone: bool = True, account: str | None = None) -> Any:
        """The position in the data's contract; of the store's account, unless another is named."""
        conid = contract_of(data).conid
        position = self._book(account).position(conid) if self._books.accounts else None
        if position is None:
            return bt.Position(0, 0.0)
        return position.clone() if clone else position

    @property
    def positions(self) -> dict[Any, Any]:
        """Position by data, for the datas of this run."""
        if not self._books.accounts:
            return {}
        book = self._book()
        held = {data: book.position(conid) for conid, data in self._books.instruments.datas.items()}
        return {data: position for data, position in held.items() if position is not None}

    def getcommissioninfo(self, data: Any) -> Any:
        """The scheme set for the data, the one set for all, or IBKR's fixed schedule for its contract."""
        name = base_of(data)._name
        chosen = self.comminfo.get(data._name) or self.comminfo.get(name)
        if chosen is None:
            contract = contract_of(data)
            chosen = self.comminfo[name] = IBKRCommission(
                security_type=contract.security_type.value, mult=contract.multiplier
            )
        return chosen

    def get_orders_open(self, safe: bool = False) -> list[Any]:
        """Orders that may still execute; clones if ``safe``."""
        live = [working.order for working in self._records.live]
        return [order.clone() for order in live] if safe else live

    def orderstatus(self, order: Any) -> int:
        """The order's status in this broker."""
        working = self._records.of(order)
        status: int = working.order.status if working is not None else order.status
        return status

    def get_notification(self) -> Any:
        return self._records.take_note()

    def client_order_id(self, order: Any) -> str | None:
        """The order's key in the journal, its ``cOID``; a bracket's child has one here, though not on the wire."""
        working = self._records.of(order)
        return None if working is None else working.key

    def order_id(self, order: Any) -> str | None:
        """IBKR's id of an order, once it has one."""
        working = self._records.of(order)
        return None if working is None else working.order_id

    @property
    def external_orders(self) -> tuple[OrderReport, ...]:
        """Open orders that other clients placed in the account, as last reported."""
        return tuple(self._watching.orders.values())

    # -- orders out --------------------------------------------------------------------------------

    def buy(self, owner: Any, data: Any, size: float, price: float | None = None, plimit: float | None = None,
            exectype: int | None = None, valid: Any = None, tradeid: int = 0, oco: Any = None,
            trailamount: float | None = None, trailpercent: float | None = None,
            parent: Any = None, transmit: bool = True, **kwargs: Any) -> Any:  # fmt: skip
        """See backtrader. Raises ``OrderRefusedError`` for what can never be an order."""
        return self._outgoing.order(
            OrderCall(bt.BuyOrder, owner, data, size, price, plimit, exectype, valid, tradeid, oco,
                      trailamount, trailpercent, parent, transmit, kwargs)
        )  # fmt: skip

    def sell(self, owner: Any, data: Any, size: float, price: float | None = None, plimit: float | None = None,
             exectype: int | None = None, valid: Any = None, tradeid: int = 0, oco: Any = None,
             trailamount: float | None = None, trailpercent: float | None = None,
             parent: Any = None, transmit: bool = True, **kwargs: Any) -> Any:  # fmt: skip
        """See ``buy``."""
        return self._outgoing.order(
            OrderCall(bt.SellOrder, owner, data, size, price, plimit, exectype, valid, tradeid, oco,
                      trailamount, trailpercent, parent, transmit, kwargs)
        )  # fmt: skip

    def what_if(self, data: Any, size: float, price: float | None = None, plimit: float | None = None,
                exectype: int | None = None, valid: Any = None, trailamount: float | None = None,
                trailpercent: float | None = None, **kwargs: Any) -> WhatIf:  # fmt: skip
        """Margin and commission of an order, asked of IBKR; nothing is placed.

        Args:
            data, price, plimit, exectype, valid, trailamount, trailpercent, kwargs: As ``buy()`` takes them.
            size: Above 0 to buy, below 0 to sell.

        Raises:
            OrderRefusedError: It can never be an order, or IBKR refuses it.
            SessionError: IBKR did not answer. It waits for the answer: not for every bar.
        """
        cls = bt.SellOrder if isinstance(size, (int, float)) and size < 0 else bt.BuyOrder
        return self._outgoing.what_if(
            OrderCall(cls, None, data, size, price, plimit, exectype, valid, trailamount=trailamount,
                      trailpercent=trailpercent, info=kwargs)
        )  # fmt: skip

    def cancel(self, order: Any) -> Any:
        """Ask IBKR to cancel; the order is Canceled when IBKR says so."""
        working = self._records.of(order)
        if working is not None:
            self._outgoing.cancel(working)
        return order

    def modify(self, order: Any, *, price: float | None = None, plimit: float | None = None,
               size: float | None = None, valid: Any = None, trailamount: float | None = None,
               trailpercent: float | None = None, tif: str | None = None) -> Any:  # fmt: skip
        """Ask IBKR to change an order; what is not given stays.

        The order is as it was until IBKR has taken the change: then its fields follow and it is notified once more
        with the status it has. A refusal is told to ``notify_store`` as ``modify-failed``, with the order and
        ``error=``; the order stands as it was. Changes of one order are sent one after another.

        Args:
            order: One of this broker's that has not ended.
            price: Limit of a Limit order; stop, or the trail's present stop, of the others.
            plimit: Limit of a StopLimit or StopTrailLimit order.
            size: The whole order's, what has executed included.
            valid, tif: As ``buy()`` takes them. One of them replaces both.
            trailamount, trailpercent: The trail's distance; an amount stays an amount, a percent a percent.

        Returns:
            The order.

        Raises:
            OrderRefusedError: The order has ended, nothing changes, or the change cannot be said to IBKR.
        """
        self._changes.ask(order, Wanted(price, plimit, size, valid, trailamount, trailpercent, tif))
        return order

    # -- the kill switch ---------------------------------------------------------------------------

    @property
    def trading_state(self) -> TradingState:
        """Whether orders may leave, why not, and who said so. It outlives the run."""
        return self._watching.trading

    def halt(self, reason: str, *, cancel: bool = True, flatten: bool = False) -> None:
        """Let no further order leave, of whatever strategy, until ``resume_trading()``; also over restarts.

        Args:
            reason: For people, and for the journal.
            cancel: Cancel open orders.
            flatten: Close all positions at the market.
        """
        self._set_trading(Trading.HALTED, reason, cancel=cancel or flatten, flatten=flatten)

    def resume_trading(self, reason: str = "") -> None:
        """Let orders leave again."""
        self._set_trading(Trading.ACTIVE, reason, cancel=False, flatten=False)

    def _set_trading(self, mode: Trading, reason: str, *, cancel: bool, flatten: bool) -> None:
        connection = self._store.connection
        state = TradingState(
            mode=mode, reason=reason, by=self._names.of(None), since_ns=connection.clock.now_ns()
        )
        connection.halt(state, cancel_open=cancel, flatten=flatten)

    # -- reports in (cerebro's thread) ---------------------------------------------------------------

    def pending(self) -> bool:
        """See ``StoreBroker``: something is to be applied or fetched now."""
        return self._records.has_notes() or self._incoming.ready() or self._due()

    def _due(self) -> bool:
        due = self.deadline_ns()
        return due is not None and due <= self._store.connection.clock.now_ns()

    def deadline_ns(self) -> int | None:
        """See ``StoreBroker``: the next moment at which an order ends by its ``valid``."""
        deadlines = (self._outgoing.deadline_ns(), self._strays.deadline_ns())
        return min((due for due in deadlines if due is not None), default=None)

    def settled(self) -> bool:
        """Whether everything asked of IBKR is answered and everything reported is applied."""
        return self._incoming.settled() and not self._records.awaiting()

    def next(self) -> None:
        """Apply what has arrived, in the order it was reported; cerebro calls this once per cycle."""
        if not self._resume.done:
            cerebro: Any = getattr(self, "cerebro", None)
            if strategies := list(getattr(cerebro, "runningstrats", None) or ()):
                self._resume.run(strategies, cerebro.datas)
        self._incoming.apply_all()
        if self._due():
            self._outgoing.expire_due()
            self._strays.expire_due()
