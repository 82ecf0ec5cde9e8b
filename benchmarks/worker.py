"""A process that runs one contender: requests on standard input, outcomes on standard output, JSON lines."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from scenario import Outcome, Scenario


class Order(msgspec.Struct):
    """Run ``scenario`` against the server at ``url``."""

    scenario: Scenario
    url: str


def serve(run: Callable[[bytes], Outcome]) -> None:
    """Answer each line of standard input with what ``run`` makes of it, until it ends."""
    # Whatever a library prints must not get between the lines.
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    # The checkout is measured, whatever is installed.
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    for line in sys.stdin.buffer:
        gc.collect()
        replies.write(msgspec.json.encode(run(line)) + b"\n")


def main(contender: str) -> None:
    """See the module."""

    def run(line: bytes) -> Outcome:
        order = msgspec.json.decode(line, type=Order)
        outcome: Outcome = importlib.import_module(contender).run(order.scenario, order.url)
        return outcome

    serve(run)


if __name__ == "__main__":
    main(sys.argv[1])
