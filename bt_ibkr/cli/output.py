"""What every command writes alike: JSON, errors, and nothing to a reader that went away."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

import msgspec
from rich.console import Console
from rich.markup import escape

from bt_ibkr.app.result import RunResult
from bt_ibkr.errors import BtIbkrError

#: The reader of the output went away: what a shell makes of the signal that other programs die of.
EXIT_PIPE = 141


def to_json(value: Any) -> str:
    """JSON as ``--json`` prints it: one line, numbers that JSON lacks as null."""
    return msgspec.json.encode(value).decode()


def fail(problem: BtIbkrError, *, as_json: bool) -> int:
    """Show an error once, clearly; its exit code."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]error:[/] {escape(problem.message)}")
    if problem.remedy:
        console.print(f"[bold]remedy:[/] {escape(problem.remedy)}")
    if as_json:
        result = getattr(problem, "result", None)
        if isinstance(result, RunResult):
            result.errors.append(str(problem))
            sys.stdout.write(to_json(result) + "\n")
        else:
            told = {"errors": [str(problem)], "exit_code": problem.exit_code}
            sys.stdout.write(to_json(told) + "\n")
    return problem.exit_code


class Pipe(io.TextIOBase):
    """Standard output of a run. When its reader goes away, ``on_close`` is told once, and what is written afterwards
    is dropped: neither a strategy's ``print`` nor the account of the run may end a run out of order.

    Args:
        stream: The stream itself.
        on_close: Told that nobody reads any more.
    """

    def __init__(self, stream: TextIO, on_close: Callable[[], None]) -> None:
        self._stream = stream
        self._on_close = on_close
        self.broken = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not self.broken:
            try:
                self._stream.write(text)
            except BrokenPipeError:
                self._close()
        return len(text)

    def flush(self) -> None:
        if not self.broken:
            try:
                self._stream.flush()
            except BrokenPipeError:
                self._close()

    def _close(self) -> None:
        self.broken = True
        drop_output()
        self._on_close()


def drop_output() -> None:
    """Let what is still buffered go nowhere: it would fail once more, in words of the interpreter."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
