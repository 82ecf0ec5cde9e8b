"""Every campaign is in docs/campaigns.md, under a command that runs it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_campaign_is_told() -> None:
    told = re.findall(r"pytest -m soak (tests/[\w/.]+)", (ROOT / "docs" / "campaigns.md").read_text("utf-8"))
    campaigns = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "@pytest.mark.soak" in path.read_text("utf-8") and path != Path(__file__)
    ]
    assert campaigns
    missing = [one for one in campaigns if not any(one.startswith(place) for place in told)]
    assert not missing
    assert all((ROOT / place).exists() for place in told)
