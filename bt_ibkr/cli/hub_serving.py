"""The command ``hub`` itself: signals, output, exit code."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bt_ibkr.app.hub import HubBanner, HubRequest, serve_hub
from bt_ibkr.app.request import Stopper
from bt_ibkr.cli.asking import ask_account
from bt_ibkr.cli.output import to_json
from bt_ibkr.hub.thread import HubThread


class _Signals:
    """SIGINT and SIGTERM end the hub in order, also while it logs on; a second one at once."""

    def __init__(self, stopper: Stopper) -> None:
        self._stopper = stopper
        self.received = 0

    def __enter__(self) -> _Signals:
        self._before = {
            number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.received = bool(self.received), number
        if again:
            _end_at_once(128 + number)
        if not self._stopper.attached:
            raise KeyboardInterrupt
        self._stopper()


def _end_at_once(code: int) -> NoReturn:
    """What is on record stays; what was under way is looked up by the next hub."""
    os.write(2, b"interrupted\n")
    os._exit(code)


def _notify(state: str) -> None:
    """Tell systemd, where it started this as ``Type=notify`` (sd_notify(3))."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place:
        return
    address = "\0" + place[1:] if place.startswith("@") else place
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(state.encode(), address)
        except OSError as problem:
            logging.getLogger(__name__).warning("notify-failed problem=%s", problem)


class _Told:
    """Tells a hub's life: on standard output, or as one line of JSON there and the rest on standard error."""

    def __init__(self, request: HubRequest, *, as_json: bool) -> None:
        self._request = request
        self._as_json = as_json
        self.console = Console(stderr=as_json, soft_wrap=True, highlight=False)

    def banner(self, banner: HubBanner) -> None:
        colour = "red" if banner.mode == "live" else "green"
        table = Table(
            title=f"Hub, mode {banner.mode}", title_justify="left", show_header=False, border_style=colour
        )
        table.add_column()
        table.add_column()
        table.add_row("account", f"[bold]{escape(banner.account)}[/] ({banner.kind})")
        money = ": real money" if banner.mode == "live" else ""
        table.add_row("mode", f"[bold {colour}]{banner.mode}[/]{money}")
        server = " an emulator" if banner.emulator else ""
        table.add_row("connection", escape(banner.connection) + server)
        self.console.print(table)

    def ready(self, hub: HubThread) -> None:
        server, settings = hub.server, self._request.settings
        accounts = server.desk.accounts
        health = "" if server.health is None else server.health.url
        _notify("READY=1")
        if self._as_json:
            told = {
                "hub": server.hub, "endpoint": server.endpoint, "ticks": server.ticks, "accounts": accounts,
                "mode": self._request.mode, "health": health or None, "pid": os.getpid(),
            }  # fmt: skip
            sys.stdout.write(to_json(told) + "\n")
            sys.stdout.flush()
            return
        put = self.console.print
        put(f"hub {server.hub}, process {os.getpid()}")
        put(f"strategies  {escape(server.endpoint)}" + (" (encrypted)" if settings.secret_key else ""))
        put(f"ticks       {escape(server.ticks)}")
        if health:
            put(f"health      {health}/livez, {health}/readyz")
        known = ", ".join(sorted(settings.strategies)) or "none are listed"
        others = "" if settings.unlisted_grant is None else "; others may do everything"
        put(f"let in      {escape(known)}{others}")
        put(f"[green]ready[/]       accounts {', '.join(accounts) or 'none: market data alone'}")
        self.console.file.flush()

    def closing(self) -> None:
        _notify("STOPPING=1")
        if not self._as_json:
            self.console.print("ending: strategies are told, orders under way are settled or on record")
            self.console.file.flush()


def hub_command(request: HubRequest, *, as_json: bool) -> int:
    """Serve, tell.

    Returns:
        0 after a signal, which is the ordinary end; 130 or 143 if it came before the hub was ready.

    Raises:
        BtIbkrError: What ended the hub, or kept it from starting.
    """
    # Who comes, goes, and is refused is what a hub's log is for.
    logger = logging.getLogger("bt_ibkr.hub")
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    stopper = Stopper()
    told = _Told(request, as_json=as_json)
    with _Signals(stopper) as signals:
        try:
            serve_hub(
                request,
                stopper,
                ready=told.ready,
                closing=told.closing,
                announce=told.banner,
                ask=ask_account(told.console),
            )
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            code = 128 + (signals.received or signal.SIGINT)
            if as_json:
                sys.stdout.write(to_json({"errors": ["interrupted"], "exit_code": code}) + "\n")
            return code
    if not as_json:
        told.console.print("ended")
    return 0
