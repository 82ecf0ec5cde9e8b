"""A market for random trading, and worlds in it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Tape
from tests.orders.world import World, impatient

SECONDS = 7200


def walk(seed: int = 1) -> Tape:
    """Two hours of a price that wanders, shown in sizes that are often smaller than an order."""
    drawn, price, tape = random.Random(seed), 100.0, Tape()
    for second in range(0, SECONDS, 2):
        price = round(
            min(105.0, max(95.0, price + drawn.choice((-0.1, -0.04, -0.01, 0, 0.01, 0.04, 0.1)))), 2
        )
        tape.quote(second, round(price - 0.01, 2), round(price + 0.01, 2), drawn.choice((2, 7, 20, 1000)))
        tape.trade(second + 1, price, drawn.choice((5, 100)))
    return tape


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    path = tmp_path_factory.mktemp("market") / "AAPL.parquet"
    walk().frame().to_parquet(path)
    return (f"{path}:AAPL",)


@pytest.fixture
def world(market: tuple[str, ...], tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds; their journals last as long as the test."""
    with ExitStack() as stack:
        stack.enter_context(impatient())

        def make(**settings: Any) -> World:
            return stack.enter_context(World(tmp_path, market, **settings))

        yield make
