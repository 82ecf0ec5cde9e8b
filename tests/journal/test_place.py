"""Where the program keeps its state, and its journals in it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from bt_ibkr.config import state_directory
from bt_ibkr.errors import UsageError
from bt_ibkr.journal import Journal, journal_path, schema
from bt_ibkr.journal.journal import RESERVE_BYTES
from bt_ibkr.model.intent import OrderState, key_name, make_key, parse_key
from bt_ibkr.model.trading import Trading

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "journal.md").read_text(encoding="utf-8")


def test_a_test_never_writes_to_the_users_own() -> None:
    assert os.environ["BT_IBKR_HOME"] == str(state_directory())
    assert not state_directory().is_relative_to(Path.home() / ".local")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"HOME": "/people/me"}, "/people/me/.local/state/bt-ibkr"),
        ("linux", {"HOME": "/people/me", "XDG_STATE_HOME": "/var/me"}, "/var/me/bt-ibkr"),
        # The convention: what is not absolute is passed over.
        ("linux", {"HOME": "/people/me", "XDG_STATE_HOME": "me"}, "/people/me/.local/state/bt-ibkr"),
        ("darwin", {"HOME": "/people/me"}, "/people/me/Library/Application Support/bt-ibkr"),
        ("win32", {"HOME": "/c/me", "LOCALAPPDATA": "/c/me/AppData/Local"}, "/c/me/AppData/Local/bt-ibkr"),
        ("win32", {"HOME": "/c/me"}, "/c/me/AppData/Local/bt-ibkr"),
        ("linux", {"HOME": "/people/me", "BT_IBKR_HOME": "/srv/trading"}, "/srv/trading"),
        ("linux", {"HOME": "/people/me", "BT_IBKR_HOME": "~/trading"}, "/people/me/trading"),
        ("linux", {"HOME": "/people/me", "BT_IBKR_HOME": ""}, "/people/me/.local/state/bt-ibkr"),
    ],
)
def test_state_directory(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    for name in ("BT_IBKR_HOME", "XDG_STATE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert str(state_directory()) == expected


def test_a_directory_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_IBKR_HOME", "trading")
    with pytest.raises(UsageError, match=r"BT_IBKR_HOME.*'trading'") as caught:
        state_directory()
    assert "absolute" in caught.value.remedy


def test_the_journal_of_an_account(tmp_path: Path, books: Any) -> None:
    path = journal_path("DU1234567")
    assert path == state_directory() / "journal-DU1234567.sqlite"
    assert journal_path("U1", tmp_path) == tmp_path / "journal-U1.sqlite"
    Journal.open(path, clock=books.clock).close()
    assert path.exists()
    for account in ("", "../U1", "U1/U2", "U 1", "U1\n"):
        with pytest.raises(UsageError, match="is no IBKR account id"):
            journal_path(account)


def test_keys() -> None:
    assert parse_key(make_key("sma_cross", "k3f9a", 17)) == ("sma_cross", "k3f9a", 17)
    long = key_name("x" * 500)
    assert parse_key(make_key(long, "k3f9a", 999_999_999)) is not None
    for text in (
        "",
        "a",
        "a.k3f9a",
        "a.k3f9a.0",
        "a.k3f9a.x",
        "a.K3F9A.1",
        "a.k3f9.1",
        ".k3f9a.1",
        "a.k3f9a.1.1",
    ):
        assert parse_key(text) is None
    for text in ("SMA cross", "ä.b/c", "", "---", "two words & more"):
        assert parse_key(make_key(key_name(text), "k3f9a", 1)) is not None, text
    assert key_name("sma_cross") == "sma_cross"


def test_the_document_tells_tables_states_and_sizes() -> None:
    tables = set(re.findall(r"CREATE TABLE (\w+)", " ".join(schema.MIGRATIONS[0])))
    told = set()
    for row in re.findall(r"^\| (`[^|]+) \|", TEXT, re.MULTILINE):
        told |= set(re.findall(r"`(\w+)`", row))
    assert told == tables | {state.value for state in OrderState}
    assert all(f"`{mode.value}`" in TEXT for mode in Trading)
    assert f"less than {RESERVE_BYTES // 1_000_000} MB" in TEXT


def test_the_documents_example_runs(monkeypatch: pytest.MonkeyPatch, books: Any, capsys: Any) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    journal = books.open(journal_path("U1234567"))
    key = books.place(journal, 1)
    exec(compile(example, "docs/journal.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.startswith(f"{key} intended None 0 BUY 10 LMT order")


def test_the_documents_queries_run(books: Any) -> None:
    journal = books.open()
    key = books.place(journal, 1)
    queries = re.findall(r'^sqlite3 -readonly \S+ "(.*)"$', TEXT, re.MULTILINE)
    assert len(queries) == 2
    execute = journal._database.connection.execute
    assert execute(queries[0]).fetchall() == [(key, "intended", None, "")]
    assert execute(queries[1]).fetchall() == [("2023-11-14 22:13:20", key, "intended", "")]
