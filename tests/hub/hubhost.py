"""An emulator and a hub on it in a process of their own; moved and asked by lines of JSON.

Started as ``python hubhost.py SETTINGS [MARKET]`` with the hub's settings as JSON, and the emulator's as far as they
are other than here. It ends when its standard input does.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.brokerage import JournalInMemory
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.risk import RiskLimits
from tests.hub.noticed import Noticed

MARKET: dict[str, Any] = {
    "speed": "lockstep",
    "conflation_ms": 0,
    "questions": "none",
    "synthetic_instruments": ("AAPL", "MSFT"),
    "history_days": 1,
    "smd_lifetime_s": 0,
}


def say(kind: str, **values: object) -> None:
    print(json.dumps({"kind": kind} | values), flush=True)


async def turn() -> None:
    """The hub's loop goes round once."""


def move(emulator: EmulatorThread, hub: HubThread, events: int) -> None:
    """Move the market, and let the hub publish what comes of it."""
    emulator.call(lambda s: s.drive.step(until_ns=None, max_events=events, received={}))
    sent = emulator.call(lambda s: sum(one.sent for one in s.core.hub.connections))
    while hub.brokerage.progress().frames < sent:
        hub.loop.call(turn())


def main(settings: str, market: str = "{}") -> None:
    wanted = msgspec.json.decode(settings, type=HubSettings)
    with EmulatorThread(EmulatorSettings(**(MARKET | json.loads(market)))) as emulator, Noticed() as noticed:
        session = SessionSettings(base_url=emulator.url, paced=False)
        risk = RiskLimits(allow_no_data=True, duplicate_window_s=None)
        with HubThread(session, wanted, journal=JournalInMemory("hosts"), risk=risk) as hub:

            def peers() -> dict[str, str]:
                return {one.name: one.state for one in hub.status().peers}

            say("ready", endpoint=hub.endpoint)
            for line in sys.stdin:
                asked = json.loads(line)
                if asked["do"] == "move":
                    move(emulator, hub, asked["events"])
                    say("moved", ticks=sum(one.ticks for one in hub.status().topics))
                elif asked["do"] == "await":
                    noticed.until(lambda: peers() == asked["peers"], peers)  # noqa: B023
                    say("so")
                elif asked["do"] == "created":
                    orders = emulator.call(
                        lambda s: [one.spec.client_order_id for one in s.core.engine.orders()]
                    )
                    say("created", keys=orders)


if __name__ == "__main__":
    main(*sys.argv[1:])
