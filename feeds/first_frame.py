"""Whether a subscription has brought anything: beyond the market-data lines a stream is not refused but silent."""

from __future__ import annotations

from typing import Final

from bt_ibkr.clock import NS_PER_S

#: The picture that a subscription begins with comes within a second or two, of a closed market as well.
_PATIENCE_NS: Final = 10 * NS_PER_S
SILENT: Final = "no data came: all market-data lines are in use elsewhere, or this user is not entitled to it"


class FirstFrame:
    """Waits for the first frame of one subscription; gone once it has come.

    Args:
        now_ns: Market time of the subscription.

    Attributes:
        due_ns: Market time at which the stream is called silent if none has come.
    """

    __slots__ = ("due_ns",)

    def __init__(self, now_ns: int) -> None:
        self.due_ns = now_ns + _PATIENCE_NS
