"""SIGKILL of strategies, of their hub, and of all of them, at random moments under load, by seed."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.kills import Campaign, Mortals

SEEDS = 100
KILLS = 4


@pytest.fixture(scope="module")
def mortals() -> Iterator[Mortals]:
    made = Mortals()
    yield made
    made.close()


def test_killed_here_and_there(mortals: Mortals, tmp_path: Path) -> None:
    """Two seeds, others each day."""
    day = int(time.time() // 86_400)
    for seed in (2 * day, 2 * day + 1):
        Campaign(mortals, tmp_path / str(seed), seed).run(1)


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_killed_a_hundred_times(mortals: Mortals, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deaths: Counter[str] = Counter()
    wrong: list[str] = []
    for seed in range(SEEDS):
        one = Campaign(mortals, tmp_path / str(seed), seed)
        try:
            one.run(KILLS)
        except AssertionError as problem:
            wrong.append(str(problem))
        else:
            shutil.rmtree(one.folder, ignore_errors=True)
        deaths.update(one.deaths)
        with capsys.disabled():
            print(f"\rseed {seed}: {len(wrong)} wrong", end="", flush=True)
    with capsys.disabled():
        print()
        for name, times in deaths.most_common():
            print(f"{times:5d} {name}")
    assert not wrong, "\n\n".join(wrong)
