"""The emulator as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from bt_ibkr.emulator.server import EmulatorServer
from bt_ibkr.emulator.services.json import encode
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.tls import server_context

_LOGGER = logging.getLogger(__name__)
#: Wall seconds between two looks for the parent process.
_PARENT_S = 0.2


def run(settings: EmulatorSettings, on_start: Callable[[EmulatorServer], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or until the parent process is gone.

    Prints one line of JSON to standard output as soon as connections are accepted: ``url``, ``ws``,
    ``control`` and ``pid``; and ``login_file``, if keys of a client were made and written.

    Args:
        settings: What is served.
        on_start: Told when connections are accepted.

    Returns:
        0, the process's exit code.

    Raises:
        PortInUseError: The port is taken.
        MarketFileError: A tape cannot be used.
        UsageError: TLS without the package ``cryptography``.
    """
    tls = server_context(settings.host) if settings.tls else None
    _run(_serve(settings, tls, on_start))
    return 0


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Run with uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def _serve(
    settings: EmulatorSettings,
    tls: ssl.SSLContext | None,
    on_start: Callable[[EmulatorServer], None] | None,
) -> None:
    server = EmulatorServer(settings, tls=tls)
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, end.set)
    await server.start()
    watch = loop.create_task(_watch_parent(settings.parent_pid, end), name="emulator-parent")
    try:
        line = {"url": server.url, "ws": server.ws, "control": server.control, "pid": os.getpid()}
        if server.door.login_file is not None:
            line["login_file"] = str(server.door.login_file)
        sys.stdout.write(encode(line).decode() + "\n")
        sys.stdout.flush()
        if on_start is not None:
            on_start(server)
        await end.wait()
    finally:
        watch.cancel()
        await server.stop()


async def _watch_parent(pid: int, end: asyncio.Event) -> None:
    """Set ``end`` once process ``pid`` is gone."""
    if not pid:
        return
    child = os.getppid() == pid
    # Nothing tells a process that another one is gone: it must look.
    while (os.getppid() == pid) if child else _alive(pid):  # noqa: ASYNC110
        await asyncio.sleep(_PARENT_S)
    _LOGGER.info("parent-gone pid=%d", pid)
    end.set()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
