"""The kill switch's rules: what each state lets pass, and who may move it where.

Anybody may restrict trading further. Only a person lifts a restriction, at the command line or through the hub,
except that a strategy may lift what it alone imposed. What the limits, a signal or IBKR's liquidation brought about
stays until a person has looked at it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import Final

import msgspec

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import UsageError
from bt_ibkr.model.trading import Trading, TradingState

#: From free to closed.
SEVERITY: Final = {Trading.ACTIVE: 0, Trading.REDUCING: 1, Trading.HALTED: 2}
_AND: Final = " and "
_UNKNOWN: Final = "an unknown hand"


class Who(Enum):
    """Kinds of those who move the switch; the values begin ``TradingState.by``."""

    COMMAND_LINE = "command line"
    HUB = "hub"
    SIGNAL = "signal"
    DESK = "desk"
    RISK = "risk"
    STRATEGY = "strategy"


#: They lift any restriction.
PERSONS: Final = frozenset({Who.COMMAND_LINE, Who.HUB})


class Actor(msgspec.Struct, frozen=True):
    """Who moves the switch: ``strategy sma_cross``, ``risk daily_loss_limit``, ``command line``."""

    who: Who
    name: str = ""

    def __str__(self) -> str:
        return f"{self.who.value} {self.name}".strip()


def may_lift(state: TradingState, actor: Actor) -> bool:
    """Whether ``actor`` may make trading freer than ``state``."""
    if state.mode is Trading.ACTIVE or actor.who in PERSONS:
        return True
    return actor.who is Who.STRATEGY and state.by == str(actor) and _AND not in state.by


def moved(state: TradingState, to: Trading, *, by: Actor, reason: str, now_ns: int) -> TradingState:
    """The state after ``by`` asked for ``to``; the same object if nothing changes.

    ``by`` of the result names everybody who asked for a restriction since it was last eased, so that what two imposed
    is not lifted by one of them.

    Args:
        state: As it is.
        to: What is wanted.
        by: Who wants it.
        reason: Why, for people.
        now_ns: The moment.

    Raises:
        UsageError: It would be freer, and ``by`` may not do that.
    """
    if SEVERITY[to] < SEVERITY[state.mode]:
        if not may_lift(state, by):
            raise UsageError(
                f"{by} may not make trading {to.value}: it is {state.mode.value} since {_moment(state.since_ns)} "
                f"by {state.by or _UNKNOWN} ({state.reason or 'no reason was given'}).",
                remedy="Look at the reason first; then run `bt-ibkr resume`.",
            )
        return TradingState(mode=to, reason=reason, by=str(by), since_ns=now_ns)
    if to is Trading.ACTIVE:
        return state
    hands = [] if state.mode is Trading.ACTIVE else (state.by or _UNKNOWN).split(_AND)
    if to is state.mode and str(by) in hands:
        return state
    names = _AND.join([*(hand for hand in hands if hand != str(by)), str(by)])
    if to is state.mode:
        # The first reason and moment stay: they are what happened.
        return msgspec.structs.replace(state, by=names)
    return TradingState(mode=to, reason=reason, by=names, since_ns=now_ns)


def _moment(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
