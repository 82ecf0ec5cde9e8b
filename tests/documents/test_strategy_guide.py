"""The strategy guide names everything that strategies are told."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from bt_ibkr.brokers.resume import Resumed

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "strategy-guide.md").read_text(encoding="utf-8")


def _told() -> set[str]:
    """The first argument of every ``tell`` and ``put_notification`` of the broker."""
    found = set()
    for path in (ROOT / "brokers").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            if node.func.attr in ("tell", "put_notification") and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return found


def test_every_message_is_in_the_table() -> None:
    table = GUIDE[GUIDE.index("## What notify_store is told") : GUIDE.index("## Halting")]
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+|reconciled)`", table))
    assert len(_told()) > 10
    assert _told() <= named
    assert named - _told() == {"position-difference", "cash-difference"}


def test_every_field_of_resumed_is_in_the_table() -> None:
    table = GUIDE[GUIDE.index("| of `resumed`") : GUIDE.index("Of a strategy without `notify_resume`")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(Resumed._fields)
