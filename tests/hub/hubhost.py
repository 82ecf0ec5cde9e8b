"""An emulator and a hub on it in a process of their own; moved and asked by lines of JSON.

Started as ``python hubhost.py SETTINGS`` with the hub's settings as JSON. It ends when its standard input does.
"""

from __future__ import annotations

import json
import sys

import msgspec

from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.brokerage import JournalInMemory
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.hub.config import HubSettings
from bt_ibkr.hub.thread import HubThread
from bt_ibkr.risk import RiskLimits


def say(kind: str, **values: object) -> None:
    print(json.dumps({"kind": kind} | values), flush=True)


def main(settings: str) -> None:
    wanted = msgspec.json.decode(settings, type=HubSettings)
    market = EmulatorSettings(
        speed="lockstep", conflation_ms=0, questions="none", synthetic_instruments=("AAPL", "MSFT"),
        history_days=1, smd_lifetime_s=0,
    )  # fmt: skip
    with EmulatorThread(market) as emulator:
        session = SessionSettings(base_url=emulator.url, paced=False)
        risk = RiskLimits(allow_no_data=True, duplicate_window_s=None)
        with HubThread(session, wanted, journal=JournalInMemory("hosts"), risk=risk) as hub:
            say("ready", endpoint=hub.endpoint)
            for line in sys.stdin:
                asked = json.loads(line)
                if asked["do"] == "move":
                    events = asked["events"]
                    emulator.call(lambda s: s.drive.step(until_ns=None, max_events=events, received={}))  # noqa: B023
                    say("moved")
                elif asked["do"] == "status":
                    status = hub.status()
                    say(
                        "status",
                        peers={one.name: one.state for one in status.peers},
                        ticks=sum(one.ticks for one in status.topics),
                    )
                elif asked["do"] == "created":
                    orders = emulator.call(
                        lambda s: [one.spec.client_order_id for one in s.core.engine.orders()]
                    )
                    say("created", keys=orders)


if __name__ == "__main__":
    main(*sys.argv[1:])
