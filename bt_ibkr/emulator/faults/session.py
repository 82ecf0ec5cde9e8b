"""Faults of the session: expired, contested, half open, waiting for a person, in its nightly break."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bt_ibkr.emulator.faults.active import Active, Registry
from bt_ibkr.emulator.faults.base import Spec
from bt_ibkr.emulator.faults.specs import (
    Compete,
    Expire,
    ForceCompete,
    InitFails,
    Maintenance,
    NightlyReset,
    NoBridge,
    StatusFalse,
    TwoFactor,
)
from bt_ibkr.emulator.services.session.state import Tier

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

#: The real server's words (seen in the field, 2022 to 2026).
FORCE_COMPETE = "Force compete capability must be used together with compete flag"


class SessionFaults:
    """What happens to the user's session."""

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core = core
        self._registry = registry
        self._rules: list[Active] = []

    # --- beginnings --------------------------------------------------------------------------------

    def expire(self, fault: Active) -> None:
        spec = fault.spec
        if isinstance(spec, Expire):
            if spec.outer:
                self._core.set_tier(Tier.LOGGED_OUT, told=spec.told)
            elif self._core.session.ready:
                self._core.set_tier(Tier.NO_BRIDGE, told=spec.told)
            self._registry.spend(fault)

    def wait(self, fault: Active) -> None:
        """A rule that acts when the client asks for something."""
        self._rules.append(fault)
        fault.lasts(lambda: self._rules.remove(fault))

    def accounts_again(self, fault: Active) -> None:
        self._core.session.accounts_asked = False
        self._registry.spend(fault)

    def session_id(self, fault: Active) -> None:
        self._core.session.renew_id()
        self._registry.spend(fault)

    def compete(self, fault: Active) -> None:
        """The rival has the session now; clearing the fault sends it home."""
        self._rules.append(fault)

        def release() -> None:
            self._rules.remove(fault)
            self._core.set_competing(False)

        self._rival_takes(fault)
        fault.lasts(release)

    def two_factor(self, fault: Active) -> None:
        self._rules.append(fault)
        self._core.set_tier(Tier.LOGGED_OUT)

        def release() -> None:
            self._rules.remove(fault)
            spec = fault.spec
            if self._core.session.tier is Tier.LOGGED_OUT and isinstance(spec, TwoFactor):
                self._core.set_tier(Tier(spec.then))

        fault.lasts(release)

    def nightly_reset(self, fault: Active) -> None:
        spec = fault.spec
        if isinstance(spec, NightlyReset):
            self._core.nightly_reset(Tier(spec.then))
            self._registry.spend(fault)

    def maintenance(self, fault: Active) -> None:
        self._core.begin_maintenance()
        self._registry.spend(fault)

        def release() -> None:
            if isinstance(fault.spec, Maintenance):
                self._core.end_maintenance(Tier(fault.spec.then))

        fault.lasts(release)

    # --- what the session's handlers ask -----------------------------------------------------------

    def tried(self) -> None:
        """A client tried to open a brokerage session."""
        fault = self._first(TwoFactor)
        if fault is not None:
            self._registry.spend(fault)

    def status_doubted(self) -> bool:
        """Whether this ``auth/status`` says no although the session is there."""
        fault = self._first(StatusFalse)
        if fault is None:
            return False
        self._registry.spend(fault)
        return True

    def open(self, *, compete: bool) -> None:
        """Open the brokerage session, unless something is in the way."""
        session = self._core.session
        if session.ready:
            return
        session.fail = ""
        if (fault := self._first(InitFails)) is not None and isinstance(fault.spec, InitFails):
            session.fail = fault.spec.fail
            self._registry.spend(fault)
            return
        if not compete and (fault := self._first(ForceCompete)) is not None:
            session.fail = FORCE_COMPETE
            self._registry.spend(fault)
            return
        if session.competing and not compete:
            return
        rival = self._first(Compete)
        self._core.set_tier(Tier.READY)
        if (fault := self._first(NoBridge)) is not None and isinstance(fault.spec, NoBridge):
            session.bridge_missing = fault.spec.calls
            self._registry.spend(fault)
        if rival is not None:
            self._rival_loses(rival)

    def _first(self, kind: type[Spec]) -> Active | None:
        return next((one for one in self._rules if one.armed and isinstance(one.spec, kind)), None)

    # --- the rival ---------------------------------------------------------------------------------

    def _rival_takes(self, fault: Active) -> None:
        if self._core.session.ready:
            self._core.set_tier(Tier.NO_BRIDGE)
        self._core.set_competing(True)
        self._registry.spend(fault)

    def _rival_loses(self, fault: Active) -> None:
        spec = fault.spec
        if not isinstance(spec, Compete):
            return
        if fault.hits > spec.rematches:
            self._registry.finish(fault)
            return

        def again() -> None:
            if fault in self._rules and self._core.session.ready:
                self._rival_takes(fault)

        asyncio.get_running_loop().call_later(spec.delay_s, again)
