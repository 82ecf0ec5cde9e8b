"""Recorded answers and frames, where the folder of shared facts lies beside the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "ibkr" / "fixtures"
FIELD_TAGS = FIXTURES.parent / "field-tags.json"


def _lines(name: str) -> list[dict[str, Any]]:
    path = FIXTURES / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: the recorded answers are kept outside the repository")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


@pytest.fixture(scope="session")
def rest_fixtures() -> list[dict[str, Any]]:
    return [line for line in _lines("rest-fixtures.jsonl") if "body" in line]


@pytest.fixture(scope="session")
def ws_frames() -> list[dict[str, Any]]:
    return _lines("ws-frames.jsonl")


@pytest.fixture(scope="session")
def field_tags() -> dict[str, dict[str, Any]]:
    if not FIELD_TAGS.is_file():
        pytest.skip(f"{FIELD_TAGS} is not there: the table of tags is kept outside the repository")
    loaded: dict[str, dict[str, Any]] = json.loads(FIELD_TAGS.read_text("utf-8"))
    return loaded
