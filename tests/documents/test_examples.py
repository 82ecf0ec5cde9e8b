"""What the documents tell to type works as it is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.app.run import run_backtest, run_sim
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.strategies import SHIPPED, SmaCross

ROOT = Path(__file__).resolve().parents[2]
RUN = "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/bt-ibkr run sma_cross --mode sim"
TEST = (
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && "
    ".venv/bin/python -m pytest -n logical --dist loadfile"
)


def _blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_readme_prints_the_two_commands() -> None:
    blocks = [block.strip() for block in _blocks("README.md", "sh")]
    assert blocks[0] == RUN
    assert blocks[1] == TEST


@pytest.mark.parametrize(("needle", "command"), [("bt-ibkr run", RUN), ("m pytest", TEST)])
def test_ci_takes_the_commands_from_the_readme(needle: str, command: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "readme.py", needle],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == command


def test_readme_prints_both_commands_for_windows() -> None:
    def windows(command: str) -> str:
        plain = command.replace("python3 -m", "py -m").replace("'", "").replace("/bin/", "/Scripts/")
        return re.sub(r"\.venv/\S+", lambda found: found[0].replace("/", "\\"), plain)

    assert [block.strip() for block in _blocks("README.md", "bat")] == [windows(RUN), windows(TEST)]


def test_example_of_the_readme_trades(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python example, its emulator on a free port and its market faster, ended after a fill was shown."""
    (example,) = _blocks("README.md", "python")
    seen: list[bool] = []
    shown: list[str] = []
    whole = SmaCross.next

    def next_and_count(self: Any) -> None:
        whole(self)
        seen.append(bool(self.data.current))
        shown.append(capsys.readouterr().out)
        if "".join(shown):
            self.env.runstop()

    monkeypatch.setattr(SmaCross, "next", next_and_count)
    with EmulatorThread(EmulatorSettings(speed=1200.0)) as emulator:
        base = emulator.url.removesuffix("/v1/api")
        code = example.replace("http://127.0.0.1:5055", base).replace("speed=60.0", "speed=1200.0")
        assert base in code
        assert "speed=1200.0" in code
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102
    assert not seen[0], "history comes first"
    assert seen[-1]
    assert re.fullmatch(r"\d\d:\d\d:\d\d [+-]100 at \d+\.\d\d\n", "".join(shown))


@pytest.fixture
def dip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quickstart's own strategy, saved as it says."""
    strategy, _ = _blocks("docs/quickstart.md", "python")
    (tmp_path / "dip.py").write_text(strategy, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_of_the_quickstart_runs(dip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, code = _blocks("docs/quickstart.md", "python")
    assert run_backtest.__name__ in code
    assert run_sim.__name__ in code
    exec(compile(code, "quickstart.md", "exec"), {"__name__": "__main__"})  # noqa: S102
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["backtest", "sim"]
    assert all(int(line.split()[1]) > 0 for line in lines), "it traded"


def _commands(name: str) -> list[str]:
    lines = [line for block in _blocks(name, "sh") for line in block.splitlines()]
    runs = [line.removeprefix(".venv/bin/") for line in lines if re.match(r"(\.venv/bin/)?bt-ibkr run", line)]
    # Files and accounts of the reader's own cannot be run here, and a market on its own clock takes its time.
    own = ("ticks.parquet", "my_strategies", "--speed", "--mode paper", "--mode live")
    return [line.split(" | ")[0] for line in runs if not any(word in line for word in own)]


@pytest.mark.parametrize("command", [*_commands("docs/quickstart.md"), *_commands("docs/cli.md")])
def test_command_of_the_documents_runs(command: str, dip: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "bt_ibkr.cli.main", *command.split()[1:]],
        cwd=dip,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_documents_name_every_shipped_strategy() -> None:
    told = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert not [name for name in SHIPPED if f"`{name}`" not in told]
