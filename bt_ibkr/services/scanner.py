"""Market scanners: what they can ask, and what they find."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Final

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.errors import ResponseError, UsageError
from bt_ibkr.model.scanner import ScannerParameters, ScanRequest, ScanRow
from bt_ibkr.session.http import HttpClient
from bt_ibkr.wire import scanner

#: IBKR tells the parameters once in 15 minutes; they change with its releases.
_FRESH_NS: Final = 24 * 3600 * NS_PER_S
#: Rows of an answer at most.
MOST_ROWS: Final = 50


class ScannerService:
    """Scans of one session.

    Args:
        http: The way to IBKR; it keeps the limits (one scan a second, the parameters once in 15 minutes).
        now_ns: The time, for the age of the parameters.
    """

    def __init__(self, http: HttpClient, now_ns: Callable[[], int]) -> None:
        self._http = http
        self._now_ns = now_ns
        self._known: ScannerParameters | None = None
        self._read_ns = 0

    async def parameters(self) -> ScannerParameters:
        """All codes there are; asked of IBKR once a day at most.

        Raises:
            SessionError, WireError: As ``HttpClient.get``.
        """
        if self._known is None or self._now_ns() - self._read_ns > _FRESH_NS:
            self._known = scanner.parameters(await self._http.get("/iserver/scanner/params"))
            self._read_ns = self._now_ns()
        return self._known

    async def scan(self, request: ScanRequest) -> tuple[ScanRow, ...]:
        """What the scan finds, best first.

        Raises:
            UsageError: IBKR does not know one of the codes.
            SessionError, WireError: As ``HttpClient.post``.
        """
        if not 1 <= request.most <= MOST_ROWS:
            raise UsageError(
                f"A scan of {request.most} rows cannot be asked for.", remedy=f"Ask for 1 to {MOST_ROWS}."
            )
        if self._known is not None:
            self._check(request, self._known)
        try:
            payload = await self._http.post("/iserver/scanner/run", scanner.run_body(request))
        except ResponseError as refusal:
            # Only now: the codes are long to read, and seldom to be had.
            if refusal.status in (400, 404, 500):
                self._check(request, await self.parameters())
            raise
        return scanner.rows(payload)[: request.most]

    @staticmethod
    def _check(request: ScanRequest, known: ScannerParameters) -> None:
        _known("scan type", request.scan_type, [one.code for one in known.types])
        _known("instrument", request.instrument, [one.code for one in known.instruments])
        _known("location", request.location, [one.code for one in known.locations])
        for code, _ in request.filters:
            _known("filter", code, [one.code for one in known.filters])


def _known(what: str, code: str, codes: Iterable[str]) -> None:
    listed = list(codes)
    if code in listed or not listed:
        return
    near = difflib.get_close_matches(code, listed, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(
        f"The scanner has no {what} {code!r}.", remedy=f"{hint}All are listed by: bt-ibkr scan --list WHAT."
    )
