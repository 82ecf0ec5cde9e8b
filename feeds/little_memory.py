"""Lines that keep no more than indicators look back on (``exactbars=1``), and lose nothing of that.

backtrader's own buffers hold the index at the end of a full buffer when the newest bar is taken back, and count what
they hold where all bars are meant: beside resampled feeds a strategy then sees a bar that is not its time's, and one
that was taken back is lost (seen in ``linebuffer.py`` of 1.9.78). These move the index with what they hold.
"""

from __future__ import annotations

from typing import Any, Final

import backtrader as bt
from backtrader.linebuffer import NAN

#: A bar under way, and one that was taken back until its time.
_EXTRA: Final = 2


class KeptLine(bt.LineBuffer):  # type: ignore[misc]
    """A line of a feed in little memory."""

    def qbuffer(self, savemem: int = 0, extrasize: int = 0) -> None:
        """Keep no more than is looked back on."""
        super().qbuffer(savemem=savemem, extrasize=_EXTRA)

    def set_idx(self, idx: int, force: bool = False) -> None:
        """Whatever it is, and whether the buffer is full or not."""
        self._idx = idx

    idx = property(bt.LineBuffer.get_idx, set_idx)

    def forward(self, value: float = NAN, size: int = 1) -> None:
        """A full buffer drops its oldest value: what was the next place is this one then."""
        for _ in range(size):
            if len(self.array) < self.maxlen + self.extrasize:
                self._idx += 1
            self.lencount += 1
            self.array.append(value)

    def buflen(self) -> int:
        """All bars so far, and those that were taken back."""
        ahead: int = len(self.array) - 1 - self._idx
        return int(self.lencount) + ahead - int(self.extension)


def keep_little(data: Any, savemem: int = 0, replaying: bool = False) -> None:
    """As ``qbuffer`` of a feed, of these lines."""
    for line in data.lines:
        line.__class__ = KeptLine
        line.qbuffer(savemem=savemem)
