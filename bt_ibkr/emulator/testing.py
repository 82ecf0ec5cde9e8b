"""An emulator in a thread of this process, for tests."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from bt_ibkr.emulator.control.arguments import ControlError
from bt_ibkr.emulator.server import EmulatorServer
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.tls import server_context

T = TypeVar("T")
#: Wall seconds a start or stop may take.
_PATIENCE_S = 30.0


class EmulatorThread:
    """A context manager: the emulator serves while the block runs.

    Args:
        settings: As for a process; the port is always a free one, and stays the same over a restart.

    Attributes:
        url, ws, control: Addresses, as a process prints them.
        server: The server; touch it inside ``call`` only.
    """

    def __init__(self, settings: EmulatorSettings | None = None) -> None:
        chosen = settings if settings is not None else EmulatorSettings()
        self.settings = msgspec.structs.replace(chosen, port=0)
        self.url = ""
        self.ws = ""
        self.control = ""
        self.server: EmulatorServer
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._up: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, name="emulator", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._up.result(_PATIENCE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_PATIENCE_S)

    def restart(self, *, killed: bool = False) -> None:
        """End the emulator and start another with the same settings on the same port.

        With a ``state_file`` it goes on from where it was, else it begins anew.

        Args:
            killed: End it as SIGKILL would: sockets break, nothing more is written.
        """
        asyncio.run_coroutine_threadsafe(self._again(killed), self._loop).result(_PATIENCE_S)

    async def _again(self, killed: bool) -> None:
        await (self.server.kill() if killed else self.server.stop())
        self.settings = msgspec.structs.replace(self.settings, port=self.server.port)
        await self._start()

    def call(self, function: Callable[[EmulatorServer], T]) -> T:
        """The result of ``function(server)``, run in the emulator's thread; frames it made are sent."""
        result: Future[T] = Future()

        def work() -> None:
            try:
                result.set_result(function(self.server))
            except Exception as problem:  # noqa: BLE001 - handed to the caller's thread
                result.set_exception(problem)
            self.server.core.hub.flush()

        self._loop.call_soon_threadsafe(work)
        return result.result(_PATIENCE_S)

    def do(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """An operation of the control API that answers at once: ``do("halt", conid=265598)``.

        Raises:
            ControlError: It cannot be done as asked.
        """

        def work(server: EmulatorServer) -> dict[str, Any]:
            answer = server.operations.call(operation, arguments)
            if inspect.isawaitable(answer):
                if inspect.iscoroutine(answer):
                    answer.close()
                raise ControlError(f"{operation} is asked over HTTP: it answers later.")
            return answer

        return self.call(work)

    def fault(self, kind: str, **arguments: Any) -> int:
        """Let something go wrong; the fault's number."""
        return int(self.do("fault", kind=kind, **arguments)["id"])

    def ledger(self) -> dict[str, Any]:
        """The truth to compare with: accounts, orders, executions, and every order request."""
        return self.do("ledger")

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as problem:
            if self._up.done():
                raise
            self._up.set_exception(problem)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        await self._start()
        self._up.set_result(None)
        try:
            await self._end.wait()
        finally:
            await self.server.stop()

    async def _start(self) -> None:
        tls = server_context(self.settings.host) if self.settings.tls else None
        self.server = EmulatorServer(self.settings, tls=tls)
        await self.server.start()
        self.url, self.ws, self.control = self.server.url, self.server.ws, self.server.control
