"""Faults of whole sockets: closed, reset, half open, dropped again and again, greeted late or never."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bt_ibkr.emulator.faults.active import Active, Registry
from bt_ibkr.emulator.faults.specs import Close, Greeting, Reset, Stall, Storm
from bt_ibkr.emulator.stream.connection import Connection

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core


class SocketFaults:
    """What happens to the clients' WebSockets."""

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core = core
        self._registry = registry
        self._greetings: list[Active] = []

    def close(self, fault: Active) -> None:
        spec = fault.spec
        if isinstance(spec, Close):
            for connection in self._chosen(spec.port):
                connection.close(spec.code, spec.reason)
                self._registry.spend(fault, port=connection.port, code=spec.code)

    def reset(self, fault: Active) -> None:
        spec = fault.spec
        if isinstance(spec, Reset):
            for connection in self._chosen(spec.port):
                connection.reset()
                self._registry.spend(fault, port=connection.port)

    def stall(self, fault: Active) -> None:
        """Half open from now on; sockets opened later are not concerned."""
        spec = fault.spec
        if not isinstance(spec, Stall):
            return
        stalled = self._chosen(spec.port)
        timer: asyncio.TimerHandle | None = None

        def release() -> None:
            if timer is not None:
                timer.cancel()
            for connection in stalled:
                connection.stall(False)

        for connection in stalled:
            connection.stall(True)
            self._registry.spend(fault, port=connection.port)
        if spec.for_s:
            timer = asyncio.get_running_loop().call_later(spec.for_s, self._registry.finish, fault)
        fault.lasts(release)

    def storm(self, fault: Active) -> None:
        """The first drop comes after the first pause."""
        spec = fault.spec
        if not isinstance(spec, Storm):
            return
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def drop() -> None:
            nonlocal timer
            timer = loop.call_later(spec.every_s, drop)
            dropped = self._chosen(None)
            for connection in dropped:
                if spec.how == "reset":
                    connection.reset()
                else:
                    connection.close(1000, "")
            self._registry.spend(fault, ports=[connection.port for connection in dropped])

        timer = loop.call_later(spec.every_s, drop)
        fault.lasts(lambda: timer.cancel())

    def greeting(self, fault: Active) -> None:
        self._greetings.append(fault)
        fault.lasts(lambda: self._greetings.remove(fault))

    async def before_greeting(self, connection: Connection) -> bool:
        """Wait as the socket must; whether it is greeted at all."""
        fault = next((one for one in self._greetings if one.armed), None)
        if fault is None or not isinstance(fault.spec, Greeting):
            return True
        spec = fault.spec
        self._registry.spend(fault, port=connection.port, action=spec.action)
        if spec.action == "never":
            return False
        if spec.action == "waiting":
            connection.send({"message": "waiting for session"})
        await asyncio.sleep(spec.delay_s)
        return True

    def _chosen(self, port: int | None) -> list[Connection]:
        return [one for one in self._core.hub.connections if port in (None, one.port) and not one.closed]
