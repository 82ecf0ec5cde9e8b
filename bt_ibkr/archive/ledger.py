"""What is known of a series: which spans are stored, and which of them can no longer be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from bt_ibkr.archive.files import FORMAT, write_bytes
from bt_ibkr.archive.spans import Spans, overlap, subtract, union
from bt_ibkr.errors import ArchiveError
from bt_ibkr.model.contract import Contract

#: Names that begin so are left out by readers of Parquet datasets.
LEDGER: Final = "_series.json"
CORRECTIONS: Final = "_corrections.jsonl"

#: What IBKR does to bars of trades (its description of historical data, "TRADES"); quotes are as they were.
ADJUSTED: Final = {"trades": "for splits, not for dividends"}
NOT_ADJUSTED: Final = "not stated by IBKR"


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a series.

    Attributes:
        bar: IBKR's word for the bars' length.
        source: ``trades``, ``midpoint``, ``bid``, ``ask`` or ``bid_ask``.
        hours: ``regular`` or ``all``.
        adjusted: What the bars are adjusted for, in words.
        covered: Every final bar that starts in these spans is stored; a span without bars had none.
        begins_ns: No bar starts before it, as far as could be seen; 0 if that is not known.
        unadjusted: Stored before a split that was noticed later, and not fetched again since.
        rows: How many bars each file had when the ledger was written.
        updated_ns: When something was stored last.
    """

    format: int = FORMAT
    contract: Contract
    bar: str
    source: str
    hours: str
    adjusted: str
    covered: Spans = ()
    begins_ns: int = 0
    unadjusted: Spans = ()
    rows: dict[str, int] = {}
    updated_ns: int = 0

    def missing(self, start_ns: int, end_ns: int) -> Spans:
        """What of ``[start, end)`` has to be fetched."""
        first = max(start_ns, self.begins_ns)
        return subtract([(first, end_ns)], self.covered)

    def holes(self, start_ns: int, end_ns: int) -> Spans:
        """What is not stored between the first and the last that is, inside ``[start, end)``."""
        inside = overlap(self.covered, (start_ns, end_ns))
        return subtract([(inside[0][0], inside[-1][1])], inside) if inside else ()

    def stored(self, start_ns: int, end_ns: int, now_ns: int, rows: dict[str, int]) -> Ledger:
        """As it is once all bars of ``[start, end)`` are stored, in files of so many bars."""
        span = (start_ns, end_ns)
        return msgspec.structs.replace(
            self,
            covered=union([*self.covered, span]),
            unadjusted=subtract(self.unadjusted, [span]),
            rows=self.rows | rows,
            updated_ns=now_ns,
        )

    def split(self, start_ns: int, end_ns: int) -> Ledger:
        """As it is after a split was noticed in ``[start, end)``: all else must be fetched again."""
        old = subtract([*self.covered, *self.unadjusted], [(start_ns, end_ns)])
        return msgspec.structs.replace(self, covered=(), unadjusted=old)


def read_ledger(folder: Path) -> Ledger | None:
    """The ledger of a series; ``None`` if there is none.

    Raises:
        ArchiveError: It cannot be read.
    """
    path = folder / LEDGER
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ledger)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, ValueError) as problem:
        raise ArchiveError(
            f"{path} cannot be read: {str(problem).rstrip('.')}.",
            remedy="Move it away: the next download reads the bars again and compares them with those stored.",
        ) from None


def write_ledger(folder: Path, ledger: Ledger) -> None:
    """Put the ledger on the disk, whole."""
    write_bytes(folder / LEDGER, msgspec.json.format(msgspec.json.encode(ledger), indent=1))
