"""What a watched process writes, kept in files that do not grow without end."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO


class RotatingLog:
    """``NAME.log``, and before it ``NAME.log.1`` … ``NAME.log.KEEP``; lines are not torn between two files.

    A disk that takes no more stops nobody: what cannot be written is counted and forgotten, since a process whose
    pipe is not emptied would stand still.

    Args:
        path: Of the newest file; an existing one is gone on with.
        most_bytes: From about this size on a new one is begun.
        keep: So many older ones stay.

    Attributes:
        dropped: Bytes that could not be written.
    """

    def __init__(self, path: Path, *, most_bytes: int, keep: int) -> None:
        self.path = path
        self.dropped = 0
        self._most = most_bytes
        self._keep = keep
        self._file: BinaryIO | None = None
        self._size = 0
        self._whole = True

    def write(self, data: bytes) -> None:
        """Append."""
        if self._size and self._size + len(data) > self._most:
            # The line that has begun is ended in the file where it began, unless it has no end.
            cut = 0 if self._whole else data.find(b"\n") + 1
            if cut or self._whole or self._size > 2 * self._most:
                self._append(data[:cut])
                self._rotate()
                data = data[cut:]
        self._append(data)

    def note(self, text: str) -> None:
        """A line of the watcher's own, at the beginning of a line."""
        self.write((b"" if self._whole else b"\n") + text.encode("utf-8", "replace") + b"\n")

    def _append(self, data: bytes) -> None:
        if not data:
            return
        try:
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
                self._size = self._file.seek(0, os.SEEK_END)
            written = self._file.write(data) or 0
        except OSError:
            self.dropped += len(data)
            return
        self._size += written
        self.dropped += len(data) - written
        self._whole = data.endswith(b"\n")

    def _rotate(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            for number in range(self._keep, 0, -1):
                older = self._numbered(number - 1)
                if older.exists():
                    older.replace(self._numbered(number))
            if not self._keep:
                self.path.unlink(missing_ok=True)
        self._size, self._whole = 0, True

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path

    def close(self) -> None:
        """May be written to again."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
