"""Fault 86: the time of ticks goes back, bars come twice or are revised, the stream has a gap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.conftest import Bench, Tape


@pytest.mark.parametrize("corrections", [None, "report", "apply"])
def test_86_time_goes_back(bench: Bench, tape: type[Tape], corrections: str | None) -> None:
    """The server's clock falls back by two minutes for a while: bars stay in order, none is of the future, and
    what the late ticks would have changed is told by the official bars."""
    prices = tape().every_second(1500, lambda second: 100.0 + second % 11, size=400)
    line = bench.line(market=bench.market(AAPL=prices))
    ahead: list[float] = []

    def script(strategy: Any) -> None:
        moment = strategy.data.datetime.datetime(0)
        ahead.append(bench.epoch(moment) - line.clock.now_ns() / 1e9)
        if len(strategy) == 4:
            line.control.post("/fault", {"kind": "skew", "offset_s": -120.0})
        elif len(strategy) == 5:
            line.control.post("/clear_faults", {})

    run = bench.run(line, script, feeds=[{"dataname": "AAPL", "corrections": corrections}])
    frame, wanted = run.strategy.frame("AAPL"), prices.bars(60)
    assert frame.index.is_monotonic_increasing
    assert frame.index.is_unique
    assert max(ahead) <= 0.001
    wrong = [moment for moment in frame.index if not frame.loc[moment].equals(wanted.loc[moment])]
    assert wrong
    told = [args[0] for message, args, _ in run.strategy.messages if message == "bar-corrected"]
    if corrections is None:
        assert not told
        return
    differing = sorted(
        set(wrong) | set(wanted.index[wanted.index <= frame.index[-1]].difference(frame.index))
    )
    assert [pd.Timestamp(one.new.end_ns) for one in told] == differing
    for one in told:
        moment = pd.Timestamp(one.new.end_ns)
        assert (one.new.open, one.new.close, one.new.volume) == tuple(
            wanted.loc[moment, ["open", "close", "volume"]]
        )
        assert one.applied is (corrections == "apply" and one.old is not None)
    # What stands in the lines at the end.
    data = run.cerebro.datas[0]
    closes = dict(zip(frame.index, data.close.array, strict=True))
    if corrections == "apply":
        assert closes == {moment: wanted.loc[moment, "close"] for moment in frame.index}
    else:
        assert closes == dict(frame["close"])


def test_86_gap_is_filled_once_and_marked(bench: Bench, tape: type[Tape]) -> None:
    prices = tape().every_second(900, lambda second: 100.0 + second % 11, size=400)
    line = bench.line(market=bench.market(AAPL=prices))
    marks: list[tuple[bool, bool]] = []

    def script(strategy: Any) -> None:
        marks.append((strategy.data.back_filled, strategy.data.current))
        if len(strategy) == 5:
            line.control.post("/fault", {"kind": "ws_close"})

    run = bench.run(line, script)
    frame, wanted = run.strategy.frame("AAPL"), prices.bars(60)
    pd.testing.assert_frame_equal(
        frame, wanted, check_names=False, check_freq=False, check_index_type=False, check_dtype=False
    )
    filled = [index for index, (back_filled, _) in enumerate(marks) if back_filled]
    assert filled
    assert filled[0] >= 5
    assert len(filled) < 4
    assert not any(back_filled for back_filled, _ in marks[filled[-1] + 1 :])
