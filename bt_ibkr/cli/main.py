"""``bt-ibkr``: arguments in, people's text or JSON out, exit codes as in ``docs/cli.md``.

Little is imported before ``main`` has begun: from its first line on an interrupt ends the program in one word.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 128 + signal.SIGINT


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Before a command has begun there is nothing to be ended in order, and nothing worth a traceback."""
    if "--json" in sys.argv:
        os.write(1, b'{"errors":["interrupted"],"exit_code":%d}\n' % _INTERRUPTED)
    os.write(2, b"interrupted\n")
    os._exit(_INTERRUPTED)


@contextlib.contextmanager
def _quick_interrupt() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main() -> None:
    """Entry point of the command."""
    with _quick_interrupt():
        sys.exit(_main())


def _main() -> int:
    from bt_ibkr.cli.output import EXIT_PIPE, drop_output, fail
    from bt_ibkr.errors import BtIbkrError, UsageError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character shows a question mark; the run goes on.
            stream.reconfigure(errors="replace")
    if sys.stdout is None:
        # Closed by whoever started this.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the process's end
    try:
        code = _command()()
        sys.stdout.flush()
    except BtIbkrError as problem:
        return fail(problem, as_json="--json" in sys.argv)
    except BrokenPipeError:
        drop_output()
        return EXIT_PIPE
    except OSError as problem:
        told = UsageError(f"The output cannot be written: {problem.strerror}.", remedy="Write it elsewhere.")
        if not _is_of_the_disk(problem):
            raise
        fail(told, as_json=False)
        # What is still buffered would fail once more, in words of the interpreter.
        drop_output()
        return told.exit_code
    return code


def _command() -> Callable[[], int]:
    """What the arguments ask for.

    Raises:
        UsageError: They cannot be understood.
    """
    from bt_ibkr.cli.commands import ArgumentError, app
    from bt_ibkr.errors import UsageError

    try:
        found = app(standalone_mode=False)
    except ArgumentError as problem:
        if type(problem).__name__ == "NoArgsIsHelpError":
            problem.show()
            return lambda: 2
        words = problem.format_message()
        raise UsageError(
            words if words.endswith(".") else f"{words}.",
            remedy="bt-ibkr -h shows the commands and their options.",
        ) from None
    return found if callable(found) else lambda: int(found or 0)


def _is_of_the_disk(problem: OSError) -> bool:
    import errno

    return problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)


if __name__ == "__main__":
    main()
