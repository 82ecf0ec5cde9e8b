"""Turns that several processes share: one request in so many seconds, whoever makes it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bt_ibkr.config import SessionSettings
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.emulator.testing import EmulatorThread
from bt_ibkr.login import GatewayLogin, NoLogin, OAuth1Login
from bt_ibkr.session.pacing import gate_of
from bt_ibkr.session.shared_turns import SharedTurn, turn_place

if TYPE_CHECKING:
    from collections.abc import Callable

SPAN_S = 5.0


class Clock:
    """The time of day, as it is set."""

    def __init__(self) -> None:
        self.now_s = 1e9

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turn(tmp_path: Path, clock: Clock) -> Callable[[], SharedTurn]:
    """A turn as each process makes it."""
    return lambda: SharedTurn(tmp_path / "turns" / "orders.turn", SPAN_S, now=clock)


def test_the_next_one_waits_for_the_end_of_the_one_before(
    turn: Callable[[], SharedTurn], clock: Clock
) -> None:
    one, other = turn(), turn()
    assert one.wait_s() == other.wait_s() == 0
    assert one.take() == 0
    clock.now_s += 1.0
    assert other.wait_s() > SPAN_S - 1.0
    assert other.take() > SPAN_S - 1.0
    one.ended()
    assert other.wait_s() == pytest.approx(SPAN_S, abs=1e-3)
    clock.now_s += SPAN_S + 0.001
    assert other.wait_s() == 0
    assert other.take() == 0
    assert one.take() > 0


def test_a_process_that_died_on_the_way_holds_nobody_up_for_long(
    turn: Callable[[], SharedTurn], clock: Clock
) -> None:
    assert turn().take() == 0
    clock.now_s += SPAN_S + 2.001
    assert turn().take() == 0


def test_a_clock_that_was_set_back_counts_for_nothing(turn: Callable[[], SharedTurn], clock: Clock) -> None:
    assert turn().take() == 0
    clock.now_s -= 3600
    assert turn().take() == 0


@pytest.mark.parametrize("text", [b"", b"12:30", b"\xff\x00", b"nan", b"inf", b"1e400", b"-5"])
def test_a_file_that_holds_anything_else(turn: Callable[[], SharedTurn], tmp_path: Path, text: bytes) -> None:
    (tmp_path / "turns").mkdir()
    (tmp_path / "turns" / "orders.turn").write_bytes(text)
    one = turn()
    assert one.wait_s() == 0
    assert one.take() == 0
    assert turn().take() > 0


def test_where_no_file_can_be_made_each_process_is_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    turn = SharedTurn(tmp_path / "file" / "orders.turn", SPAN_S)
    with caplog.at_level(logging.WARNING):
        assert turn.wait_s() == turn.take() == turn.take() == 0
        turn.ended()
    assert caplog.text.count("shared-turn-unknown") == 1


def test_one_of_many_takes_it(turn: Callable[[], SharedTurn]) -> None:
    ready, taken = threading.Barrier(8), []

    def take() -> None:
        mine = turn()
        ready.wait(30)
        if not mine.take():
            taken.append(mine)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(taken) == 1


def test_logins_and_servers_are_kept_apart(tmp_path: Path) -> None:
    oauth = OAuth1Login(
        consumer_key="TESTCONS",
        access_token="env:TOKEN",
        access_token_secret="env:SECRET",
        signature_key="file:/sign.pem",
        encryption_key="file:/encrypt.pem",
        dh_parameters="file:/dh.pem",
    )
    base = "https://localhost:5000/v1/api"
    places = [
        turn_place(tmp_path, base, GatewayLogin(), "/tickle", "*"),
        turn_place(tmp_path, "https://localhost:5001/v1/api", GatewayLogin(), "/tickle", "*"),
        turn_place(tmp_path, base, oauth, "/tickle", "*"),
        turn_place(tmp_path, base, GatewayLogin(), "/orders", "*"),
    ]
    assert len(set(places)) == 4
    assert turn_place(tmp_path, base + "/", NoLogin(), "/tickle", "*") == places[0]


def test_gates_of_two_processes_wait_for_each_other() -> None:
    """Through the gate, by the real clock: on the limits' own clock a hundred times as fast."""
    settings = SessionSettings(base_url="http://127.0.0.1:1/v1/api", pacing_speed=100.0)

    async def both() -> list[float]:
        loop, left = asyncio.get_running_loop(), []
        gates = [gate_of(settings) for _ in range(2)]

        async def ask(number: int) -> None:
            async with gates[number % 2].turn("GET", "/iserver/account/orders"):
                left.append(loop.time())

        await asyncio.gather(*(ask(number) for number in range(6)))
        return left

    left = asyncio.run(both())
    assert len(left) == 6
    # 5 s at a hundredth, and the way.
    assert all(later - sooner >= 0.15 for sooner, later in itertools.pairwise(left))


def test_commands_beside_each_other_earn_no_penalty() -> None:
    """Each logs on anew, and asks for what may be asked for once in five seconds."""
    with EmulatorThread(EmulatorSettings(pacing="strict", pacing_speed=5.0, history_days=0)) as emulator:
        command = [sys.executable, "-m", "bt_ibkr", "positions", "--gateway", emulator.url, "--json"]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(2)
        ]
        told = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], told
