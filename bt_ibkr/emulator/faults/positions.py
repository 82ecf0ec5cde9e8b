"""Faults of positions: they cannot be read, there seem to be none, or they lag behind the executions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bt_ibkr.emulator.faults.active import Active, Registry
from bt_ibkr.emulator.faults.order_specs import Positions
from bt_ibkr.emulator.services import errors
from bt_ibkr.model.portfolio import Position

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

Held = tuple[Position, ...]


class PositionFaults:
    """What is told of positions."""

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core = core
        self._registry = registry
        self._rules: list[Active] = []
        #: By fault and account: what was held from which moment on, of the wall clock.
        self._past: dict[tuple[int, str], list[tuple[float, Held]]] = {}

    def begin(self, fault: Active) -> None:
        self._rules.append(fault)
        if isinstance(fault.spec, Positions) and fault.spec.action == "lag":
            for account in self._core.engine.account_ids():
                self._past[(fault.number, account)] = [(0.0, self._held(account))]
        fault.lasts(lambda: self._end(fault))

    def _end(self, fault: Active) -> None:
        self._rules.remove(fault)
        for key in [key for key in self._past if key[0] == fault.number]:
            del self._past[key]

    def _held(self, account: str) -> Held:
        return tuple(one for one in self._core.engine.account(account).positions() if one.quantity)

    def changed(self, account: str) -> None:
        """A position or the cash of an account changed."""
        for (_, name), past in self._past.items():
            if name == account:
                past.append((time.monotonic(), self._held(account)))

    def told(self, account: str, held: Held) -> Held:
        """The positions that are told.

        Raises:
            ApiError: They cannot be read.
        """
        for fault in list(self._rules):
            spec = fault.spec
            if not fault.armed or not isinstance(spec, Positions) or spec.account not in ("", account):
                continue
            self._registry.spend(fault, action=spec.action, account=account)
            if spec.action == "fail":
                raise errors.error(spec.status, "Service Unavailable", with_code=True)
            held = () if spec.action == "empty" else self._old(fault.number, account, spec.lag_s, held)
        return held

    def _old(self, number: int, account: str, lag_s: float, now: Held) -> Held:
        past = self._past.get((number, account))
        if past is None:
            return now
        if not lag_s:
            return past[0][1]
        before = time.monotonic() - lag_s
        return next(held for at, held in reversed(past) if at <= before or at == 0.0)

    def invalidated(self, account: str) -> None:
        """The client asked for fresh positions."""
        for fault in self._rules:
            if isinstance(fault.spec, Positions) and fault.spec.invalidate:
                past = self._past.get((fault.number, account))
                if past is not None:
                    past[:] = [(0.0, self._held(account))]
