"""What becomes of open orders when a run ends: by itself, or by a strategy's exception."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from bt_ibkr.brokers.outgoing import Outgoing
from bt_ibkr.brokers.records import Records
from bt_ibkr.errors import BtIbkrError, UsageError

_log = logging.getLogger(__name__)

AT_STOP = ("keep", "cancel")
AT_ERROR = ("keep", "cancel", "halt", "flatten")


class Policies:
    """The broker's ``on_stop`` and ``on_error``.

    Raises:
        UsageError: One of them is not known.
    """

    def __init__(self, on_stop: object, on_error: object) -> None:
        for name, value, known in (("on_stop", on_stop, AT_STOP), ("on_error", on_error, AT_ERROR)):
            if value not in known:
                raise UsageError(
                    f"IBKRBroker: {name}={value!r} is not known.", remedy=f"Give one of {', '.join(known)}."
                )
        self._on_stop = on_stop
        self._on_error = on_error

    def at_stop(self, records: Records, outgoing: Outgoing) -> None:
        """A run ended as it should."""
        if self._on_stop == "cancel":
            _cancel_all(records, outgoing)

    def at_error(self, records: Records, outgoing: Outgoing, halt: Callable[..., Any]) -> None:
        """A strategy's exception ended a run."""
        _log.error("run-broken-off on_error=%s open_orders=%d", self._on_error, len(list(records.live)))
        if self._on_error == "cancel":
            _cancel_all(records, outgoing)
        elif self._on_error in ("halt", "flatten"):
            try:
                halt("a strategy's exception ended the run", cancel=True, flatten=self._on_error == "flatten")
            except BtIbkrError as problem:
                records.problem(f"The run was broken off, and trading could not be halted: {problem}")


def _cancel_all(records: Records, outgoing: Outgoing) -> None:
    going = list(records.live)
    keys = {working.key for working in going}
    for working in going:
        # A parent takes its children along.
        if working.parent_key not in keys:
            outgoing.cancel(working)
