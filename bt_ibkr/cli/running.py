"""The command ``run``: signals, output, exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import TextIO, cast

from rich.console import Console

from bt_ibkr.app.result import RunResult
from bt_ibkr.app.run import RunRequest, Stopper, run_backtest, run_sim, run_trade
from bt_ibkr.app.trade import Banner
from bt_ibkr.cli.output import EXIT_PIPE, Pipe, to_json
from bt_ibkr.cli.telling import Teller, show_banner, show_summary
from bt_ibkr.errors import RunFailedError

#: What the broker's book and the emulator's ledger disagreed about is worse than a failed strategy.
EXIT_DIFFERENCE = 10
#: How long the end of a run waits for a halt that has just begun, seconds.
_LAST_S = 2.0


class _HaltSignal:
    """SIGUSR1 halts trading: at once, whatever the strategy is busy with. Not where the system has no such signal.

    Python calls handlers of signals between two steps of the main thread, which a strategy may keep busy for long;
    the number of a signal is written to a pipe at once.
    """

    def __init__(self, halter: Stopper) -> None:
        self._halter = halter
        self._number = getattr(signal, "SIGUSR1", None)

    def __enter__(self) -> _HaltSignal:
        if self._number is None:
            return self
        self._out, self._in = os.pipe()
        os.set_blocking(self._in, False)
        self._thread = threading.Thread(target=self._listen, name="halt-signal", daemon=True)
        self._thread.start()
        self._before = signal.signal(self._number, lambda number, frame: None)
        self._wake_before = signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._number is None:
            return
        signal.set_wakeup_fd(self._wake_before)
        signal.signal(self._number, self._before)
        os.write(self._in, b"\0")
        self._thread.join(_LAST_S)
        os.close(self._in)
        if not self._thread.is_alive():
            os.close(self._out)

    def _listen(self) -> None:
        number = int(self._number or 0)
        while b"\0" not in (numbers := os.read(self._out, 64)):
            if number in numbers and not self._halter.asked:
                sys.stderr.write(
                    "SIGUSR1: trading is halted, and open orders are cancelled. bt-ibkr resume ends it.\n"
                )
                self._halter()


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


def _run(
    request: RunRequest, mode: str, teller: Teller | None, stopper: Stopper, console: Console
) -> RunResult:
    if mode == "backtest":
        return run_backtest(request, teller, stopper)
    if mode == "sim":
        return run_sim(request, teller, stopper)
    # With --json nothing but the result may be on standard output.
    told = console if teller is not None else Console(stderr=True, soft_wrap=True, highlight=False)

    def announce(banner: Banner) -> None:
        show_banner(told, banner)

    def ask(account: str) -> str:
        told.print(f"[bold red]Real money.[/] Type the account id ({account}) to go on: ", end="")
        told.file.flush()
        return sys.stdin.readline()

    on_terminal = sys.stdin is not None and sys.stdin.isatty()
    halter = Stopper()
    with _HaltSignal(halter):
        return run_trade(
            request,
            "live" if mode == "live" else "paper",
            teller,
            stopper,
            announce=announce,
            ask=ask if on_terminal else None,
            halter=halter,
        )


def run_command(request: RunRequest, mode: str, *, as_json: bool) -> int:
    """Run, tell, summarize.

    Returns:
        0, 130 or 143 after a signal, 141 if nobody read the output to its end, 10 if something must be looked at.

    Raises:
        BtIbkrError: What ended the run; the command line shows it.
    """
    stopper = Stopper()
    pipe = Pipe(sys.stdout, stopper)
    console = Console(file=cast("TextIO", pipe), soft_wrap=True, highlight=False)
    teller = None if as_json else Teller(console)
    # What a strategy prints must not mix with the one object of --json.
    aside = contextlib.redirect_stdout(sys.stderr if as_json else pipe)
    with _Signals(stopper) as signals:
        try:
            with aside:
                result = _run(request, mode, teller, stopper, console)
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
    if pipe.broken:
        sys.stderr.write("Nobody reads the output any more: the run was ended in order.\n")
        return EXIT_PIPE
    if signals.received:
        return 128 + signals.received
    return EXIT_DIFFERENCE if result.errors else 0
