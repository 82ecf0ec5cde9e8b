"""Run every shipped strategy with ``bt-ibkr run NAME --mode MODE --json``, twice, and look at what it says.

Usage: ``python .ci/strategies.py backtest|sim``, in the environment that is to be checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from bt_ibkr.strategies import SHIPPED

_RUN_S = 60


def run(name: str, mode: str) -> dict[str, Any]:
    """The run's JSON.

    Raises:
        SystemExit: It failed.
    """
    command = [sys.executable, "-I", "-m", "bt_ibkr.cli.main", "run", name, "--mode", mode, "--json"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_RUN_S
    )
    if done.returncode:
        sys.exit(f"{name}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def main(mode: str) -> int:
    problems = []
    for name in SHIPPED:
        first, second = run(name, mode), run(name, mode)
        if first["errors"]:
            problems.append(f"{name}: {first['errors']}")
        if first["mode"] != mode or not first["executions"]:
            problems.append(f"{name}: nothing was traded in mode {mode}")
        problems += [
            f"{name}: {key} differ between two runs"
            for key in ("orders", "executions", "position", "cash")
            if first[key] != second[key]
        ]
        sys.stdout.write(f"{name}: {first['bars']} bars, {len(first['executions'])} executions\n")
    for problem in problems:
        sys.stderr.write(problem + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
