"""Historical bars on the disk: fetched once, read as whole columns."""

from bt_ibkr.archive.archive import Archive, default_folder, read_frame
from bt_ibkr.archive.columns import Columns
from bt_ibkr.archive.series import Correction, Series, SeriesKey, Stored
from bt_ibkr.archive.verifying import Verdict, verify

__all__ = [
    "Archive",
    "Columns",
    "Correction",
    "Series",
    "SeriesKey",
    "Stored",
    "Verdict",
    "default_folder",
    "read_frame",
    "verify",
]
