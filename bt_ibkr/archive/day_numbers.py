"""backtrader's day numbers of whole columns, to the last bit as ``backtrader.date2num`` makes them one by one."""

from __future__ import annotations

import numpy as np

from bt_ibkr.archive.columns import Floats, Ints

_EPOCH_ORDINAL = 719_163  # datetime(1970, 1, 1).toordinal()
_DAY_US = 86_400_000_000


def day_numbers(times_ns: Ints) -> Floats:
    """Day numbers of moments in epoch nanoseconds, which are cut to microseconds as a ``datetime`` cuts them.

    ``date2num`` adds day, hour, minute, second and microsecond as fractions of a day and rounds their exact sum once.
    Here the sum is kept in two floats, which is exact enough to round to the same.
    """
    days, rest = np.divmod(np.asarray(times_ns, dtype=np.int64) // 1000, _DAY_US)
    seconds, micros = np.divmod(rest, 1_000_000)
    minutes, seconds = np.divmod(seconds, 60)
    hours, minutes = np.divmod(minutes, 60)
    total = (days + _EPOCH_ORDINAL).astype(np.float64)
    error = np.zeros_like(total)
    for part, in_a_day in ((hours, 24.0), (minutes, 1440.0), (seconds, 86_400.0), (micros, 86_400e6)):
        share = part / in_a_day
        added = total + share
        back = added - total
        error += (total - (added - back)) + (share - back)
        total = added
    found: Floats = total + error
    return found
