"""Faults of historical bars: first calls that fail, permissions, answers of another time, cut ones, changed bars."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from bt_ibkr.emulator.faults.active import Active, Registry
from bt_ibkr.emulator.faults.specs import BarCorrection, History
from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.history.bars import Request
from bt_ibkr.emulator.services.history.periods import DAY_NS
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.model.market import Bar

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_REFUSED: Final = ("warm_up", "permission")


class HistoryFaults:
    """What is wrong with historical bars."""

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core = core
        self._registry = registry
        self._rules: list[Active] = []

    def begin(self, fault: Active) -> None:
        """Answers are wrong from now on."""
        self._rules.append(fault)
        fault.lasts(lambda: self._rules.remove(fault))

    def correct(self, fault: Active) -> None:
        """A minute is another one than it was, and so is every bar that it is part of, until the fault is cleared."""
        spec = fault.spec
        if not isinstance(spec, BarCorrection):
            return
        names = ("open", "high", "low", "close", "volume")
        values = {name: getattr(spec, name) for name in names if getattr(spec, name) is not None}
        self._core.engine.correct_bar(spec.conid, spec.start_ns, values)
        self._registry.spend(fault)
        fault.lasts(lambda: self._core.engine.correct_bar(spec.conid, spec.start_ns, {}))

    def admit(self, instrument: Instrument) -> None:
        """Raises ``ApiError`` where the request is refused."""
        contract = instrument.contract
        for fault, spec in self._matching(contract.conid, _REFUSED):
            self._spend(fault, contract.conid)
            if spec.action == "warm_up":
                raise errors.error(spec.status, "Chart data unavailable")
            place = contract.listing_exchange or contract.exchange
            raise errors.error(500, f"No market data permissions for {place} {contract.security_type.value}")

    async def work(self, conid: int) -> None:
        """Takes as long as the server works on the request."""
        for fault, spec in self._matching(conid, ("slow",)):
            self._spend(fault, conid)
            await asyncio.sleep(spec.delay_s)

    def misread(self, request: Request) -> Request:
        """The request as the server takes it."""
        conid = request.instrument.contract.conid
        for fault, spec in self._matching(conid, ("start", "stale")):
            self._spend(fault, conid)
            if spec.action == "start":
                # The whole window lies after the moment that was named.
                end_ns = min(request.end_ns + request.period.nominal_ns, self._core.now_ns + 1)
                return msgspec.structs.replace(request, end_ns=end_ns, from_ns=request.end_ns)
            return msgspec.structs.replace(request, end_ns=request.end_ns - spec.days * DAY_NS)
        return request

    def shorten(self, conid: int, bars: list[Bar]) -> list[Bar]:
        """The bars as they are told."""
        for fault, spec in self._matching(conid, ("empty", "cut")):
            self._spend(fault, conid)
            bars = [] if spec.action == "empty" else bars[-spec.most :]
        return bars

    def _matching(self, conid: int, actions: tuple[str, ...]) -> list[tuple[Active, History]]:
        return [
            (fault, spec)
            for fault in self._rules
            if isinstance(spec := fault.spec, History)
            and fault.armed
            and spec.action in actions
            and spec.conid in (None, conid)
        ]

    def _spend(self, fault: Active, conid: int) -> None:
        self._registry.spend(fault, conid=conid)
