"""Logs that do not grow without end, and stop nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bt_ibkr.app.hub_logs import RotatingLog


def files(path: Path) -> list[bytes]:
    """Oldest first."""
    older = sorted(path.parent.glob(path.name + ".*"), key=lambda one: -int(one.suffix[1:]))
    found = [*older, path] if path.exists() else older
    return [one.read_bytes() for one in found]


def test_turns_over_between_lines(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "a.log", most_bytes=1000, keep=2)
    lines = [f"line {number:4} {'x' * 30}\n".encode() for number in range(110)]
    for line in lines:
        log.write(line[:7])
        log.write(line[7:])
    log.close()
    kept = files(tmp_path / "a.log")
    assert len(kept) == 3
    assert b"".join(lines).endswith(b"".join(kept))
    assert all(one.startswith(b"line") and one.endswith(b"\n") for one in kept)
    assert all(len(one) <= 1100 for one in kept)


def test_goes_on_with_what_is_there(tmp_path: Path) -> None:
    for word in (b"first\n", b"second\n"):
        log = RotatingLog(tmp_path / "a.log", most_bytes=1000, keep=2)
        log.write(word)
        log.close()
    assert (tmp_path / "a.log").read_bytes() == b"first\nsecond\n"


def test_a_note_begins_a_line(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "a.log", most_bytes=1000, keep=0)
    log.write(b"half")
    log.note("=== told")
    log.close()
    assert (tmp_path / "a.log").read_bytes() == b"half\n=== told\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=20), st.integers(0, 3))
def test_nothing_is_torn_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], keep: int
) -> None:
    path = tmp_path_factory.mktemp("logs") / "a.log"
    log = RotatingLog(path, most_bytes=2000, keep=keep)
    for chunk in chunks:
        log.write(chunk)
    log.close()
    kept = files(path) if any(chunks) else []
    assert b"".join(chunks).endswith(b"".join(kept))
    assert len(kept) <= keep + 1


@pytest.mark.skipif(os.name != "posix" or not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.log").symlink_to("/dev/full")
    log = RotatingLog(tmp_path / "a.log", most_bytes=1000, keep=1)
    log.write(b"x" * 10)
    assert log.dropped == 10
    log.close()
