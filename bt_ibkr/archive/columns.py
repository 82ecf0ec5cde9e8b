"""Bars as columns: numpy arrays of one length, by start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bt_ibkr.model.market import Bar

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

VALUES: Final = ("open", "high", "low", "close", "volume")
#: Volumes are made by a multiplication: they may differ in their last digits.
_SAME: Final = 1e-9


class Columns(NamedTuple):
    """Bars, ascending by start, each start once.

    Attributes:
        start, end: Epoch nanoseconds.
    """

    start: Ints
    end: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    @classmethod
    def empty(cls) -> Columns:
        return cls.of(())

    @classmethod
    def of(cls, bars: Iterable[Bar]) -> Columns:
        """The columns of bars, which come in order."""
        rows = [(b.start_ns, b.end_ns, b.open, b.high, b.low, b.close, b.volume) for b in bars]
        times = np.array([row[:2] for row in rows], dtype=np.int64).reshape(-1, 2)
        values = np.array([row[2:] for row in rows], dtype=np.float64).reshape(-1, 5)
        starts, ends = (np.ascontiguousarray(column) for column in times.T)
        opened, high, low, closed, volume = (np.ascontiguousarray(column) for column in values.T)
        return cls(starts, ends, opened, high, low, closed, volume)

    @classmethod
    def join(cls, parts: Sequence[Columns]) -> Columns:
        """Several, one after the other."""
        if not parts:
            return cls.empty()
        starts, ends = np.concatenate([p.start for p in parts]), np.concatenate([p.end for p in parts])
        values: list[Floats] = [np.concatenate([getattr(p, name) for p in parts]) for name in VALUES]
        return cls(starts, ends, *values)

    @property
    def size(self) -> int:
        return len(self.start)

    def where(self, mask: Mask | slice | Ints) -> Columns:
        """The bars that ``mask`` chooses."""
        values: list[Floats] = [getattr(self, name)[mask] for name in VALUES]
        return Columns(self.start[mask], self.end[mask], *values)

    def between(self, start_ns: int, end_ns: int) -> Columns:
        """The bars that start in ``[start, end)``."""
        first, last = np.searchsorted(self.start, (start_ns, end_ns))
        return self.where(slice(int(first), int(last)))

    def bars(self) -> list[Bar]:
        return [Bar(*row) for row in zip(*(column.tolist() for column in self), strict=True)]

    def checksum(self) -> str:
        """Of every byte of the columns."""
        digest = blake2b(digest_size=16)
        for column in self:
            digest.update(np.ascontiguousarray(column).astype(column.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def problem(self) -> str:
        """What is wrong with order or values, in words; empty if nothing is."""
        steps = np.diff(self.start)
        if (steps == 0).any():
            return f"{int((steps == 0).sum())} bars are there twice"
        if (steps < 0).any():
            return f"{int((steps < 0).sum())} bars are out of order"
        if (self.end <= self.start).any():
            return "bars end before they begin"
        prices = np.vstack(self[2:6])
        if not np.isfinite(prices).all():
            return "prices are missing"
        return ""


def differing(old: Columns, new: Columns) -> Mask:
    """Which bars of two sets with the same starts differ."""
    found = np.zeros(old.size, dtype=np.bool_)
    for name in VALUES:
        found |= ~np.isclose(getattr(old, name), getattr(new, name), rtol=_SAME, atol=0.0, equal_nan=True)
    return found


def replaced(old: Columns, new: Columns, start_ns: int, end_ns: int) -> Columns:
    """``old`` with everything that starts in ``[start, end)`` replaced by ``new``."""
    first, last = (int(place) for place in np.searchsorted(old.start, (start_ns, end_ns)))
    return Columns.join([old.where(slice(0, first)), new, old.where(slice(last, old.size))])
