"""Files of a recording on the disk: each is whole or not there, whatever ends the program.

A file is written under another name, synced, and renamed. Small files are joined to larger ones in the same way; the
joined file's name says which rows it holds, so that what it replaces is known for that even if the program ends
before it was removed.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from bt_ibkr.errors import MarketFileError, UsageError
from bt_ibkr.recorder.format import (
    CHANGING,
    FileInfo,
    Part,
    extras_after,
    extras_difference,
    part_name,
    part_of,
    schema_of,
)

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Of a file that is being written.
UNFINISHED = ".unfinished"
#: Rows of one row group; so many are in memory while files are joined.
_GROUP = 65_536
_LOCK = ".recorder"
#: Windows locks bytes, and nobody else can read them.
_FAR = 1 << 30


class FolderLock:
    """One recorder at a time writes into a folder; the system frees the lock however it ends.

    Raises:
        UsageError: Another one does, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as problem:
            raise UsageError(
                f"The recording's folder {folder} cannot be written: {problem.strerror}.",
                remedy="Name another folder.",
            ) from None
        try:
            if sys.platform == "win32":
                os.lseek(self._file, _FAR, os.SEEK_SET)
                msvcrt.locking(self._file, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise UsageError(
                f"Another program records into {folder}.", remedy="Name another folder, or stop that one."
            ) from None

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def sync_folder(folder: Path) -> None:
    """Make new names of a folder last; systems that cannot do that for folders do it by themselves."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


class _Whole:
    """A file that appears under its name only once it is whole."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._raw = path.with_name(path.name + UNFINISHED)
        self._schema = schema

    def __enter__(self) -> parquet.ParquetWriter:
        self._file = self._raw.open("wb")
        try:
            self._writer = parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        except BaseException:
            self._file.close()
            raise
        return self._writer

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._writer.close()
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError:
            kind = OSError
            raise
        finally:
            with contextlib.suppress(OSError):
                self._file.close()
            if kind is not None:
                with contextlib.suppress(OSError):
                    self._raw.unlink()
        if kind is None:
            self._raw.replace(self._path)
            sync_folder(self._path.parent)


def write_part(folder: Path, table: pa.Table, info: FileInfo) -> Part:
    """Write a table of rows in the order of ``seq`` as a file of ``folder``.

    Raises:
        OSError: The disk; nothing is left behind.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
    seq = table.column("seq")
    first, last = seq[0].as_py(), seq[-1].as_py()
    path = folder / part_name(info.session, first, last)
    with _Whole(path, table.schema) as writer:
        writer.write_table(table, row_group_size=_GROUP)
    return Part(path=path, session=info.session, first=first, last=last)


def join_parts(parts: Sequence[Part], info: FileInfo) -> Part:
    """One file of several that follow each other; they are removed.

    Raises:
        OSError: The disk; the parts stay.
    """
    folder = parts[0].path.parent
    first, last = parts[0].first, parts[-1].last
    path = folder / part_name(info.session, first, last)
    schema = schema_of(info)
    state = _Standing()
    waiting: list[pa.Table] = []
    count = 0
    with _Whole(path, schema) as writer:
        for part in parts:
            for batch in read_batches(part.path):
                table = state.continued(pa.Table.from_batches([batch])).cast(schema)
                waiting.append(table)
                count += table.num_rows
                if count >= _GROUP:
                    writer.write_table(pa.concat_tables(waiting), row_group_size=_GROUP)
                    waiting, count = [], 0
            state.new_file = True
        if waiting:
            writer.write_table(pa.concat_tables(waiting), row_group_size=_GROUP)
    for part in parts:
        with contextlib.suppress(OSError):
            part.path.unlink()
    return Part(path=path, session=info.session, first=first, last=last)


def read_batches(path: Path) -> Iterable[pa.RecordBatch]:
    """The rows of a file, a row group at a time.

    Raises:
        FileNotFoundError: It is not there (any more).
        MarketFileError: It cannot be read.
    """
    try:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=_GROUP)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as problem:
        raise MarketFileError(
            f"{path} cannot be read: {problem}.", remedy="Leave the file out; what it held is lost."
        ) from None


class _Standing:
    """The quote that stands between two files: the head of the next one need not say it again."""

    def __init__(self) -> None:
        self._values: dict[str, float] = dict.fromkeys(CHANGING, math.nan)
        self._extras: Mapping[str, float] | None = None
        self._begun = False
        self.new_file = True

    def continued(self, table: pa.Table) -> pa.Table:
        """The rows, of which the first says only what changed, if others went before."""
        head = self.new_file and self._begun
        self.new_file, self._begun = False, True
        printed = bool(table.column("traded")[0].as_py())
        for index, name in enumerate(table.schema.names):
            if name in self._values:
                column = table.column(index).combine_chunks()
                if head and not (printed and name.startswith("last")):
                    column = _without_repeated(column, self._values[name])
                    table = table.set_column(index, table.schema.field(index), column)
                told = column.drop_null()
                if len(told):
                    self._values[name] = told[-1].as_py()
            elif name == "extras" and table.column(index).null_count < table.num_rows:
                cells: list[Any] = table.column(index).to_pylist()
                cells[0] = self._extras_head(cells[0], head=head)
                for cell in cells:
                    if cell is not None:
                        self._extras = extras_after(self._extras, cell)
                field = table.schema.field(index)
                table = table.set_column(index, field, pa.array(cells, type=field.type))
        return table

    def _extras_head(self, cell: Any, *, head: bool) -> Any:
        if not head or cell is None or self._extras is None:
            return cell
        # The head is the whole of them.
        return extras_difference(self._extras, extras_after(None, cell))


def _without_repeated(column: pa.Array, before: float) -> pa.Array:
    value = column[0].as_py()
    if value is None or not (value == before or (math.isnan(value) and math.isnan(before))):
        return column
    return pa.concat_arrays([pa.array([None], type=column.type), column[1:]])


def clean(folder: Path) -> None:
    """Remove what a recorder that was killed left: unfinished files, and files that were joined into others."""
    for path in folder.rglob("*" + UNFINISHED):
        with contextlib.suppress(OSError):
            path.unlink()
    for one in {path.parent for path in folder.rglob("*.parquet")}:
        parts = [part for part in map(part_of, one.glob("*.parquet")) if part is not None]
        for part in parts:
            if any(holds(other, part) for other in parts):
                with contextlib.suppress(OSError):
                    part.path.unlink()


def holds(whole: Part, part: Part) -> bool:
    """Whether ``whole`` holds all rows of ``part``, and more."""
    return (
        whole.session == part.session
        and whole.first <= part.first
        and part.last <= whole.last
        and (whole.first, whole.last) != (part.first, part.last)
    )
