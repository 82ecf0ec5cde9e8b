"""Where bars begin and end. Pure: moments are epoch nanoseconds, nothing reads a clock."""

from __future__ import annotations

from typing import Protocol


class Edges(Protocol):
    """The bars of one length, as windows ``[start, end)`` that do not overlap."""

    def window(self, time_ns: int) -> tuple[int, int] | None:
        """The bar that holds the moment; ``None`` where there is none, outside of sessions."""

    def following(self, time_ns: int) -> tuple[int, int] | None:
        """The first bar that ends after the moment; ``None`` if none is known."""

    def join(self, time_ns: int) -> int:
        """The first moment at or after ``time_ns`` that lies inside no bar: the end of the one it cuts, or itself."""


class FixedEdges:
    """Bars of a fixed length, at multiples of it since 1970 in UTC, around the clock.

    Args:
        bar_ns: The length.
    """

    __slots__ = ("bar_ns",)

    def __init__(self, bar_ns: int) -> None:
        self.bar_ns = bar_ns

    def window(self, time_ns: int) -> tuple[int, int]:
        start_ns = time_ns - time_ns % self.bar_ns
        return start_ns, start_ns + self.bar_ns

    def following(self, time_ns: int) -> tuple[int, int]:
        return self.window(time_ns)

    def join(self, time_ns: int) -> int:
        return -(-time_ns // self.bar_ns) * self.bar_ns
