"""The command ``doctor``: a table for people, JSON for programs."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

from bt_ibkr.app.doctor import Diagnosis, Status, run_doctor
from bt_ibkr.app.login_file import default_base, read_login
from bt_ibkr.cli.output import to_json
from bt_ibkr.config import SessionSettings, Trust, rest_base
from bt_ibkr.login import GatewayLogin

#: Something failed.
EXIT_UNHEALTHY = 1
_COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.SKIP: "dim"}


def doctor_command(gateway: str, trust: Trust, login_file: str, dataname: str, *, as_json: bool) -> int:
    """Examine and tell; 0 if nothing failed.

    Raises:
        UsageError: A wrong option.
    """
    login = read_login(login_file) if login_file else GatewayLogin()
    base = rest_base(gateway or default_base(login))
    found = run_doctor(SessionSettings(base_url=base, trust=trust, login=login), dataname=dataname)
    if as_json:
        sys.stdout.write(to_json(found) + "\n")
    else:
        _show(found)
    return 0 if found.healthy else EXIT_UNHEALTHY


def _show(found: Diagnosis) -> None:
    console = Console(soft_wrap=True, highlight=False)
    width = max(len(row.name) for row in found.rows)
    for row in found.rows:
        colour = _COLOURS[row.status]
        console.print(f"[{colour}]{row.status:<4}[/]  {row.name:<{width}}  {escape(row.text)}")
        if row.remedy and row.status in (Status.WARN, Status.FAIL):
            console.print(f"      {'':<{width}}  [bold]remedy:[/] {escape(row.remedy)}")
    console.print("[green]healthy[/]" if found.healthy else "[bold red]not healthy[/]")
