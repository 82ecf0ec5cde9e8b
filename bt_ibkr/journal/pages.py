"""SQLite's files, read without SQLite: for a journal that SQLite refuses, or reads only in part.

Every page of a table holds whole rows and says so in its first byte, so rows can be read although the pages that lead
to them are gone. Formats: sqlite.org/fileformat2.html (pages, records) and section 4 there (write-ahead log).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from bt_ibkr.journal.schema import PAGE_SIZE

_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = 24
_FRAME: Final = _FRAME_HEADER + PAGE_SIZE
_WAL_MAGIC: Final = 0x377F0682
_TABLE_LEAF: Final = 0x0D
#: The file's header stands before the first page's own.
_FILE_HEADER: Final = 100
#: More than the longest varint and header a sound row has.
_MOST_COLUMNS: Final = 64

Value = int | float | str | bytes | None


class Row(NamedTuple):
    """A row of some table; which, its shape must tell. A column that is the row id is ``None`` in ``values``."""

    rowid: int
    values: tuple[Value, ...]


class WalSize(NamedTuple):
    """What stands in a write-ahead log.

    Attributes:
        frames: Pages written since the log was last begun anew, the last one maybe in part.
        sound_head: Whether the log's head is whole; if not, SQLite takes nothing from it.
    """

    frames: int
    sound_head: bool


def wal_size(path: Path) -> WalSize:
    """Look at a write-ahead log without checking its pages; no file is an empty one."""
    try:
        with path.open("rb") as file:
            head = file.read(_WAL_HEADER)
            size = file.seek(0, 2)
            if size <= _WAL_HEADER:
                return WalSize(0, sound_head=True)
            if not _sound_head(head):
                return WalSize(-(-(size - _WAL_HEADER) // _FRAME), sound_head=False)
            frames = 0
            for start in range(_WAL_HEADER, size, _FRAME):
                file.seek(start)
                salt = file.read(16)[8:]
                # What is left of the round before has other salts. Where the file ends within them, nobody knows.
                if not head[16:24].startswith(salt):
                    break
                frames += 1
            return WalSize(frames, sound_head=True)
    except FileNotFoundError:
        return WalSize(0, sound_head=True)


def read_pages(database: Path, wal: Path) -> dict[int, bytes]:
    """All pages by number: the file's, and in their place what the log committed since."""
    data = database.read_bytes() if database.exists() else b""
    pages = {
        number: data[start : start + PAGE_SIZE]
        for number, start in enumerate(range(0, len(data), PAGE_SIZE), start=1)
    }
    pages.update(_committed(wal.read_bytes() if wal.exists() else b""))
    return pages


def _committed(wal: bytes) -> dict[int, bytes]:
    """The newest version of each page, of the transactions that are whole."""
    head = wal[:_WAL_HEADER]
    if not _sound_head(head):
        return {}
    order = _word_order(head)
    first, second = struct.unpack(">II", head[24:32])
    done: dict[int, bytes] = {}
    begun: dict[int, bytes] = {}
    for start in range(_WAL_HEADER, len(wal) - _FRAME + 1, _FRAME):
        frame = wal[start : start + _FRAME_HEADER]
        page = wal[start + _FRAME_HEADER : start + _FRAME]
        if frame[8:16] != head[16:24]:
            break
        first, second = _checksum(order, frame[:8] + page, first, second)
        if struct.unpack(">II", frame[16:24]) != (first, second):
            break
        number, size_after_commit = struct.unpack(">II", frame[:8])
        begun[number] = page
        if size_after_commit:
            done.update(begun)
            begun.clear()
    return done


def _sound_head(head: bytes) -> bool:
    if len(head) < _WAL_HEADER:
        return False
    magic, _, page_size = struct.unpack(">III", head[:12])
    if magic & ~1 != _WAL_MAGIC or page_size != PAGE_SIZE:
        return False
    return _checksum(_word_order(head), head[:24], 0, 0) == struct.unpack(">II", head[24:32])


def _word_order(head: bytes) -> str:
    """In which order the log's checksums take the bytes of a word: its magic number says it."""
    return ">" if head[3] & 1 else "<"


def _checksum(order: str, data: bytes, first: int, second: int) -> tuple[int, int]:
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def rows(pages: Mapping[int, bytes]) -> Iterator[Row]:
    """Every row that can be read, of all tables, page by page."""
    for number in sorted(pages):
        yield from _page_rows(pages, number)


def _page_rows(pages: Mapping[int, bytes], number: int) -> Iterator[Row]:
    page = pages[number]
    head = _FILE_HEADER if number == 1 else 0
    if len(page) != PAGE_SIZE or page[head] != _TABLE_LEAF:
        return
    (count,) = struct.unpack(">H", page[head + 3 : head + 5])
    pointers = head + 8
    for at in range(pointers, min(pointers + 2 * count, PAGE_SIZE - 1), 2):
        (start,) = struct.unpack(">H", page[at : at + 2])
        try:
            yield _cell(pages, page, start)
        except (ValueError, IndexError, KeyError, struct.error, UnicodeDecodeError):
            # Not a row any more; its neighbours may be.
            continue


def _cell(pages: Mapping[int, bytes], page: bytes, start: int) -> Row:
    length, start = _varint(page, start)
    rowid, start = _varint(page, start)
    if rowid >= 1 << 63:
        rowid -= 1 << 64
    most = PAGE_SIZE - 35
    if length <= most:
        payload = page[start : start + length]
    else:
        least = (PAGE_SIZE - 12) * 32 // 255 - 23
        local = least + (length - least) % (PAGE_SIZE - 4)
        local = local if local <= most else least
        parts = [page[start : start + local]]
        (following,) = struct.unpack(">I", page[start + local : start + local + 4])
        missing = length - local
        for _ in range(len(pages)):
            if missing <= 0:
                break
            part = pages[following][4 : 4 + missing]
            (following,) = struct.unpack(">I", pages[following][:4])
            parts.append(part)
            missing -= len(part)
        payload = b"".join(parts)
    if len(payload) != length:
        raise ValueError(length)
    return Row(rowid, _record(payload))


def _record(payload: bytes) -> tuple[Value, ...]:
    end, at = _varint(payload, 0)
    body = end
    values: list[Value] = []
    while at < end:
        kind, at = _varint(payload, at)
        value, body = _value(payload, kind, body)
        values.append(value)
        if len(values) > _MOST_COLUMNS:
            raise ValueError(len(values))
    if at != end or body != len(payload):
        raise ValueError(end)
    return tuple(values)


_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _value(payload: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind == 7:
        return struct.unpack(">d", payload[at : at + 8])[0], at + 8
    if kind in _INTEGERS:
        size = _INTEGERS[kind]
        return int.from_bytes(payload[at : at + size], "big", signed=True), at + size
    if kind < 12:
        raise ValueError(kind)
    size = (kind - 12) // 2
    data = payload[at : at + size]
    if len(data) != size:
        raise ValueError(size)
    return (data.decode() if kind % 2 else data), at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(9):
        byte = data[at + count]
        if count == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at + count + 1
    raise ValueError(at)
