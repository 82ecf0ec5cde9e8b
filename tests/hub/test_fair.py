"""Whose order leaves next."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bt_ibkr.hub.fair import FairQueue


class Done:
    """Work that is done when it is told to."""

    def __init__(self, at_a_time: int = 1) -> None:
        self.queue = FairQueue(at_a_time)
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    def put(self, owner: str, piece: str) -> None:
        gate = self.gates[piece] = asyncio.Event()

        async def work() -> None:
            self.begun.append(piece)
            await gate.wait()

        self.queue.put(owner, piece, work)

    async def finish(self) -> list[str]:
        """All of it, one after another; in which order it began."""
        finished = 0
        await asyncio.sleep(0)
        while finished < len(self.begun):
            self.gates[self.begun[finished]].set()
            finished += 1
            for _ in range(4):
                await asyncio.sleep(0)
        return self.begun


def test_strategies_take_turns() -> None:
    async def run() -> list[str]:
        done = Done()
        for number in range(200):
            done.put("alpha", f"a{number}")
        await asyncio.sleep(0)
        done.put("beta", "b0")
        done.put("gamma", "c0")
        done.put("beta", "b1")
        return await done.finish()

    begun = asyncio.run(run())
    # One of alpha's was under way, one was next; then everybody has his turn.
    assert begun[:7] == ["a0", "a1", "b0", "c0", "a2", "b1", "a3"]
    assert len(begun) == 203


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.sampled_from("abcd"), max_size=40),
    at_a_time=st.integers(1, 4),
    withdrawn=st.sets(st.integers(0, 39), max_size=10),
)
def test_each_piece_once_and_in_its_owners_order(
    pieces: list[str], at_a_time: int, withdrawn: set[int]
) -> None:
    """Whatever is withdrawn: what had not begun never begins, all else does, and nobody has two turns in a row while
    others wait."""

    async def run() -> tuple[list[str], set[str]]:
        done = Done(at_a_time)
        names = [f"{owner}{number}" for number, owner in enumerate(pieces)]
        for owner, name in zip(pieces, names, strict=True):
            done.put(owner, name)
        taken = {
            names[place]
            for place in sorted(withdrawn)
            if place < len(names) and done.queue.withdraw(pieces[place], names[place])
        }
        return await done.finish(), taken

    begun, taken = asyncio.run(run())
    names = [f"{owner}{number}" for number, owner in enumerate(pieces)]
    assert sorted(begun) == sorted(set(names) - taken)
    for owner in "abcd":
        mine = [name for name in begun if name[0] == owner]
        assert mine == [name for name in names if name[0] == owner and name not in taken]
    for first, second in zip(begun[at_a_time:], begun[at_a_time + 1 :], strict=False):
        waiting = {name[0] for name in begun[begun.index(second) :]}
        if first[0] == second[0]:
            assert waiting == {first[0]}, begun


def test_what_has_begun_cannot_be_withdrawn() -> None:
    async def run() -> tuple[bool, bool, bool]:
        done = Done()
        done.put("alpha", "a0")
        done.put("alpha", "a1")
        found = done.queue.withdraw("alpha", "a0"), done.queue.withdraw("alpha", "a1")
        again = done.queue.withdraw("alpha", "a1")
        assert done.queue.waiting("alpha") == 0
        assert await done.finish() == ["a0"]
        return *found, again

    assert asyncio.run(run()) == (False, True, False)


def test_work_that_fails_does_not_stop_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> bool:
        queue, ran = FairQueue(1), asyncio.Event()

        async def fail() -> None:
            raise ValueError("it fails")

        async def work() -> None:
            ran.set()

        queue.put("alpha", 1, fail)
        queue.put("alpha", 2, work)
        await asyncio.wait_for(ran.wait(), 5)
        return ran.is_set()

    assert asyncio.run(run())
    assert "hub-order-failed" in caplog.text
