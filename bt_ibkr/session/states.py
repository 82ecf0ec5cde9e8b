"""Where a session stands, and what may follow what.

::

    disconnected ──► gateway up ──► read-only ──► brokerage ──► streaming
         ▲               │              │             │             │
         └───────────────┴──────────────┴─────────────┴─────────────┘      any of them may fall back
    maintenance   an outage that was announced          competing   another login holds the session
    penalty       too many requests (HTTP 429)          needs a person   somebody must log in
"""

from __future__ import annotations

from enum import Enum

import msgspec

from bt_ibkr.errors import SessionError


class SessionState(Enum):
    """States of the session; the values are what users read."""

    DISCONNECTED = "disconnected"
    GATEWAY_UP = "gateway up"
    READ_ONLY = "read-only session"
    BROKERAGE = "brokerage session"
    STREAMING = "streaming"
    PENALTY = "penalty"
    MAINTENANCE = "maintenance"
    COMPETING = "competing"
    NEEDS_PERSON = "needs a person"


_S = SessionState
_FALLS = {_S.DISCONNECTED, _S.GATEWAY_UP, _S.MAINTENANCE}

#: From each state, the states that may follow.
ALLOWED: dict[SessionState, frozenset[SessionState]] = {
    _S.DISCONNECTED: frozenset({_S.GATEWAY_UP, _S.MAINTENANCE, _S.PENALTY, _S.NEEDS_PERSON}),
    _S.GATEWAY_UP: frozenset({_S.READ_ONLY, _S.NEEDS_PERSON, _S.PENALTY, _S.DISCONNECTED, _S.MAINTENANCE}),
    _S.READ_ONLY: frozenset({_S.BROKERAGE, _S.COMPETING, _S.NEEDS_PERSON, _S.PENALTY, *_FALLS}),
    _S.BROKERAGE: frozenset({_S.STREAMING, _S.READ_ONLY, _S.COMPETING, _S.NEEDS_PERSON, _S.PENALTY, *_FALLS}),
    _S.STREAMING: frozenset({_S.BROKERAGE, _S.READ_ONLY, _S.COMPETING, _S.PENALTY, *_FALLS}),
    # The stream may go on while REST calls are punished.
    _S.PENALTY: frozenset({_S.BROKERAGE, _S.STREAMING, _S.COMPETING, _S.NEEDS_PERSON, *_FALLS}),
    _S.MAINTENANCE: frozenset(
        {_S.DISCONNECTED, _S.GATEWAY_UP, _S.BROKERAGE, _S.COMPETING, _S.NEEDS_PERSON, _S.PENALTY}
    ),
    _S.COMPETING: frozenset({_S.READ_ONLY, _S.BROKERAGE, _S.NEEDS_PERSON, _S.PENALTY, *_FALLS}),
    _S.NEEDS_PERSON: frozenset({_S.READ_ONLY, _S.BROKERAGE, _S.COMPETING, _S.PENALTY, *_FALLS}),
}

#: The way up, as a start goes it.
WAY_UP = (_S.GATEWAY_UP, _S.READ_ONLY, _S.BROKERAGE, _S.STREAMING)
#: Market data, orders and executions may stream; in a penalty only if they did before (``SessionEvent.streams``).
CONNECTED = frozenset({_S.STREAMING, _S.PENALTY})


class SessionEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change of state.

    Attributes:
        state, previous: Where the session stands now, and stood before.
        cause: Why, in words.
        next_step: What happens next, or what somebody has to do.
        time_ns: Of the market clock.
        streams: Whether market data and reports stream now.
        since_ns: Where the stream was lost: the last moment up to which it is known to have been whole.
    """

    state: SessionState
    previous: SessionState
    cause: str
    next_step: str
    time_ns: int
    streams: bool = False
    since_ns: int = 0


def check(previous: SessionState, state: SessionState, cause: str) -> None:
    """Raise ``SessionError`` if ``state`` cannot follow ``previous``."""
    if state not in ALLOWED[previous]:
        raise SessionError(f"The session cannot go from {previous.value} to {state.value} ({cause}).")
