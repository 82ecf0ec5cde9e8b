"""A process that runs one contender: requests on standard input, outcomes on standard output, JSON lines."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from pathlib import Path

import msgspec
from scenario import Outcome, Scenario


class Order(msgspec.Struct):
    """Run ``scenario`` against the server at ``url``."""

    scenario: Scenario
    url: str


def main(contender: str) -> None:
    """Serve until standard input ends."""
    # Whatever a library prints must not get between the lines.
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    # The checkout is measured, whatever is installed.
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    module = importlib.import_module(contender)
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        gc.collect()
        outcome: Outcome = module.run(order.scenario, order.url)
        replies.write(msgspec.json.encode(outcome) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
