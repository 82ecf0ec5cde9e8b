"""``python -m bt_ibkr.emulator [--state FILE]``: an emulator for another program to use.

Reads its settings as one line of JSON from standard input; an empty line means the defaults. Prints one line of JSON:
where it listens, or ``error``, ``remedy`` and ``exit_code``. With ``--state`` it goes on from where the emulator that
wrote the file ended, and keeps its own state there (the setting ``state_file``).
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from bt_ibkr.emulator.main import run
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.errors import BtIbkrError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bt_ibkr.emulator", description=__doc__)
    parser.add_argument("--state", metavar="FILE", help="keep the state here, and go on from it")
    given = parser.parse_args()
    try:
        line = sys.stdin.buffer.readline().strip() or b"{}"
        settings = msgspec.json.decode(line, type=EmulatorSettings)
        if given.state is not None:
            settings = msgspec.structs.replace(settings, state_file=given.state)
        return run(settings)
    except (BtIbkrError, msgspec.MsgspecError) as problem:
        told = {
            "error": getattr(problem, "message", str(problem)),
            "remedy": getattr(problem, "remedy", ""),
            "exit_code": getattr(problem, "exit_code", 2),
        }
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()
        return int(told["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
