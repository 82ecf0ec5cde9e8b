"""Killed processes, slow disks, full disks."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import DataQuality, Tick
from bt_ibkr.recorder import RecorderSettings, Recording, RowKind, TickRecorder
from bt_ibkr.recorder import recorder as module
from bt_ibkr.recorder.files import UNFINISHED, write_part
from bt_ibkr.recorder.format import Part

AAPL = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK, time_zone="America/New_York")

#: Records numbered ticks until it is killed; says after each flush how many are certainly on the disk.
_WRITER = """
import sys
from pathlib import Path
from bt_ibkr.model.contract import Contract, SecurityType
from bt_ibkr.model.market import DataQuality, Tick
from bt_ibkr.recorder import TickRecorder, RecorderSettings

contract = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK)
recorder = TickRecorder(sys.argv[1], RecorderSettings(flush_s=0.01, flush_rows=40))
sink = recorder.sink(contract)
number = int(sys.argv[2])
while True:
    for _ in range(25):
        sink.push(Tick(number * 10**9, 265598, None, None, None, None, float(number), 1.0, 1.0, None,
                       DataQuality.REALTIME, False, 0))
        number += 1
    recorder.flush()
    print(number, flush=True)
"""


def tick(number: int) -> Tick:
    time_ns = 1_772_461_800_000_000_000 + number * 10**9
    return Tick(
        time_ns, 265598, None, None, None, None, float(number), 1.0, 1.0, None, DataQuality.REALTIME, False, 0
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_recorder_loses_only_what_was_not_flushed(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Killed at five random moments, most of them in the middle of writing or joining files."""
    random_ = random.Random(7)
    begun = 0
    certain: list[range] = []
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(begun)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert process.stdout is not None
        told = begun
        for _ in range(random_.randint(5, 120)):
            told = int(process.stdout.readline())
        threading.Event().wait(random_.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        with contextlib.closing(process.stdout):
            told = max([told, *map(int, process.stdout.read().split())])
        process.wait()
        certain.append(range(begun, told))
        # What is read while leftovers lie about is right already.
        rows = [int(row.tick.last or 0) for row in Recording(tmp_path).find().rows()]
        assert rows == sorted(set(rows))
        assert set(certain[-1]) <= set(rows)
        begun = told + 1000
    unfinished = list(tmp_path.rglob("*" + UNFINISHED))
    recorder = TickRecorder(tmp_path)
    recorder.close()
    assert not list(tmp_path.rglob("*" + UNFINISHED))
    after = [int(row.tick.last or 0) for row in Recording(tmp_path).find().rows()]
    assert after == rows, unfinished
    for part in certain:
        assert set(part) <= set(after)


class _Disk:
    """Writes of a recorder, held or failing as a test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.free = threading.Event()
        self.problem: OSError | None = None
        self._real = write_part
        monkeypatch.setattr(module, "write_part", self._write)

    def _write(self, *args: Any) -> Part:
        self.reached.set()
        assert self.free.wait(20)
        if self.problem is not None:
            raise self.problem
        return self._real(*args)


def test_a_slow_disk_costs_ticks_not_memory_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = _Disk(monkeypatch)
    told: list[str] = []
    recorder = TickRecorder(tmp_path, RecorderSettings(flush_rows=10, buffer=50), told=told.append)
    sink = recorder.sink(AAPL)
    for number in range(10):
        sink.append(tick(number))
    assert disk.reached.wait(20)
    # As the session does it, while the writer hangs.
    for number in range(10, 300):
        if len(sink) < sink.room:
            sink.push(tick(number))
        else:
            sink.hold(tick(number))
    counts = recorder.counts()
    assert (counts.ticks, counts.dropped) == (60, 240)
    assert counts.waiting == 60
    disk.free.set()
    assert recorder.flush()
    sink.append(tick(300))
    assert recorder.close().dropped == 240
    rows = list(Recording(tmp_path).find().rows())
    assert [row.tick.last for row in rows if row.kind in (RowKind.TICK, RowKind.PICTURE)] == [*range(60), 300]
    assert [(row.kind, row.note[:3]) for row in rows[60:62]] == [(RowKind.DROPPED, "240"), (RowKind.TICK, "")]
    assert len(told) == 2
    assert "dropped" in told[0]
    assert "240" in told[1]


def test_a_full_disk_is_told_and_written_to_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = _Disk(monkeypatch)
    disk.problem = OSError(28, "No space left on device")
    disk.free.set()
    told: list[str] = []
    recorder = TickRecorder(tmp_path, RecorderSettings(flush_s=0.05, buffer=30), told=told.append)
    sink = recorder.sink(AAPL)
    for number in range(20):
        sink.append(tick(number))
    assert not recorder.flush()
    assert recorder.counts().problem == "No space left on device"
    disk.problem = None
    assert recorder.flush()
    assert recorder.counts().problem == ""
    assert told == ["cannot be written: No space left on device", "files can be written again"]
    disk.problem = OSError(28, "No space left on device")
    sink.append(tick(20))
    recorder.close()
    assert "2 rows that could not be written" in told[-1]
    assert len([row for row in Recording(tmp_path).find().rows() if row.kind is not RowKind.END]) == 20


def test_files_rotate_by_size(tmp_path: Path) -> None:
    recorder = TickRecorder(tmp_path, RecorderSettings(flush_rows=50, file_bytes=20_000))
    sink = recorder.sink(AAPL)
    sent = 40
    for number in range(sent * 50):
        sink.append(tick(number))
        if number % 50 == 49:
            assert recorder.flush()
    counts = recorder.close()
    files = list(tmp_path.rglob("*.parquet"))
    assert 2 <= len(files) < sent
    assert all(file.stat().st_size < 25_000 for file in files)
    assert counts.bytes == sum(file.stat().st_size for file in files)
    rows = [row for row in Recording(tmp_path).find().rows() if row.kind is not RowKind.END]
    assert [row.tick.last for row in rows] == [float(number) for number in range(sent * 50)]
