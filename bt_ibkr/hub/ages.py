"""How old an order is when it reaches the hub: a clock that goes on while a machine sleeps.

Python's monotonic clock stands still while a machine is suspended, and an order that slept with it would count as
fresh. Where the system has no clock of that kind the monotonic one has to do.
"""

from __future__ import annotations

import time
from typing import Final

_BOOT: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


def awake_or_asleep_s() -> float:
    """Seconds since some moment before the process, sleep included."""
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)
