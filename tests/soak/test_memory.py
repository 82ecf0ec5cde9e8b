"""Ten feeds that take in ticks as fast as they can: flat memory with ``exactbars=1``, and the same indicators.

The ticks come over a real WebSocket from the server of the benchmarks, which sends faster than anybody reads.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.soak.eater import Eaten

ROOT = Path(__file__).resolve().parents[2]
FEEDS = 10
#: As the benchmarks' server counts: bars of a minute, ten of them; the first begins at a whole minute.
BAR_MS, SECONDS = 60_000, 600
SLOPE_BYTES_PER_TICK = 0.5


@pytest.fixture
def market() -> Iterator[str]:
    """REST base of the benchmarks' server."""
    script = ROOT / "benchmarks" / "market.py"
    if not script.exists():
        pytest.skip("the benchmarks are not beside the tests")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


def eat(market: str, frames: int, exactbars: int, timeout_s: float) -> Eaten:
    """One run in a process of its own."""
    base_ms = (int(time.time() * 1000) // BAR_MS + 2) * BAR_MS
    scenario = {"kind": "bars", "feeds": FEEDS, "frames": frames, "base_ms": base_ms}
    with urllib.request.urlopen(f"{market}/bench/prepare", msgspec.json.encode(scenario), timeout_s):
        pass
    arguments = [f"{market}/v1/api", str(frames), str(FEEDS), str(exactbars)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.eater", *arguments],
        cwd=ROOT,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Eaten)


def check(market: str, frames: int, timeout_s: float) -> list[int]:
    """Run with and without ``exactbars``; the memory that the first held, bar by bar."""
    lean, full = (eat(market, frames, exactbars, timeout_s) for exactbars in (1, 0))
    assert lean.bars == full.bars == FEEDS * SECONDS
    wanted = sum(sequence % 9 + 1 for sequence in range(frames))
    assert lean.volume == full.volume == wanted
    assert lean.indicators == full.indicators
    assert len(lean.resident) >= SECONDS // 20 - 1
    return lean.resident


def slope(resident: list[int], frames: int) -> float:
    """Bytes per tick, by least squares over the second half: what a warm-up takes is no leak."""
    half = resident[len(resident) // 2 :]
    ticks = [frames / len(resident) * number for number in range(len(half))]
    middle, mean = sum(ticks) / len(ticks), sum(half) / len(half)
    above = sum((x - middle) * (y - mean) for x, y in zip(ticks, half, strict=True))
    return above / sum((x - middle) ** 2 for x in ticks)


@pytest.mark.timeout(180)
def test_a_hundred_thousand_ticks(market: str) -> None:
    """Short: nothing is lost, and the memory of the end is that of the middle, but for a few megabytes."""
    resident = check(market, 100_000, 150.0)
    assert resident[-1] - resident[len(resident) // 2] < 8_000_000


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_five_million_ticks(market: str) -> None:
    """In full."""
    frames = 5_000_000
    resident = check(market, frames, 1700.0)
    found = slope(resident, frames)
    print(f"resident {resident[0] / 1e6:.1f} to {resident[-1] / 1e6:.1f} MB, {found:.3f} bytes a tick")
    assert found < SLOPE_BYTES_PER_TICK
