"""What a program loads before it needs it: what is heavy comes late."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Each takes a noticeable part of a second, and much memory.
HEAVY = {"exchange_calendars", "numpy", "pandas", "pyarrow"}
HELP = "import sys; sys.argv = ['bt-ibkr', *{!r}, '--help']; from bt_ibkr.cli.main import main; main()"


@pytest.mark.parametrize(
    ("code", "own"),
    [
        ("import bt_ibkr", "bt_ibkr"),
        ("from bt_ibkr import IBKRStore", "msgspec"),
        (HELP.format([]), "typer"),
        (HELP.format(["history"]), "typer"),
    ],
    ids=["import", "store", "help", "help of a group"],
)
def test_nothing_heavy_is_loaded_at_the_start(code: str, own: str, environment: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows = [line.rpartition("|")[2].strip() for line in ran.stderr.splitlines() if "import time:" in line]
    found = {name.partition(".")[0] for name in rows}
    # The measure sees what is loaded.
    assert {"encodings", own} <= found
    assert not found & HEAVY
