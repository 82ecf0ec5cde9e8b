"""The command ``hub run``: strategies started and watched together."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape

from bt_ibkr.app.hub_plan import Plan
from bt_ibkr.app.hub_supervisor import Outcome, Supervisor
from bt_ibkr.cli.output import to_json
from bt_ibkr.cli.running import EXIT_DIFFERENCE
from bt_ibkr.cli.tables import show_table


def run_command(plan: Plan, *, as_json: bool) -> int:
    """Run until all are over, or until a signal, which is an ordinary end; a second one kills.

    Returns:
        0 if all ended well or were stopped in order; 10 if one failed and was not restarted, or had to be killed.

    Raises:
        UsageError: Another process runs the same strategies.
    """
    told = Console(stderr=as_json, soft_wrap=True, highlight=False)

    def tell(name: str, text: str) -> None:
        told.print(f"{datetime.now(tz=UTC):%H:%M:%S} [bold]{escape(name)}[/] {escape(text)}")
        told.file.flush()

    outcomes = asyncio.run(_run(plan, tell))
    failed = [one for one in outcomes if one.state in ("failed", "killed")]
    code = EXIT_DIFFERENCE if failed else 0
    if as_json:
        errors = [f"{one.name} {one.state}: exit code {one.code}. {one.why}".strip() for one in failed]
        told_all: dict[str, Any] = {"strategies": outcomes, "errors": errors, "exit_code": code}
        sys.stdout.write(to_json(told_all) + "\n")
    else:
        _show(told, outcomes)
    return code


async def _run(plan: Plan, tell: Any) -> tuple[Outcome, ...]:
    supervisor = Supervisor(plan, os.environ, tell)
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        loop.call_soon_threadsafe(supervisor.kill if len(received) > 1 else supervisor.stop)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return await supervisor.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(out: Console, outcomes: tuple[Outcome, ...]) -> None:
    show_table(
        out,
        "Strategies",
        ("name", "state", "exit code", "restarts", "log", "note"),
        ((one.name, one.state, one.code, one.restarts, one.log, one.why) for one in outcomes),
        empty="no strategies",
    )
