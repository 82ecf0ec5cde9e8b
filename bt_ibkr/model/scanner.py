"""Market scanners: what is asked, and the rows that answer."""

from __future__ import annotations

import msgspec


class ScanRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scan, in IBKR's codes; ``ScannerParameters`` lists those there are.

    Attributes:
        scan_type: What to rank by: ``TOP_PERC_GAIN``, ``MOST_ACTIVE`` …
        instrument: Kind of instrument: ``STK``, ``FUT.US`` …
        location: Where: ``STK.US.MAJOR`` …
        filters: Pairs of a filter's code and its value, as ``("priceAbove", 5)``.
        most: So many rows at most; IBKR answers with 50 at most.
    """

    scan_type: str
    instrument: str = "STK"
    location: str = "STK.US.MAJOR"
    filters: tuple[tuple[str, float | str], ...] = ()
    most: int = 50


class ScanRow(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument that a scan found.

    Attributes:
        rank: From 1.
        value: What it was ranked by, as IBKR writes it; empty where it is not told (live it seldom is).
        column: What ``value`` is, as ``Chg%``.
        dataname: Names the contract to ``getdata``.
    """

    rank: int
    conid: int
    symbol: str
    company_name: str
    listing_exchange: str
    security_type: str
    value: str = ""
    column: str = ""

    @property
    def dataname(self) -> str:
        return f"conid:{self.conid}"


class ScanType(msgspec.Struct, frozen=True):
    """A way to rank, and the kinds of instrument it is for."""

    code: str
    name: str
    instruments: tuple[str, ...] = ()


class ScanInstrument(msgspec.Struct, frozen=True):
    """A kind of instrument, and the filters it knows."""

    code: str
    name: str
    filters: tuple[str, ...] = ()


class ScanFilter(msgspec.Struct, frozen=True):
    """A filter; ``kind`` is IBKR's (``range``, ``non-range``), empty where it lists ``values`` instead."""

    code: str
    name: str
    group: str = ""
    kind: str = ""
    values: tuple[str, ...] = ()


class ScanLocation(msgspec.Struct, frozen=True):
    """A place, and the one it belongs to (empty at the top)."""

    code: str
    name: str
    parent: str = ""


class ScannerParameters(msgspec.Struct, frozen=True):
    """All codes that a scan may use."""

    types: tuple[ScanType, ...] = ()
    instruments: tuple[ScanInstrument, ...] = ()
    filters: tuple[ScanFilter, ...] = ()
    locations: tuple[ScanLocation, ...] = ()
