"""Every error ends in one clear message with a remedy, the documented exit code, and no process left."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

FILES = {
    "broken.py": "def (:\n",
    "raises_at_import.py": "raise RuntimeError('no good')\n",
    "empty.py": "import backtrader as bt\n",
    "two.py": "import backtrader as bt\nclass A(bt.Strategy): pass\nclass B(bt.Strategy): pass\n",
    "zero.py": "import backtrader as bt\nclass S(bt.Strategy):\n    def next(self): self.buy(size=0)\n",
    "nan.py": "import backtrader as bt\nclass S(bt.Strategy):\n    def next(self): self.buy(size=float('nan'))\n",
    "early.py": "import backtrader as bt\nclass S(bt.Strategy):\n    def notify_data(self, data, status, *a):\n"
    "        if status == data.LIVE: self.buy(size=1)\n",
    "raising.py": "import backtrader as bt\nclass S(bt.Strategy):\n"
    "    def next(self): raise ValueError('my own fault')\n",
}
SIM = ("--to", "2026-03-02T14:35", "--data", "AAPL")
#: name: (words, exit code, what standard error says, what the remedy says)
CASES: dict[str, tuple[tuple[str, ...], int, str, str]] = {
    "unknown symbol": (("run", "sma_cross", "--data", "NOSUCHSYM"), 4, "'NOSUCHSYM'", "--universe"),
    "symbol almost right": (("run", "sma_cross", "--data", "APPL"), 4, "'APPL'", "Did you mean AAPL"),
    "named twice": (("run", "sma_cross", "--data", "AAPL", "--data", "conid:265598"), 2, "a second time", "once"),
    "ambiguous symbol": (("run", "sma_cross", "--data", "ES-FUT-CME-USD"), 4, "ambiguous", "conid"),
    "bad dataname": (("run", "sma_cross", "--data", "A-B-C-D-E-F"), 4, "A-B-C-D-E-F", "Forms"),
    "wrong strategy name": (("run", "sma_crass"), 3, "no strategy 'sma_crass'", "sma_cross"),
    "wrong module": (("run", "no_such_module:S"), 3, "no_such_module", "module:Class"),
    "missing file": (("run", "absent.py:S"), 3, "absent.py", "path/file.py:Class"),
    "wrong class": (("run", "two.py:C"), 3, "no strategy 'C'", "module:Class"),
    "class not named": (("run", "two.py"), 3, "A, B", "two.py:Class"),
    "no strategy in the file": (("run", "empty.py"), 3, "none", ""),
    "syntax error": (("run", "broken.py:S"), 3, "SyntaxError", ""),
    "file that raises": (("run", "raises_at_import.py:S"), 3, "no good", ""),
    "market file missing": (("run", "sma_cross", "--market", "absent.parquet:IBM"), 5, "absent.parquet", "path"),
    "market without columns": (("run", "sma_cross", "--market", "columns.parquet:IBM"), 5, "columns.parquet", ""),
    "market not parquet": (("run", "sma_cross", "--market", "text.parquet:IBM"), 5, "text.parquet", ""),
    "market of an unknown symbol": (("run", "sma_cross", "--market", "good.parquet:NOSUCH"), 2, "NOSUCH", ""),
    "paper": (("run", "sma_cross", "--mode", "paper"), 2, "--mode paper was given without --data", "--data IBM"),
    "live": (
        ("run", "sma_cross", "--mode", "live", "--data", "AAPL"), 2, "no account was named", "--account ACCOUNT",
    ),
    "no such mode": (("run", "sma_cross", "--mode", "dream"), 2, "'dream'", "backtest, sim"),
    "no such parameter": (("run", "sma_cross", "--set", "quick=5"), 2, "quick", "fast=10"),
    "parameter of another type": (("run", "sma_cross", "--set", "fast=soon"), 2, "'soon' is no int", ""),
    "set without a value": (("run", "sma_cross", "--set", "fast"), 2, "'fast'", ""),
    "bad from": (("run", "sma_cross", "--from", "yesterday"), 2, "'yesterday' is no moment", "2013-10-07"),
    "from after to": (
        ("run", "sma_cross", "--from", "2026-03-03", "--to", "2026-03-02"), 2, "--from is not before --to", "",
    ),
    "bad bar": (("run", "sma_cross", "--bar", "1fortnight"), 2, "'1fortnight'", "1min"),
    "bad speed": (("run", "sma_cross", "--speed", "fast"), 2, "'fast'", "lockstep"),
    "bad fill": (("run", "sma_cross", "--fill", "magic"), 2, "'magic'", "quote or last"),
    "cash without end": (("run", "sma_cross", "--cash", "inf"), 2, "--cash", "above 0"),
    "bad commission": (("run", "sma_cross", "--commission", "dear"), 2, "'dear'", "tiered"),
    "parameter that is no number": (("run", "sma_cross", "--set", "fast=nan"), 2, "'nan' is no int", ""),
    "after the market's end": (("run", "sma_cross", "--from", "2030-01-01"), 2, "no bars of AAPL", ""),
    "after the market's end in a backtest": (
        ("run", "sma_cross", "--mode", "backtest", "--from", "2030-01-01"), 2, "no bars of AAPL", "",
    ),
    "no cash": (("run", "sma_cross", "--cash", "0"), 2, "--cash", "above 0"),
    "order of size 0": (("run", "zero.py:S", *SIM), 9, "size=0", "finite size"),
    "order of size NaN": (("run", "nan.py:S", *SIM), 9, "size=nan", "finite size"),
    "order before the first bar": (("run", "early.py:S", *SIM), 9, "before the first bar", "next()"),
    "strategy raises": (("run", "raising.py:S", *SIM), 1, "ValueError: my own fault", "traceback"),
    "strategy raises in a backtest": (
        ("run", "raising.py:S", "--mode", "backtest", *SIM), 1, "ValueError: my own fault", "traceback",
    ),
    "gateway that is not there": (
        ("run", "sma_cross", "--data", "AAPL", "--gateway", "http://127.0.0.1:9/v1/api"), 6, "127.0.0.1:9", "",
    ),
}  # fmt: skip


#: One of each exit code is run as a user runs it; the rest, which would only start the interpreter again, in this
#: process.
AS_PROCESS = (
    "unknown symbol", "syntax error", "market not parquet", "paper", "order of size NaN", "strategy raises",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with strategies and market files that are wrong in different ways."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "text.parquet").write_text("this is no table")
    pd.DataFrame({"time": [1], "price": [2.0]}).to_parquet(tmp_path / "columns.parquet")
    good = {"ts": pd.to_datetime([1_772_461_800], unit="s", utc=True), "last": [1.0], "last_size": [1.0]}
    quote = {name: [1.0] for name in ("bid", "bid_size", "ask", "ask_size")}
    pd.DataFrame(good | quote).to_parquet(tmp_path / "good.parquet")
    return tmp_path


def check(case: str, ended: Any) -> None:
    _, code, says, remedy = CASES[case]
    assert ended.code == code, ended.err
    assert says in ended.err
    messages = [line for line in ended.err.splitlines() if line.startswith("error:")]
    assert len(messages) == 1, ended.err
    if remedy:
        assert remedy in ended.err.split("remedy:")[1]
    if code == 1:
        assert "Traceback (most recent call last)" in ended.err
        assert "raising.py" in ended.err
    else:
        assert "Traceback" not in ended.err
    assert not ended.left


@pytest.mark.parametrize("case", AS_PROCESS)
def test_error_of_a_process(folder: Path, command: Any, case: str) -> None:
    check(case, command(*CASES[case][0]))


@pytest.mark.parametrize("case", [case for case in CASES if case not in AS_PROCESS])
def test_error(folder: Path, here: Any, case: str) -> None:
    check(case, here(*CASES[case][0]))


def test_port_in_use(command: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = command("emulator", "--symbol", "AAPL", "--port", str(taken.getsockname()[1]))
    assert ended.code == 6
    assert "is in use" in ended.err
    assert "choose another port" in ended.err
    assert ended.err.count("error:") == 1
    assert not ended.left


@pytest.mark.parametrize("mode", ["sim", "backtest"])
def test_error_as_json(folder: Path, here: Any, mode: str) -> None:
    ended = here("run", "raising.py:S", "--mode", mode, "--json", *SIM)
    told = json.loads(ended.out)
    assert ended.code == 1
    assert told["mode"] == mode
    assert "my own fault" in "".join(told["errors"])
    assert told["ended"]


def test_error_before_the_run_as_json(here: Any) -> None:
    ended = here("run", "nosuch", "--json")
    told = json.loads(ended.out)
    assert told == {"errors": told["errors"], "exit_code": 3}
    assert ended.code == 3
