"""Takes ticks in the session's thread, writes them in one of its own.

To take a tick costs the session one append to a buffer. The writer empties the buffer several times a second and puts
what it took on the disk every few seconds, as whole files, which it joins to larger ones as they become many. If the
disk does not keep up, the buffer fills: ticks for which there is no room are counted, the recording says where they
are missing, and it is told once when that begins and once when it is over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from bt_ibkr.errors import UsageError
from bt_ibkr.model.contract import Contract
from bt_ibkr.model.market import DataQuality, Tick
from bt_ibkr.recorder.files import FolderLock, clean, join_parts, write_part
from bt_ibkr.recorder.format import (
    FileInfo,
    MarketDays,
    Part,
    RecordedTick,
    RowKind,
    encode,
    folder_name,
)

_log = logging.getLogger(__name__)

#: How often the writer looks into the buffer, seconds.
_LOOK_S = 0.1
#: So many files of one size are joined to one.
_FAN = 32


class RecorderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a recording is written.

    Attributes:
        flush_s: Seconds of ticks that a killed process may lose, at most, as long as the disk keeps up.
        flush_rows: So many ticks of one instrument are written sooner.
        file_bytes: Files are not joined beyond this size.
        buffer: Ticks that wait for the writer, at most; as many may wait for the disk.
    """

    flush_s: float = 5.0
    flush_rows: int = 50_000
    file_bytes: int = 64_000_000
    buffer: int = 200_000

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not value > 0:
                raise UsageError(
                    f"Recorder setting {name} {value!r} cannot be used.", remedy="Give a number above 0."
                )


class RecorderCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a recorder has done so far.

    Attributes:
        ticks: Taken.
        dropped: Not taken, for lack of room.
        written: Rows on the disk.
        waiting: Taken, and not on the disk yet.
        bytes, files: On the disk, of this session.
        instruments: Ticks by folder.
        problem: Why nothing is written at present; empty while all is well.
    """

    ticks: int = 0
    dropped: int = 0
    written: int = 0
    waiting: int = 0
    bytes: int = 0
    files: int = 0
    instruments: dict[str, int] = {}
    problem: str = ""


#: Told in words of what befell the recording, from the session's thread or the writer's.
Told = Callable[[str], None]
#: A tick, or the time of a row that is none (0: that of the row before).
_Entry = tuple["RecordingSink", RowKind, Tick | int, str]


class RecordingSink:
    """Takes the ticks of one instrument for a recorder; see ``services.marketdata.TickSink``.

    Args:
        recorder: Whose.
        buffer: Its buffer, which all of its sinks share.
        info: Of the instrument.
        room: So long the buffer may get.
    """

    def __init__(self, recorder: TickRecorder, buffer: deque[_Entry], info: FileInfo, room: int) -> None:
        self.info = info
        self.room = room
        self.taken = 0
        self.dropped = 0
        #: Of the present episode.
        self.missing = 0
        self.last_ns = 0
        self._recorder = recorder
        self._buffer = buffer
        self._begun = False
        self.name = folder_name(info.contract)

    def push(self, tick: Tick) -> None:
        """Take a tick; the session's thread."""
        if self._begun and not self.missing:
            self.taken += 1
            self.last_ns = tick.time_ns
            self._buffer.append((self, RowKind.TICK, tick, ""))
        else:
            self._take_first(tick)

    def _take_first(self, tick: Tick) -> None:
        if self.missing:
            note = f"{self.missing} ticks were dropped: the disk did not keep up"
            self._buffer.append((self, RowKind.DROPPED, 0, note))
            self._recorder.tell(f"{self.name}: recording goes on, {note}")
            self.missing = 0
        self.taken += 1
        self.last_ns = tick.time_ns
        kind = RowKind.TICK if self._begun else RowKind.PICTURE
        self._begun = True
        self._buffer.append((self, kind, tick, ""))

    def hold(self, tick: Tick, /) -> None:
        """A tick for which there may be no room."""
        if len(self._buffer) < self.room:
            self.push(tick)
            return
        if not self.room:
            # The recorder was closed.
            return
        self.dropped += 1
        self.missing += 1
        if self.missing == 1:
            self._recorder.tell(
                f"{self.name}: ticks are dropped from the recording, the disk does not keep up"
            )

    def append(self, item: Tick, /) -> None:
        """``push`` or ``hold``."""
        self.hold(item)

    def __len__(self) -> int:
        return len(self._buffer)

    def interrupted(self, cause: str, since_ns: int = 0) -> None:
        """The stream broke; the next tick is a picture. The session's thread.

        Args:
            cause: In words.
            since_ns: Up to this market time the stream is known to have been whole; 0 for the last tick's.
        """
        if self._begun and self.room:
            self._begun = False
            self._buffer.append((self, RowKind.GAP, since_ns, cause))

    def end(self, time_ns: int, *, over: bool) -> None:
        """Nothing more comes."""
        if self.taken:
            kind = RowKind.OVER if over else RowKind.END
            self._buffer.append((self, kind, max(time_ns, self.last_ns), ""))


class _Instrument:
    """What the writer knows of one instrument."""

    def __init__(self, sink: RecordingSink, root: Path) -> None:
        self.info = sink.info
        self.folder = root / sink.name
        self.rows: list[RecordedTick] = []
        self.last: Tick | None = None
        self.days = MarketDays(sink.info.contract)
        #: Files of the day that may still be joined, by how often they were.
        self.parts: list[list[Part]] = []
        self.day = ""


class TickRecorder:
    """Writes a recording.

    Args:
        folder: Where; made if it is not there. A recording may be continued in it.
        settings: How.
        told: Told of what befalls it, in words.
        now_ns: This machine's time.

    Raises:
        UsageError: The folder cannot be written, or another recorder writes into it.
    """

    def __init__(
        self,
        folder: Path | str,
        settings: RecorderSettings | None = None,
        *,
        told: Told = lambda text: None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.folder = Path(folder)
        self.settings = settings or RecorderSettings()
        self._told = told
        self._now_ns = now_ns
        self._lock = FolderLock(self.folder)
        clean(self.folder)
        # Sorted by name, sessions are in the order of time.
        self._session = f"{now_ns():016x}{os.getpid() & 0xFFFFF:05x}"
        self._buffer: deque[_Entry] = deque()
        self._sinks: list[RecordingSink] = []
        self._instruments: dict[int, _Instrument] = {}
        self._seq = 0
        self._written = self._waiting = 0
        self._sizes: dict[Path, int] = {}
        self._problem = ""
        self._closing = False
        self._closed = False
        self._flush_asked = threading.Event()
        self._turn = threading.Condition()
        #: Flushes that were asked for, and those that were done.
        self._asked = self._answered = 0
        self._thread = threading.Thread(target=self._run, name="tick-recorder", daemon=True)
        self._thread.start()

    # -- the session's thread, or any ------------------------------------------------------------------

    def sink(self, contract: Contract, dataname: str = "") -> RecordingSink:
        """A sink for the ticks of a contract.

        Raises:
            UsageError: The recorder was closed, or records that contract already.
        """
        if self._closing:
            raise UsageError("The recorder was closed.", remedy="Make another one.")
        info = FileInfo(contract=contract, dataname=dataname, session=self._session)
        if self.records(contract):
            raise UsageError(
                f"{contract.describe()} is being recorded already.", remedy="Name each instrument once."
            )
        made = RecordingSink(self, self._buffer, info, self.settings.buffer)
        self._sinks.append(made)
        return made

    def records(self, contract: Contract) -> bool:
        """Whether the ticks of a contract go into this recording."""
        name = folder_name(contract)
        return any(sink.name == name for sink in self._sinks)

    def tell(self, text: str) -> None:
        """Pass on what befell the recording."""
        _log.warning("recording %s", text)
        self._told(text)

    def counts(self) -> RecorderCounts:
        """See ``RecorderCounts``."""
        sizes = list(self._sizes.values())
        return RecorderCounts(
            ticks=sum(sink.taken for sink in self._sinks),
            dropped=sum(sink.dropped for sink in self._sinks),
            written=self._written,
            waiting=len(self._buffer) + self._waiting,
            bytes=sum(sizes),
            files=len(sizes),
            instruments={sink.name: sink.taken for sink in self._sinks},
            problem=self._problem,
        )

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Put on the disk what was taken so far; whether that was done in time."""
        with self._turn:
            self._asked += 1
            wanted = self._asked
            self._flush_asked.set()
            self._turn.wait_for(lambda: self._answered >= wanted or self._closed, timeout_s)
            return self._answered >= wanted and not self._problem

    def close(self, *, time_ns: int = 0, over: bool = False) -> RecorderCounts:
        """Write what is left, join the files, let the folder go. Ticks that come later are not taken.

        Args:
            time_ns: The market's time, up to which the recording is whole.
            over: The market itself was over.
        """
        if not self._closed:
            self._closed = True
            for sink in self._sinks:
                sink.room = 0
                sink.end(time_ns, over=over)
            self._closing = True
            self._flush_asked.set()
            self._thread.join()
            self._lock.release()
            if self._problem:
                lost = len(self._buffer) + self._waiting
                self.tell(f"ended with {lost} rows that could not be written: {self._problem}")
        return self.counts()

    # -- the writer's thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        due = time.monotonic() + self.settings.flush_s
        while True:
            asked = self._flush_asked.wait(_LOOK_S)
            self._flush_asked.clear()
            closing, wanted = self._closing, self._asked
            try:
                full = self._take()
                if asked or full or closing or time.monotonic() >= due:
                    self._write(closing=closing)
                    due = time.monotonic() + self.settings.flush_s
                if self._problem and not self._waiting:
                    self._problem = ""
                    self.tell("files can be written again")
            except OSError as problem:
                if not self._problem:
                    self._problem = str(problem.strerror or problem)
                    self.tell(f"cannot be written: {self._problem}")
            except Exception as problem:  # noqa: BLE001 - the session must go on; its ticks are dropped, and that is told
                self._problem = f"{type(problem).__name__}: {problem}"
                _log.exception("recorder-failed")
                self.tell(f"was given up: {self._problem}")
                closing = True
            with self._turn:
                self._answered = wanted
                self._turn.notify_all()
            if closing:
                return

    def _take(self) -> bool:
        """Empty the buffer as far as there is room; whether an instrument has enough rows for a file."""
        most = self.settings.flush_rows
        buffer, full = self._buffer, False
        for _ in range(min(len(buffer), self.settings.buffer - self._waiting)):
            sink, kind, tick, note = buffer.popleft()
            one = self._instruments.get(id(sink))
            if one is None:
                one = self._instruments[id(sink)] = _Instrument(sink, self.folder)
            if isinstance(tick, int):
                tick = self._marker(one, tick)
            one.last = tick
            self._seq += 1
            one.rows.append(RecordedTick(self._seq, kind, tick, note))
            self._waiting += 1
            full = full or len(one.rows) >= most
        return full

    def _marker(self, one: _Instrument, time_ns: int) -> Tick:
        """The row that is no tick: what stands."""
        before = one.last or Tick(
            0, one.info.contract.conid, None, None, None, None, None, None, 0.0, None, DataQuality.UNKNOWN, False, 0
        )  # fmt: skip
        return msgspec.structs.replace(
            before, time_ns=time_ns or before.time_ns, traded=0.0, received_ns=self._now_ns()
        )

    def _write(self, *, closing: bool) -> None:
        for one in self._instruments.values():
            while one.rows:
                self._write_day(one)
            if closing:
                self._join_all(one)

    def _write_day(self, one: _Instrument) -> None:
        """Write the rows at the head that are of one market day."""
        find = one.days.day
        day = find(one.rows[0].tick.time_ns).isoformat()
        count = next(
            (n for n, row in enumerate(one.rows) if find(row.tick.time_ns).isoformat() != day), len(one.rows)
        )
        if one.day != day:
            self._join_all(one)
            one.day = day
        head = one.rows[:count]
        part = write_part(one.folder / day, encode(head, one.info), one.info)
        del one.rows[:count]
        self._waiting -= count
        self._written += count
        self._note(part)
        self._add(one, part, 0)

    def _note(self, part: Part) -> None:
        with contextlib.suppress(OSError):
            self._sizes[part.path] = part.path.stat().st_size

    def _add(self, one: _Instrument, part: Part, level: int) -> None:
        while len(one.parts) <= level:
            one.parts.append([])
        parts = one.parts[level]
        parts.append(part)
        if len(parts) >= _FAN:
            one.parts[level] = []
            if self._size(parts) <= self.settings.file_bytes:
                self._add(one, self._join(one, parts), level + 1)

    def _size(self, parts: list[Part]) -> int:
        return sum(self._sizes.get(part.path, 0) for part in parts)

    def _join(self, one: _Instrument, parts: list[Part]) -> Part:
        joined = join_parts(parts, one.info)
        for part in parts:
            self._sizes.pop(part.path, None)
        self._note(joined)
        return joined

    def _join_all(self, one: _Instrument) -> None:
        """No more rows of the day: the files of all levels become one, or as few as their size allows."""
        left = sorted((part for level in one.parts for part in level), key=lambda part: part.first)
        one.parts = []
        while left:
            count = 1
            while count < len(left) and self._size(left[: count + 1]) <= self.settings.file_bytes:
                count += 1
            if count > 1:
                self._join(one, left[:count])
            del left[:count]
