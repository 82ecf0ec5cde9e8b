"""Files that are whole or not there: written under another name, brought to the disk, renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from bt_ibkr.archive.columns import VALUES, Columns
from bt_ibkr.archive.steps import step
from bt_ibkr.errors import ArchiveError

#: Of the Parquet files and of the ledger.
FORMAT: Final = 1
_META: Final = b"bt_ibkr"
_TIME: Final = pa.timestamp("ns", tz="UTC")
_FRESH: Final = ".part"


class FileHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of itself.

    Attributes:
        contract: As JSON has it.
        hours: ``regular`` or ``all``.
        checksum: Of its columns.
    """

    format: int = FORMAT
    contract: dict[str, Any] = {}
    bar: str = ""
    source: str = ""
    hours: str = ""
    adjusted: str = ""
    checksum: str = ""


def write_bytes(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: whatever happens meanwhile, there is the old file or the new one, whole."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}{_FRESH}")
    try:
        with fresh.open("wb") as file:
            step(f"write {path.name}")
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        step(f"rename {path.name}")
        fresh.replace(path)
        step(f"settle {path.name}")
        _settle(path.parent)
    except OSError as problem:
        fresh.unlink(missing_ok=True)
        raise ArchiveError(
            f"{path} cannot be written: {problem.strerror}.",
            remedy="Free space on the disk, or name another folder with --dir. What was stored before is whole.",
        ) from None


def append_line(path: Path, data: bytes) -> None:
    """Add a line to a log, and bring it to the disk."""
    try:
        with path.open("ab") as file:
            step(f"append {path.name}")
            file.write(data + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        raise ArchiveError(f"{path} cannot be written: {problem.strerror}.") from None


def _settle(folder: Path) -> None:
    """A rename is on the disk when its folder is."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what a killed process left unfinished; the folder's lock must be held."""
    for path in folder.glob(f".*{_FRESH}"):
        path.unlink(missing_ok=True)


def write_columns(path: Path, columns: Columns, head: FileHead) -> None:
    """Put bars into a Parquet file."""
    whole = msgspec.structs.replace(head, checksum=columns.checksum())
    schema = pa.schema(
        [("ts", _TIME), ("end", _TIME), *((name, pa.float64()) for name in VALUES)],
        metadata={_META: msgspec.json.encode(whole)},
    )
    arrays = [
        pa.array(columns.start).cast(_TIME),
        pa.array(columns.end).cast(_TIME),
        *(pa.array(getattr(columns, name)) for name in VALUES),
    ]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())


def read_columns(path: Path) -> tuple[Columns, FileHead]:
    """Bars of a file, and what it says of itself; the checksum is not compared.

    Raises:
        ArchiveError: It cannot be read.
    """
    try:
        table = parquet.read_table(path, memory_map=False)
        head = msgspec.json.decode((table.schema.metadata or {})[_META], type=FileHead)
        starts, ends = (
            np.asarray(table.column(name).cast(pa.int64()), dtype=np.int64) for name in ("ts", "end")
        )
        values = [np.asarray(table.column(name), dtype=np.float64) for name in VALUES]
    except (OSError, pa.ArrowException, KeyError, ValueError, msgspec.MsgspecError) as problem:
        raise ArchiveError(
            f"{path} cannot be read: {str(problem).strip().rstrip('.') or type(problem).__name__}.",
            remedy="Move it away; the next download fetches its bars again.",
        ) from None
    if head.format > FORMAT:
        raise ArchiveError(
            f"{path} was written by a newer version (format {head.format}).", remedy="Update this package."
        )
    return Columns(starts, ends, *values), head


def check_columns(path: Path) -> Columns:
    """Bars of a file whose every byte is as it was written.

    Raises:
        ArchiveError: It cannot be read, or is not as it was written.
    """
    columns, head = read_columns(path)
    if columns.checksum() != head.checksum:
        raise ArchiveError(
            f"{path} is not as it was written: its checksum does not fit its bars.",
            remedy="Move it away; the next download fetches its bars again.",
        )
    return columns
