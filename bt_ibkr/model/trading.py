"""Whether orders may be placed: the state behind the kill switch. It is kept in the journal, over restarts."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Trading(StrEnum):
    """What may be sent. Cancellations may be sent in every state."""

    #: Everything.
    ACTIVE = "active"
    #: Only what protects or reduces a position.
    REDUCING = "reducing"
    #: No order at all.
    HALTED = "halted"


class TradingState(msgspec.Struct, frozen=True, kw_only=True):
    """The state, and where it comes from.

    Attributes:
        mode: What may be sent.
        reason: Why, in the words of whoever set it.
        by: Who set it: a strategy's name, ``command line``, a control's name.
        since_ns: When.
    """

    mode: Trading = Trading.ACTIVE
    reason: str = ""
    by: str = ""
    since_ns: int = 0
