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


@pytest.fixture(scope="module")
def deaths() -> Iterator[Counter[str]]:
    """Who died, over all seeds of this process; told at the end."""
    counted: Counter[str] = Counter()
    yield counted
    print()
    for name, times in counted.most_common():
        print(f"{times:5d} {name}")


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_a_hundred_times(mortals: Mortals, tmp_path: Path, seed: int, deaths: Counter[str]) -> None:
    one = Campaign(mortals, tmp_path / "bed", seed)
    try:
        one.run(KILLS)
    finally:
        deaths.update(one.deaths)
    shutil.rmtree(one.folder, ignore_errors=True)
