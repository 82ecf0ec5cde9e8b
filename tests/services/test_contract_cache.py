"""The file that keeps what IBKR told of contracts: ages, scopes, several processes, damage."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.services import contract_cache
from bt_ibkr.services.contract_cache import (
    AGES_S,
    ContractCache,
    cache_lines,
    cache_path,
    cache_scope,
    clear_cache,
)

HOUR_NS = 3600 * NS_PER_S


class Time:
    """A time of day that the test moves."""

    def __init__(self) -> None:
        self.ns = 1_800_000_000 * NS_PER_S

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "contracts.sqlite"


def test_what_was_kept_comes_back_to_the_next_process(path: Path) -> None:
    with_one = ContractCache(path, "a")
    with_one.put("details", "265598", b'{"a":1}')
    with_one.close()
    again = ContractCache(path, "a")
    assert again.get("details", "265598") == b'{"a":1}'
    assert again.get("details", "8314") is None
    assert again.get("stocks", "265598") is None
    assert again.keys("details") == ("265598",)
    again.drop("details", "265598")
    assert again.get("details", "265598") is None
    again.close()
    again.close()
    assert again.get("details", "265598") is None


def test_an_answer_is_good_for_its_age(path: Path) -> None:
    time = Time()
    cache = ContractCache(path, "a", now_ns=time)
    cache.put("chain", "x", b"1")
    cache.put("details", "x", b"2")
    cache.put("details", "ends", b"3", until_ns=time.ns + HOUR_NS)
    time.ns += HOUR_NS
    assert cache.get("details", "ends") is None
    assert cache.get("chain", "x") == b"1"
    time.ns += AGES_S["chain"] * NS_PER_S
    assert cache.get("chain", "x") is None
    assert cache.get("details", "x") == b"2"
    assert cache.keys("chain") == ()
    told = {line.kind: (line.entries, line.expired) for line in cache_lines(path, time.ns)}
    assert told == {"chain": (0, 1), "details": (1, 1)}
    cache.close()
    # The next start sweeps.
    ContractCache(path, "a", now_ns=time).close()
    assert [(line.kind, line.entries, line.expired) for line in cache_lines(path, time.ns)] == [
        ("details", 1, 0)
    ]


def test_scopes_are_apart(path: Path) -> None:
    real = ContractCache(path, cache_scope("https://localhost:5000/v1/api", ["U1", "U2"]))
    emulated = ContractCache(path, cache_scope("https://localhost:5000/v1/api/", ["DU1"]))
    emulated.put("details", "5", b"emulated")
    assert real.get("details", "5") is None
    assert emulated.get("details", "5") == b"emulated"
    same = ContractCache(path, cache_scope("https://localhost:5000/v1/api/", ["U2", "U1"]))
    real.put("details", "5", b"real")
    assert same.get("details", "5") == b"real"
    assert "U1" not in cache_scope("https://localhost:5000/v1/api", ["U1"])
    for one in (real, emulated, same):
        one.close()
    assert clear_cache(path) == 2
    assert cache_lines(path, 0) == ()


def test_without_a_file(path: Path) -> None:
    assert clear_cache(path) == 0
    assert cache_lines(path, 0) == ()
    assert not path.exists()


def test_it_lies_in_the_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_IBKR_HOME", str(tmp_path / "home"))
    assert cache_path() == tmp_path / "home" / "contracts.sqlite"


def test_only_its_owner_reads_it(path: Path) -> None:
    ContractCache(path, "a").close()
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "bytes_",
    [b"not a database, and long enough to be looked at " * 40, b"SQLite format 3\x00" + b"\xff" * 600],
)
def test_a_file_that_is_none_is_moved_aside(
    path: Path, bytes_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(bytes_)
    cache = ContractCache(path, "a")
    cache.put("details", "5", b"1")
    assert cache.get("details", "5") == b"1"
    cache.close()
    (away,) = path.parent.glob("*.damaged-*")
    assert away.read_bytes() == bytes_
    assert "contract-cache-damaged" in caplog.text


def test_damage_while_it_is_open(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ContractCache(path, "a")
    for number in range(200):
        cache.put("details", str(number), b"x" * 500)
    cache.close()
    with path.open("r+b") as file:
        # The root page and the header stay; everything below is torn.
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    cache = ContractCache(path, "a")
    other = ContractCache(path, "b")
    assert cache.get("details", "5") is None
    cache.put("details", "5", b"new")
    assert cache.get("details", "5") == b"new"
    assert "contract-cache-damaged" in caplog.text
    # Who had the damaged file open as well moves nothing away that is good.
    other.get("details", "5")
    other.put("details", "6", b"other")
    cache.close()
    other.close()
    assert len(list(path.parent.glob("*.damaged-*"))) == 1
    assert ContractCache(path, "a").get("details", "5") == b"new"


def test_of_another_version_it_is_emptied(path: Path) -> None:
    cache = ContractCache(path, "a")
    cache.put("details", "5", b"1")
    cache.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {contract_cache.SCHEMA_VERSION + 1}")
    connection.close()
    again = ContractCache(path, "a")
    assert again.get("details", "5") is None
    again.put("details", "5", b"2")
    assert again.get("details", "5") == b"2"


def test_where_it_cannot_be_written_it_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = ContractCache(tmp_path / "file" / "contracts.sqlite", "a")
    cache.put("details", "5", b"1")
    assert cache.get("details", "5") is None
    assert cache.keys("details") == ()
    assert caplog.text.count("contract-cache-unusable") == 1


def test_a_writer_is_not_waited_for(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The loop that orders leave from may not stand still for another process."""
    cache = ContractCache(path, "a")
    cache.put("details", "5", b"1")
    with sqlite3.connect(path, isolation_level=None) as busy:
        busy.execute("BEGIN IMMEDIATE")
        cache.put("details", "6", b"2")
        assert cache.get("details", "5") == b"1"
        assert cache.get("details", "6") is None
        busy.execute("ROLLBACK")
    busy.close()
    assert "locked" in caplog.text
    cache.put("details", "6", b"2")
    assert cache.get("details", "6") == b"2"


WRITER = """
import sys
from pathlib import Path
from bt_ibkr.services.contract_cache import ContractCache
cache = ContractCache(Path(sys.argv[1]), "a")
for number in range(150):
    key = f"{sys.argv[2]}-{number}"
    cache.put("details", key, key.encode())
    got = cache.get("details", key)
    # A write that another process was in the way of is left out; never a wrong or half answer.
    assert got in (None, key.encode()), got
cache.close()
"""


def test_several_processes(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)], stderr=subprocess.PIPE)
        for number in range(3)
    ]
    for one in running:
        _, problem = one.communicate(timeout=60)
        assert one.returncode == 0, problem.decode()
    assert not list(path.parent.glob("*.damaged-*"))
    cache = ContractCache(path, "a")
    kept = cache.keys("details")
    # None of them emptied what another had written.
    assert {key.partition("-")[0] for key in kept} == {"0", "1", "2"}
    assert len(kept) > 400
    assert all(cache.get("details", key) == key.encode() for key in kept)


def test_several_threads_have_one_each(path: Path) -> None:
    problems: list[BaseException] = []

    def work(name: str) -> None:
        try:
            cache = ContractCache(path, name)
            for number in range(50):
                cache.put("search", str(number), name.encode())
            assert {cache.get("search", str(number)) for number in range(50)} <= {None, name.encode()}
            cache.close()
        except BaseException as problem:  # noqa: BLE001 - told by the test's own thread
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert problems == []


def test_the_kinds_have_ages() -> None:
    assert all(0 < age <= 7 * 24 * 3600 for age in AGES_S.values())
    assert AGES_S["chain"] == 24 * 3600
    assert AGES_S["details"] == 7 * 24 * 3600
