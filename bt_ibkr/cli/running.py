"""The command ``run``: signals, output, exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from types import FrameType

from rich.console import Console

from bt_ibkr.app.result import RunResult
from bt_ibkr.app.run import RunRequest, Stopper, run_backtest, run_sim
from bt_ibkr.cli.output import Teller, show_summary, to_json
from bt_ibkr.errors import RunFailedError

#: What the broker's book and the emulator's ledger disagreed about is worse than a failed strategy.
EXIT_DIFFERENCE = 10


class _Signals:
    """SIGINT and SIGTERM end the run in order; a second one at once."""

    def __init__(self, stopper: Stopper) -> None:
        self._stopper = stopper
        self.received = 0

    def __enter__(self) -> _Signals:
        self._before = {
            number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.received = bool(self.received), number
        if again or not self._stopper.attached:
            raise KeyboardInterrupt
        self._stopper()


def run_command(request: RunRequest, mode: str, *, as_json: bool) -> int:
    """Run, tell, summarize.

    Returns:
        0, 130 or 143 after a signal, 10 if the books disagree.

    Raises:
        BtIbkrError: What ended the run; the command line shows it.
    """
    console = Console(soft_wrap=True, highlight=False)
    teller = None if as_json else Teller(console)
    stopper = Stopper()
    runner = run_sim if mode == "sim" else run_backtest
    # What a strategy prints must not mix with the one object of --json.
    aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    with _Signals(stopper) as signals:
        try:
            with aside:
                result: RunResult = runner(request, teller, stopper)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            code = 128 + (signals.received or signal.SIGINT)
            if as_json:
                sys.stdout.write(to_json({"errors": ["interrupted"], "exit_code": code}) + "\n")
            return code
        except RunFailedError as problem:
            if problem.__cause__ is not None:
                traceback.print_exception(problem.__cause__, file=sys.stderr)
            raise
    if as_json:
        sys.stdout.write(to_json(result) + "\n")
    else:
        show_summary(console, result)
    if signals.received:
        return 128 + signals.received
    return EXIT_DIFFERENCE if result.errors else 0
