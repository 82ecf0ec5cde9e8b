"""Faults of data and clock: delayed or frozen data, missing permissions, a server whose clock is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.faults.active import Active, Registry
from bt_ibkr.emulator.faults.specs import NotEntitled, Quality, Skew
from bt_ibkr.emulator.services.marketdata.fields import QUALITY

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core


class MarketFaults:
    """What is wrong with the data.

    Attributes:
        skew_ns: How far the server's clock is ahead.
        changed: Whether any instrument's data are other than real time; asked for each change of a quote.
    """

    def __init__(self, core: Core, registry: Registry) -> None:
        self._core = core
        self._registry = registry
        self._qualities: list[Quality] = []
        self._barred: list[int] = []
        #: By the settings: of one instrument, and of all others.
        told = [entry.rpartition(":") for entry in core.settings.qualities]
        self._own = {int(conid): code for conid, _, code in told if conid}
        self._usual = next((code for conid, _, code in told if not conid), QUALITY)
        self.skew_ns = 0
        self.changed = False
        self._look()

    def _look(self) -> None:
        self.changed = bool(self._qualities or self._own) or self._usual != QUALITY

    def skew(self, fault: Active) -> None:
        """Offsets of several faults add up."""
        spec = fault.spec
        if not isinstance(spec, Skew):
            return
        offset_ns = round(spec.offset_s * NS_PER_S)
        self.skew_ns += offset_ns
        self._registry.spend(fault)

        def release() -> None:
            self.skew_ns -= offset_ns

        fault.lasts(release)

    def change_quality(self, fault: Active) -> None:
        """Open streams are told at once; the last fault that names an instrument counts."""
        spec = fault.spec
        if not isinstance(spec, Quality):
            return
        self._qualities.append(spec)
        self._look()
        self._core.hub.quality_changed()
        self._registry.spend(fault)

        def release() -> None:
            self._qualities.remove(spec)
            self._look()
            self._core.hub.quality_changed()

        fault.lasts(release)

    def bar(self, fault: Active) -> None:
        """No data of the instrument from now on; open streams end."""
        spec = fault.spec
        if not isinstance(spec, NotEntitled):
            return
        self._barred.append(spec.conid)
        self._core.hub.close_market_data(spec.conid)
        self._core.snapshots.close(spec.conid)
        self._registry.spend(fault)
        fault.lasts(lambda: self._barred.remove(spec.conid))

    def quality(self, conid: int) -> str:
        """Field 6509 of an instrument."""
        spec = self._spec(conid)
        return self._own.get(conid, self._usual) if spec is None else spec.code

    def _spec(self, conid: int) -> Quality | None:
        for spec in reversed(self._qualities):
            if spec.conid in (None, conid):
                return spec
        return None

    def delay_ns(self, conid: int) -> int:
        """How late the data of an instrument are told."""
        spec = self._spec(conid) if self._qualities else None
        return 0 if spec is None else round(spec.delay_s * NS_PER_S)

    def withheld(self, conid: int) -> bool:
        """No values of the instrument are told."""
        return self.quality(conid)[0] in "NO"

    def frozen(self, conid: int) -> bool:
        """The instrument's data stand still."""
        return self.quality(conid)[0] in "ZY"

    def entitled(self, conid: int) -> bool:
        return conid not in self._barred
