"""``python -m bt_ibkr.emulator``: an emulator for another program to use.

Reads its settings as one line of JSON from standard input. Prints one line of JSON: where it listens, or
``error``, ``remedy`` and ``exit_code``.
"""

from __future__ import annotations

import sys

import msgspec

from bt_ibkr.emulator.main import run
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.errors import BtIbkrError


def main() -> int:
    try:
        settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=EmulatorSettings)
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
