"""What every feed on the store needs: its place in the store's cycle, an end that stays, statuses, one spare bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import backtrader as bt

from bt_ibkr.clock import NS_PER_MS, NS_PER_S
from bt_ibkr.connection.backlog import TickBacklog
from bt_ibkr.connection.interface import SessionChanged
from bt_ibkr.errors import ContractError, UsageError
from bt_ibkr.feeds.days_by_clock import close_days_by_clock
from bt_ibkr.feeds.little_memory import keep_little
from bt_ibkr.feeds.times import epoch_ns
from bt_ibkr.model.contract import Contract
from bt_ibkr.services.datanames import ContractQuery
from bt_ibkr.store import IBKRStore, refuse_unknown


class StoreData(bt.DataBase):  # type: ignore[misc]
    """A feed that is polled by the store once per cycle and delivers at the store's cutoff.

    A subclass says in ``prepare`` when its next bar is due (and keeps that in ``_head_ns``), writes that bar in
    ``write_next``, and says in ``ended`` when there will be no further one. It never waits and never raises for what
    the market does.

    Attributes:
        contract: What is followed, once started; ``None`` where it is no contract.
        tradecontract: What orders for this feed trade.
        holding: Its first bars are on the way: what others have ready may be later than what it will bring.
        over: Cerebro has seen the feed's end.
    """

    params: Any = (("store", None), ("qcheck", 0.0))

    def __init__(self, **unknown: Any) -> None:  # backtrader's metaclass takes the parameters
        name = type(self).__name__
        refuse_unknown(name, unknown)
        super().__init__()
        if not isinstance(self.p.store, IBKRStore):
            raise UsageError(f"{name} needs a store.", remedy="Make it with store.getdata(dataname=...).")
        self._ibkr: IBKRStore = self.p.store
        self._cycle = self._ibkr.cycle
        self.contract: Contract | None = None
        self.tradecontract: Contract | None = None
        self.holding = False
        self.over = False
        #: See ``StoreFeed``; bars made of this feed's end at multiples of so many nanoseconds.
        self.check_ns: int | None = None
        self._check_step_ns = 60 * NS_PER_S
        #: What was resampled from it as feeds of their own.
        self._twins: list[Any] = []
        self._finishing = False
        #: The time of the next bar, as ``prepare`` found it.
        self._head_ns: int | None = None
        self._backlog = TickBacklog()
        self._buffers: tuple[Any, ...] = ()

    # -- for subclasses ------------------------------------------------------------------------------

    def prepare(self) -> int | None:
        """Take in what has arrived; the time of the next bar to deliver, ``None`` if none is ready."""
        raise NotImplementedError

    def write_next(self) -> bool | None:
        """Write the bar that ``prepare`` announced to the lines; true if it was written."""
        raise NotImplementedError

    def ended(self) -> bool:
        """No further bar will come."""
        raise NotImplementedError

    def deadline_ns(self) -> int | None:
        """Market time of the next edge at which a bar may have to be closed; 0 for: at the next event."""
        return None

    def complete_ns(self, market_ns: int) -> int:
        """See ``StoreFeed``."""
        return market_ns

    def session_changed(self, change: SessionChanged) -> None:
        """The session broke or came back."""

    @property
    def query(self) -> ContractQuery | None:
        """What the feed's parameters ask for; ``None`` where it is no contract."""
        return None

    @property
    def backlog(self) -> TickBacklog:
        """The ticks that wait for this feed, and what was counted of them."""
        return self._backlog

    @property
    def current(self) -> bool:
        """Whether the bar last delivered is the market's newest, not one of the past."""
        return True

    # -- cerebro's side ------------------------------------------------------------------------------

    def setenvironment(self, env: Any) -> None:
        super().setenvironment(env)
        env.addstore(self._ibkr)
        self._ibkr.register(self)

    def islive(self) -> bool:
        """True: cerebro must not preload, in no state does this feed know all of its bars."""
        return True

    def haslivedata(self) -> bool:
        # Nobody waits in a feed: the store does, before all of them.
        return True

    def qbuffer(self, savemem: int = 0, replaying: bool = False) -> None:
        """Called where ``exactbars`` is 1."""
        keep_little(self, savemem, replaying)

    def start(self) -> None:
        super().start()
        lines = self.lines
        # Asking `lines` for one of these costs as much as writing to it.
        self._buffers = (
            lines.datetime, lines.open, lines.high, lines.low, lines.close, lines.volume, lines.openinterest,
        )  # fmt: skip
        # The base class begins as CONNECTED and would swallow that notification.
        self._laststatus = self.DISCONNECTED
        for data in self._resampled():
            if data is not self:
                self.check_ns = 0
                if data._timeframe <= bt.TimeFrame.Seconds:  # noqa: SLF001 - how backtrader says it
                    self._check_step_ns = NS_PER_S
            # Cerebro leaves resampled feeds out when it looks for the earliest bar, and fails where such a bar comes
            # alone, in a cycle without one of a plain feed; and the resampler closes bars by the machine's clock.
            data.resampling = 0
            data._timeoffset = self._timeoffset  # noqa: SLF001 - a method that the resampler asks
            data._check = partial(self._check_resampled, data._check)  # noqa: SLF001 - cerebro's
            close_days_by_clock(data)
            if data is not self:
                # Cerebro takes a bar back that is later than others of its cycle, and goes on to it in a later one. A
                # clone counts that as one more bar of its source seen, and would leave the next one out.
                data.advance = partial(bt.feed.AbstractDataBase.advance, data)
                data.qbuffer = partial(keep_little, data)
                self._twins.append(data)

    def twins_wait(self) -> bool:
        """See ``StoreFeed``."""
        seen = len(self)
        return any(
            data._barstack or data._dlen < seen or len(data) < data.buflen()  # noqa: SLF001 - cerebro's
            for data in self._twins
        )

    def _resampled(self) -> Iterator[Any]:
        """This feed and what was resampled from it."""
        return (data for data in self._env.datas if base_of(data) is self)

    def _check_resampled(self, check: Callable[..., Any], forcedata: Any = None) -> None:
        """Close resampled bars by another data's time only as far as this feed is complete: after a break the other
        one may have its bars first."""
        if forcedata is not None:
            time_ns = epoch_ns(forcedata.datetime[0])
            if self.complete_ns(time_ns) < time_ns - NS_PER_MS:
                forcedata = None
        check(forcedata=forcedata)

    def _timeoffset(self) -> timedelta:
        """From the machine's clock to the market's, as far as its bars were delivered: by more than that resampled
        bars must not be closed. A little more, so that an edge that was reached has passed."""
        offset_ns = self.complete_ns(self._ibkr.connection.clock.now_ns()) - time.time_ns()
        return timedelta(microseconds=offset_ns / 1000 + 1000)

    def checked(self, now_ns: int) -> None:
        """See ``StoreFeed``."""
        step_ns = self._check_step_ns
        self.check_ns = now_ns // step_ns * step_ns + step_ns

    def _load(self) -> bool | None:
        head_ns = self._head_ns
        if head_ns is not None:
            if head_ns != self._cycle.cutoff_ns:
                return None
            self._head_ns = None
            return self.write_next()
        if self.over or self.ended():
            if not self.over:
                self.over = True
                self.put_notification(self.DISCONNECTED)
            return False
        return None

    # -- the store's side ----------------------------------------------------------------------------

    def has_news(self) -> bool:
        """A notification or the feed's end is waiting to be seen by cerebro."""
        return bool(self.notifs) or (not self.over and self.ended())

    def finish(self) -> None:
        """The market is over: deliver what is complete, then end."""
        self._finishing = True


def base_of(data: Any) -> Any:
    """The feed a backtrader data stands for; clones (made by resampling) lead to the feed they copy."""
    while getattr(data, "_clone", False):
        data = data.data
    return data


def is_current(data: Any) -> bool:
    """Whether ``data``'s last bar is of the present, so that a strategy may trade on it.

    False while a live feed delivers history; always true in a backtest.
    """
    return bool(getattr(base_of(data), "current", True))


def is_back_filled(data: Any) -> bool:
    """Whether ``data``'s last bar came from history, not from the stream; always false in a backtest."""
    return bool(getattr(base_of(data), "back_filled", False))


def contract_of(data: Any) -> Contract:
    """The contract that orders for a backtrader data trade; clones lead to the feed they were made from.

    Raises:
        ContractError: The data is none of this package's feeds, or has not been started.
    """
    contract = getattr(base_of(data), "tradecontract", None)
    if not isinstance(contract, Contract):
        raise ContractError(
            f"The data {getattr(data, '_name', data)!r} is not an IBKR feed: it cannot be traded.",
            remedy="Trade on feeds made by store.getdata().",
        )
    return contract
