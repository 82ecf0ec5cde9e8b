"""How a command ends where somebody else decides it: an interrupt, a reader that goes away, ``sys.exit()``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
#: Stands before the real package, and interrupts the process while it is imported.
INTERRUPTS = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


def environment(first: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{first}{os.pathsep}{ROOT}", "COLUMNS": "200", "NO_COLOR": "1"}


@POSIX
@pytest.mark.parametrize("words", [("run", "sma_cross"), ("run", "sma_cross", "--json"), ("emulator",)])
@pytest.mark.parametrize("module", ["typer", "msgspec"])
def test_interrupt_while_it_is_being_loaded(tmp_path: Path, words: tuple[str, ...], module: str) -> None:
    (tmp_path / f"{module}.py").write_text(INTERRUPTS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "bt_ibkr.cli.main", *words],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr == "interrupted\n"
    told = '{"errors":["interrupted"],"exit_code":130}\n' if "--json" in words else ""
    assert done.stdout == told


@POSIX
@pytest.mark.parametrize("prints", [False, True])
def test_reader_that_goes_away(start: Any, tmp_path: Path, prints: bool) -> None:
    """As with ``| head``: the run ends in order, without a word of the interpreter."""
    talk = "        print('x' * 200, flush=True)\n" if prints else ""
    (tmp_path / "talks.py").write_text(
        "import backtrader as bt\n"
        "class Talks(bt.Strategy):\n"
        "    def stop(self): open('stopped', 'w').close()\n"
        "    def next(self):\n"
        f"{talk}"
        "        self.close() if self.position else self.buy(size=1)\n",
        encoding="utf-8",
    )
    running = start("run", "talks.py", "--data", "AAPL")
    assert running.process.stdout is not None
    assert running.process.stdout.readline()
    running.process.stdout.close()
    running.process.stdout = None
    _, err = running.process.communicate(timeout=60)
    assert running.process.returncode == 141, err
    assert "ended in order" in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert (tmp_path / "stopped").exists()
    assert not running.family()


@POSIX
def test_reader_of_json_that_went_away(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "bt_ibkr.cli.main", "run", "sma_cross", "--mode", "backtest", "--json"],
        env=environment(tmp_path),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("mode", ["sim", "backtest"])
def test_strategy_that_ends_the_program(here: Any, tmp_path: Path, mode: str) -> None:
    (tmp_path / "leaves.py").write_text(
        "import sys\nimport backtrader as bt\nclass Leaves(bt.Strategy):\n    def next(self): sys.exit(0)\n",
        encoding="utf-8",
    )
    ended = here("run", "leaves.py", "--mode", mode, "--data", "AAPL", "--to", "2026-03-02T14:35", "--json")
    assert ended.code == 1
    told = json.loads(ended.out)
    assert told["mode"] == mode
    assert "raised SystemExit" in "".join(told["errors"])
    assert "self.env.runstop()" in ended.err
    assert not ended.left


def test_file_that_ends_the_program(here: Any, tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit('no')\n", encoding="utf-8")
    ended = here("run", "leaves.py", "--json")
    assert ended.code == 3
    assert "SystemExit: no" in json.loads(ended.out)["errors"][0]
    assert "remedy:" in ended.err


@pytest.mark.parametrize("option", ["account", "yes-live", "login", "gateway", "data", "to"])
def test_empty_option_is_no_option_left_out(here: Any, option: str) -> None:
    """``--account "$ACCOUNT"`` with a variable that was never set must not trade in the selected account."""
    ended = here("run", "sma_cross", "--mode", "paper", "--data", "AAPL", f"--{option}", " ", "--json")
    assert ended.code == 2
    assert f"--{option} is empty" in json.loads(ended.out)["errors"][0]


def test_signal_handler_of_the_caller_is_put_back(here: Any) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert here("--version").code == 0
    assert signal.getsignal(signal.SIGINT) is before
