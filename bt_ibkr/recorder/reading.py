"""Recordings as they are read: instruments, and their rows in the order in which they came."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as parquet

from bt_ibkr.errors import MarketFileError
from bt_ibkr.model.contract import Contract
from bt_ibkr.recorder.files import read_batches
from bt_ibkr.recorder.format import FileInfo, Part, RecordedTick, decode, info_of, part_of


class RecordedInstrument(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument of a recording.

    Attributes:
        path: Its folder, or the one file that was named.
        dataname: As it was named when it was recorded; may be empty.
    """

    path: Path
    contract: Contract
    dataname: str = ""

    def answers(self, name: str) -> bool:
        """Whether a name means this instrument: its folder, dataname, symbol or conid."""
        conid = str(self.contract.conid)
        names = {self.path.name, self.dataname, self.contract.symbol, conid, f"conid:{conid}"}
        return name.casefold() in {one.casefold() for one in names if one}

    def sessions(self) -> list[str]:
        """The runs of recorders that it was recorded in, in order of time."""
        return sorted({part.session for part in self._parts()})

    def rows(self) -> Iterator[RecordedTick]:
        """All rows, session after session, in the order in which they came. A recording that is still written may
        be read; what is joined meanwhile is found again.

        Raises:
            MarketFileError: A file cannot be read.
        """
        if self.path.is_file():
            yield from decode(iter(read_batches(self.path)))
            return
        for session in self.sessions():
            yield from self._session_rows(session)

    def _session_rows(self, session: str) -> Iterator[RecordedTick]:
        seen = 0
        while (part := self._next_part(session, seen)) is not None:
            try:
                for row in decode(iter(read_batches(part.path))):
                    if row.seq > seen:
                        seen = row.seq
                        yield row
            except FileNotFoundError:
                # Joined into a larger one since the folder was listed.
                continue
            seen = max(seen, part.last)

    def _next_part(self, session: str, seen: int) -> Part | None:
        """The file with the next rows; the largest, where two hold them."""
        left = [part for part in self._parts() if part.session == session and part.last > seen]
        return min(left, key=lambda part: (max(part.first, seen + 1), -part.last), default=None)

    def _parts(self) -> Iterator[Part]:
        for path in self.path.rglob("*.parquet"):
            part = part_of(path)
            if part is not None:
                yield part


class Recording:
    """A recording on the disk.

    Args:
        path: The folder of a recording, of one of its instruments or days, or one file.

    Raises:
        MarketFileError: There is none.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.instruments = tuple(_instruments(self.path))

    def find(self, name: str = "") -> RecordedInstrument:
        """The instrument that a name means; the only one, without a name.

        Raises:
            MarketFileError: None, or several.
        """
        found = [one for one in self.instruments if not name or one.answers(name)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(sorted(one.path.name for one in self.instruments))
        raise MarketFileError(
            f"The recording {self.path} holds {known}; "
            + ("none was named." if not name else f"{name!r} is {'several' if found else 'none'} of them."),
            remedy=f"Name one of them: {self.path}:{self.instruments[0].path.name}.",
        )


def _instruments(path: Path) -> Iterator[RecordedInstrument]:
    if path.is_file():
        info = _read_info(path)
        yield RecordedInstrument(path=path, contract=info.contract, dataname=info.dataname)
        return
    if not path.is_dir():
        raise MarketFileError(f"{path} does not exist.", remedy="Check the path of the recording.")
    found: dict[Path, list[Path]] = {}
    for file in path.rglob("*.parquet"):
        if part_of(file) is not None:
            # FOLDER/INSTRUMENT/DAY/FILE; who names a day or an instrument names the folder above its files.
            found.setdefault(_instrument_folder(file, path), []).append(file)
    if not found:
        raise MarketFileError(f"{path} holds no recording.", remedy="Recordings are made by bt-ibkr record.")
    for folder in sorted(found):
        info = _newest_info(found[folder])
        yield RecordedInstrument(path=folder, contract=info.contract, dataname=info.dataname)


def _instrument_folder(file: Path, root: Path) -> Path:
    folder = file.parent
    return folder if folder == root else folder.parent


def _newest_info(files: list[Path]) -> FileInfo:
    for file in sorted(files, key=lambda path: path.name, reverse=True):
        try:
            return _read_info(file)
        except FileNotFoundError:
            # Joined into a larger one meanwhile.
            continue
    raise MarketFileError(f"{files[0].parent} changes too fast to be read.", remedy="Try it again.")


def _read_info(path: Path) -> FileInfo:
    try:
        schema = parquet.read_schema(path)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as problem:
        raise MarketFileError(
            f"{path} cannot be read: {problem}.", remedy="Leave the file out; what it held is lost."
        ) from None
    return info_of(schema, path)


def in_time_order(
    instruments: Iterable[RecordedInstrument],
) -> Iterator[tuple[RecordedInstrument, RecordedTick]]:
    """The rows of several instruments by time; at equal times in the order in which they came."""

    def keyed(index: int, one: RecordedInstrument) -> Iterator[tuple[int, int, int, RecordedTick]]:
        for row in one.rows():
            yield row.tick.time_ns, row.seq, index, row

    listed = list(instruments)
    for _, _, index, row in heapq.merge(
        *(keyed(k, one) for k, one in enumerate(listed)), key=lambda r: r[:3]
    ):
        yield listed[index], row
