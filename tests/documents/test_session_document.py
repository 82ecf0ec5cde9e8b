"""docs/session.md tells every state, what may follow it, every class of requests, and the defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

from bt_ibkr.config import SessionSettings
from bt_ibkr.connection.metrics import Metrics
from bt_ibkr.session.classes import RequestClass
from bt_ibkr.session.maintenance import REGIONS
from bt_ibkr.session.states import ALLOWED, SessionState

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "session.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("|")
]
STATES = {state.value: state for state in SessionState}


def test_every_state_is_told_with_what_to_do() -> None:
    assert [row[0] for row in ROWS if len(row) == 4 and row[0] in STATES] == list(STATES)


def test_the_table_of_transitions_is_the_codes() -> None:
    told = {
        STATES[row[0]]: frozenset(STATES[name] for name in row[1].split(", "))
        for row in ROWS
        if len(row) == 2 and row[0] in STATES
    }
    assert told == ALLOWED


def test_classes_policies_and_regions_are_told() -> None:
    rows = {name for row in ROWS for name in re.findall(r"`([A-Za-z_]+)`", row[0])}
    assert {klass.name for klass in RequestClass} <= rows
    assert set(get_args(get_type_hints(SessionSettings)["competing"])) <= rows
    assert all(f"`{region}`" in TEXT for region in REGIONS)


def test_defaults_are_told() -> None:
    settings = SessionSettings()
    assert f"from {settings.reconnect_first_s:g} s to {settings.reconnect_longest_s:g} s" in TEXT
    assert f"`penalty_s` ({settings.penalty_s:g} s)" in TEXT
    assert f"`mute_s` ({settings.mute_s:g} s)" in TEXT
    assert f"`silence_s` ({settings.silence_s:g} s;" in TEXT
    assert f"`tick_backlog` ({settings.tick_backlog:,};" in TEXT
    assert (settings.tickle_interval_s, settings.tic_interval_s, settings.renew_market_data_s) == (
        60,
        30,
        540,
    )
    assert settings.competing == "take_over_once"


def test_every_figure_is_told() -> None:
    told = {name for row in ROWS for name in re.findall(r"`([a-z_]+)`", row[0])}
    assert set(Metrics.__struct_fields__) <= told


def test_every_notice_is_told() -> None:
    """The kinds that the code tells, and the messages of the store."""
    root = Path(__file__).resolve().parents[2] / "bt_ibkr"
    code = [*(root / "connection").rglob("*.py"), *(root / "desk").rglob("*.py")]
    kinds = {kind for path in code for kind in re.findall(r'tell\(\s*"([a-z-]+)"', path.read_text("utf-8"))}
    assert {"error", "mute", "notice", "reread", "unread", "unreadable", "journal-failed"} <= kinds
    told = {row[0] for row in ROWS if len(row) == 3}
    assert {f"`{kind}`" for kind in kinds | {"gap", "conflated", "caught up"}} <= told
