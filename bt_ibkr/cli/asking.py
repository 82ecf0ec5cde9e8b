"""The question that stands before real money."""

from __future__ import annotations

import sys

from rich.console import Console

from bt_ibkr.app.trade import Ask


def ask_account(told: Console) -> Ask | None:
    """Asks for the account's id, where there is a terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None

    def ask(account: str) -> str:
        told.print(f"[bold red]Real money.[/] Type the account id ({account}) to go on: ", end="")
        told.file.flush()
        return sys.stdin.readline()

    return ask
